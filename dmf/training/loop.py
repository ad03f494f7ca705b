"""The training loop. All that a run is lies in `Trainer.state`; what is drawn at random follows from seed and step.

Nothing else is carried from step to step, so a run that goes on from a state, even in the middle of an epoch, ends with
the weights of one that was never interrupted: bit for bit on a CPU by the same number of processes.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from itertools import islice
from math import inf, isfinite
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.parallel import DistributedDataParallel

from dmf.training.classification import Classification
from dmf.training.config import ClassificationConfig, TrainingConfig, differences
from dmf.training.data import Splits
from dmf.training.detection import Detection
from dmf.training.detection_config import DetectionConfig
from dmf.training.distributed import Processes, join_batch_norms
from dmf.training.metrics import EpochMetrics
from dmf.training.optimizer import adamw, averaged
from dmf.training.sampler import MultiScaleBatches, loader
from dmf.training.schedule import learning_rate, temperature
from dmf.training.task import Task, backbone, means
from runtime.errors import UsageError

DTYPES = {"off": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class NotFinite(ArithmeticError):
    """The loss or its gradient is NaN or infinite; the weights are still those before the step."""


@dataclass
class Position:
    """Where a run is: this many optimizer steps into an epoch, and what was measured in it so far."""

    epoch: int = 0
    step: int = 0  # in this epoch
    steps: int = 0  # in all epochs
    seconds: float = 0.0
    epoch_seconds: float = 0.0  # spent training in this epoch
    totals: list[float] = field(default_factory=list)  # the task's, summed over the epoch's images; last their number


class Trainer:
    """One run of `config` by these processes; `model` is trained, `average.module` is what is kept."""

    def __init__(self, config: TrainingConfig, splits: Splits[Any] | None, processes: Processes) -> None:
        """On `splits`, or on the config's data.

        UsageError: unusable data, a batch that can't be shared among the processes, or too few pictures for one.
        """
        self.config, self.processes = config, processes
        device, sampler = processes.device, config.sampler
        if sampler.batch_size % (processes.world * sampler.accumulate):
            raise UsageError(
                f"[sampler] batch_size {sampler.batch_size} can't be shared by {processes.world} processes "
                f"that accumulate {sampler.accumulate}"
            )
        self.batch_size = sampler.batch_size // processes.world // sampler.accumulate  # of one process at once
        if device.type == "cuda":
            make_deterministic()
        torch.manual_seed(config.run.seed)
        self.task = task_of(config, splits)
        self.splits = self.task.splits
        self.model = self.task.network.to(device).train()
        if processes.world > 1:
            join_batch_norms(self.model, device)
        self.average = averaged(self.model, config.ema)
        self.optimizer = adamw(self.model, config.optimizer)
        self.dtype = DTYPES[config.run.mixed_precision] if device.type == "cuda" else torch.float32
        self.scaler = GradScaler(device.type, enabled=self.dtype == torch.float16)
        objective = self.task.objective()
        self.parallel = (
            DistributedDataParallel(objective, device_ids=[device] if device.type == "cuda" else None)
            if processes.world > 1
            else objective
        )
        self.transform = self.task.train_transform
        self.batches = MultiScaleBatches(
            len(self.splits.train),
            self.batch_size,
            self.task.image_size,
            self.task.sizes,
            config.run.seed,
            processes.rank,
            processes.world,
        )
        self.at = Position()
        self.history: list[EpochMetrics] = []
        self.skipped: dict[str, str] = {}  # unreadable files, and what is wrong with each

    def state(self) -> dict[str, Any]:
        """The whole run: tensors and plain values, the same in every process."""
        return {
            "config": self.config.to_dict(),
            "classes": list(self.splits.train.classes),
            "pictures": [len(self.splits.train), len(self.splits.heldout)],
            "threads": torch.get_num_threads(),
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "position": asdict(self.at),
            "history": [row.to_dict() for row in self.history],
            "skipped": self.skipped,
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave, with its number of threads, on which the order of sums depends.

        UsageError: of another config or data set.
        """
        if changed := differences(TrainingConfig.from_dict(state["config"]), self.config):
            raise UsageError(f"the checkpoint is of another config: {', '.join(changed)}")
        here = self.state()
        for name in ("classes", "pictures"):
            if state[name] != here[name]:
                raise UsageError(
                    f"the checkpoint is of another data set: its {name} are {state[name]}, not {here[name]}"
                )
        torch.set_num_threads(state["threads"])
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.at = Position(**state["position"])
        self.history = [self.task.row.from_dict(row) for row in state["history"]]
        self.skipped = state["skipped"]

    def run(
        self,
        checkpoint: Callable[[], None],
        after_step: Callable[[float, str, float], None],
        after_epoch: Callable[[EpochMetrics], None],
    ) -> None:
        """Train to the end.

        `checkpoint` is called at the end of each epoch and every `checkpoint_steps` steps, `after_step` with the epochs
        done, the epoch's measures so far in words, and its images per second. Raises `NotFinite`, and the loader's
        errors.
        """
        while self.at.epoch < self.config.schedule.epochs:
            self.train_epoch(checkpoint, after_step)
            self.end_epoch()
            checkpoint()
            after_epoch(self.history[-1])

    def train_epoch(self, checkpoint: Callable[[], None], after_step: Callable[[float, str, float], None]) -> None:
        """The rest of the epoch, from `at.step` on."""
        config, at, accumulate = self.config, self.at, self.config.sampler.accumulate
        self.batches.set_epoch(at.epoch)
        steps = len(self.batches) // accumulate  # the batches of an unfinished step are dropped
        if not steps:
            raise UsageError(f"an epoch has {len(self.batches)} batches, accumulate is {accumulate}; make it smaller")
        for network in (self.model, self.average.module):
            backbone(network).set_temperature(temperature(config.schedule, at.epoch))
        batches = iter(
            loader(
                self.splits.train,
                self.transform,
                self.batches,
                config.run.seed,
                config.data.workers,
                start=at.step * accumulate,
            )
        )
        begin = time.perf_counter()
        while at.step < steps:
            done = at.epoch + (at.step + 1) / steps
            totals = self.step(batches, learning_rate(config.schedule, config.optimizer.lr, done))
            at.step, at.steps = at.step + 1, at.steps + 1
            at.totals = [a + b for a, b in zip(at.totals or [0.0] * len(totals), totals, strict=True)]
            now = time.perf_counter()
            at.epoch_seconds, at.seconds, begin = at.epoch_seconds + now - begin, at.seconds + now - begin, now
            progress = self.task.row.progress(means(at.totals, self.task.totals))
            after_step(done, progress, at.totals[-1] / at.epoch_seconds)
            if config.run.checkpoint_steps and at.steps % config.run.checkpoint_steps == 0 and at.step < steps:
                checkpoint()

    def step(self, batches: Iterator[tuple[Tensor, Any]], lr: float) -> list[float]:
        """One optimizer step -> the task's totals, summed over all processes' images, and the number of images.

        Each accumulated batch counts the same, whatever its size. Raises `NotFinite` before the weights change.
        """
        config, accumulate = self.config, self.config.sampler.accumulate
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        tally = torch.zeros(len(self.task.totals) + 1, dtype=torch.float64, device=self.processes.device)
        for i, (images, known) in enumerate(islice(batches, accumulate)):
            # dropout and stochastic depth: the same at this place of the run, however it was reached
            reseed(config.run.seed, self.at.epoch, self.at.step * accumulate + i, self.processes.rank)
            images = images.to(tally.device, non_blocking=True)
            with self.gradients_summed(i == accumulate - 1):
                with torch.autocast(tally.device.type, self.dtype, enabled=self.dtype != torch.float32):
                    loss, totals = self.parallel(images, known)
                self.scaler.scale(loss / accumulate).backward()
            tally += torch.cat([totals, totals.new_tensor([len(images)])])
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.optimizer.clip or inf)
        *summed, gradient = torch.cat([self.processes.sum(tally), norm.double()[None]]).tolist()
        # with a scaler an infinite gradient is an everyday thing: it skips the step and scales less
        if not isfinite(summed[0]) or not (isfinite(gradient) or self.scaler.is_enabled()):
            raise NotFinite(f"the {'gradient' if isfinite(summed[0]) else 'loss'} is not finite")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.average.update_parameters(self.model)
        return summed

    def gradients_summed(self, now: bool) -> AbstractContextManager[None]:
        """Whether the processes exchange the gradients of this batch, or of all accumulated ones later."""
        if now or not isinstance(self.parallel, DistributedDataParallel):
            return nullcontext()
        return self.parallel.no_sync()

    def end_epoch(self) -> None:
        """Evaluate, note what was measured, stand at the beginning of the next epoch."""
        at, begin = self.at, time.perf_counter()
        heldout = self.evaluate()
        self.history.append(
            self.task.row.from_dict(
                {
                    "epoch": at.epoch + 1,
                    "step": at.steps,
                    "lr": self.optimizer.param_groups[0]["lr"],
                    "temperature": temperature(self.config.schedule, at.epoch),
                    **means(at.totals, self.task.totals),
                    **heldout,
                    "images_per_second": at.totals[-1] / at.epoch_seconds,
                    "seconds": at.seconds + time.perf_counter() - begin,
                }
            )
        )
        for files in self.processes.gather(self.splits.train.skipped | self.splits.heldout.skipped):
            self.skipped |= files
        self.at = Position(epoch=at.epoch + 1, steps=at.steps, seconds=self.history[-1].seconds)

    def evaluate(self) -> dict[str, Any]:
        """The average on what is held out, in float32: the task's columns of the history."""
        return self.task.evaluate(self.average.module, self.batch_size, self.processes)


def task_of(config: TrainingConfig, splits: Splits[Any] | None) -> Task:
    """On `splits`, or on the config's data. UsageError: as the task raises it."""
    if isinstance(config, DetectionConfig):
        return Detection(config, splits)
    assert isinstance(config, ClassificationConfig)
    return Classification(config, splits)


def reseed(seed: int, *place: int) -> None:
    """Seed torch's generators, the GPU's too, from a place in the run."""
    torch.manual_seed(int(np.random.SeedSequence([seed, *place]).generate_state(1, np.uint64)[0]))


def make_deterministic() -> None:
    """On a GPU: kernels that give the same result each time, where PyTorch has them (it warns where not)."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.use_deterministic_algorithms(True, warn_only=True)
