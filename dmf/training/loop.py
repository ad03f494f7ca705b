"""The training loop. All that a run is lies in `Trainer.state`; what is drawn at random follows from seed and step.

Nothing else is carried from step to step, so a run that goes on from a state, even in the middle of an epoch, ends with
the weights of one that was never interrupted: bit for bit on a CPU by the same number of processes.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from itertools import islice
from math import inf, isfinite
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.parallel import DistributedDataParallel

import dmf
from dmf.training.augment import TrainTransform, eval_transform
from dmf.training.config import TrainingConfig, differences
from dmf.training.data import Splits
from dmf.training.distributed import Processes, join_batch_norms
from dmf.training.metrics import EpochMetrics
from dmf.training.optimizer import adamw, averaged
from dmf.training.sampler import InOrder, MultiScaleBatches, loader
from dmf.training.schedule import learning_rate, temperature
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
    loss: float = 0.0  # sums over the epoch's pictures
    correct: float = 0.0
    images: float = 0.0


class Trainer:
    """One run of `config` on `splits` by these processes; `model` is trained, `average.module` is what is kept."""

    def __init__(self, config: TrainingConfig, splits: Splits, processes: Processes) -> None:
        """UsageError: the batch can't be shared among the processes, or there are too few pictures for one."""
        self.config, self.splits, self.processes = config, splits, processes
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
        network = config.model.network(len(splits.train.classes))
        self.model = dmf.DMF(network).to(device).train()
        if processes.world > 1:
            join_batch_norms(self.model, device)
        self.average = averaged(self.model, config.ema)
        self.optimizer = adamw(self.model, config.optimizer)
        self.dtype = DTYPES[config.run.mixed_precision] if device.type == "cuda" else torch.float32
        self.scaler = GradScaler(device.type, enabled=self.dtype == torch.float16)
        self.parallel = (
            DistributedDataParallel(self.model, device_ids=[device] if device.type == "cuda" else None)
            if processes.world > 1
            else self.model
        )
        self.transform = TrainTransform(config.augment)
        self.batches = MultiScaleBatches(
            len(splits.train),
            self.batch_size,
            network.image_size,
            sampler.sizes or (network.image_size,),
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
            "history": [asdict(row) for row in self.history],
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
        self.history = [EpochMetrics(**row) for row in state["history"]]
        self.skipped = state["skipped"]

    def run(
        self,
        checkpoint: Callable[[], None],
        after_step: Callable[[float, float, float, float], None],
        after_epoch: Callable[[EpochMetrics], None],
    ) -> None:
        """Train to the end.

        `checkpoint` is called at the end of each epoch and every `checkpoint_steps` steps, `after_step` with the epochs
        done and the epoch's loss, accuracy and images per second so far. Raises `NotFinite`, and the loader's errors.
        """
        while self.at.epoch < self.config.schedule.epochs:
            self.train_epoch(checkpoint, after_step)
            self.end_epoch()
            checkpoint()
            after_epoch(self.history[-1])

    def train_epoch(
        self, checkpoint: Callable[[], None], after_step: Callable[[float, float, float, float], None]
    ) -> None:
        """The rest of the epoch, from `at.step` on."""
        config, at, accumulate = self.config, self.at, self.config.sampler.accumulate
        self.batches.set_epoch(at.epoch)
        steps = len(self.batches) // accumulate  # the batches of an unfinished step are dropped
        if not steps:
            raise UsageError(f"an epoch has {len(self.batches)} batches, accumulate is {accumulate}; make it smaller")
        self.model.set_temperature(temperature(config.schedule, at.epoch))
        self.average.module.set_temperature(temperature(config.schedule, at.epoch))
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
            loss, correct, images = self.step(batches, learning_rate(config.schedule, config.optimizer.lr, done))
            at.step, at.steps = at.step + 1, at.steps + 1
            at.loss, at.correct, at.images = at.loss + loss, at.correct + correct, at.images + images
            now = time.perf_counter()
            at.epoch_seconds, at.seconds, begin = at.epoch_seconds + now - begin, at.seconds + now - begin, now
            after_step(done, at.loss / at.images, at.correct / at.images, at.images / at.epoch_seconds)
            if config.run.checkpoint_steps and at.steps % config.run.checkpoint_steps == 0 and at.step < steps:
                checkpoint()

    def step(self, batches: Iterator[tuple[Tensor, Tensor]], lr: float) -> tuple[float, float, float]:
        """One optimizer step -> loss and correct predictions, summed over all processes' pictures, and their number.

        Each accumulated batch counts the same, whatever its size. Raises `NotFinite` before the weights change.
        """
        config, accumulate = self.config, self.config.sampler.accumulate
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        tally = torch.zeros(3, dtype=torch.float64, device=self.processes.device)
        for i, (images, labels) in enumerate(islice(batches, accumulate)):
            # dropout and stochastic depth: the same at this place of the run, however it was reached
            reseed(config.run.seed, self.at.epoch, self.at.step * accumulate + i, self.processes.rank)
            images, labels = images.to(tally.device, non_blocking=True), labels.to(tally.device, non_blocking=True)
            with self.gradients_summed(i == accumulate - 1):
                with torch.autocast(tally.device.type, self.dtype, enabled=self.dtype != torch.float32):
                    logits = self.parallel(images)
                    loss = F.cross_entropy(logits, labels, label_smoothing=config.optimizer.label_smoothing)
                self.scaler.scale(loss / accumulate).backward()
            correct = (logits.argmax(1) == labels).sum()
            tally += torch.stack([loss.detach() * len(labels), correct, correct.new_tensor(len(labels))])
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.optimizer.clip or inf)
        total, correct_total, count, gradient = torch.cat([self.processes.sum(tally), norm.double()[None]]).tolist()
        # with a scaler an infinite gradient is an everyday thing: it skips the step and scales less
        if not isfinite(total) or not (isfinite(gradient) or self.scaler.is_enabled()):
            raise NotFinite(f"the {'gradient' if isfinite(total) else 'loss'} is not finite")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.average.update_parameters(self.model)
        return total, correct_total, count

    def gradients_summed(self, now: bool) -> AbstractContextManager[None]:
        """Whether the processes exchange the gradients of this batch, or of all accumulated ones later."""
        if now or not isinstance(self.parallel, DistributedDataParallel):
            return nullcontext()
        return self.parallel.no_sync()

    def end_epoch(self) -> None:
        """Evaluate, note what was measured, stand at the beginning of the next epoch."""
        at, begin = self.at, time.perf_counter()
        loss, correct, images = self.evaluate()
        self.history.append(
            EpochMetrics(
                epoch=at.epoch + 1,
                step=at.steps,
                lr=self.optimizer.param_groups[0]["lr"],
                temperature=temperature(self.config.schedule, at.epoch),
                train_loss=at.loss / at.images,
                train_accuracy=at.correct / at.images,
                heldout_loss=loss / images,
                heldout_accuracy=correct / images,
                heldout_correct=int(correct),
                heldout_images=int(images),
                images_per_second=at.images / at.epoch_seconds,
                seconds=at.seconds + time.perf_counter() - begin,
            )
        )
        for files in self.processes.gather(self.splits.train.skipped | self.splits.heldout.skipped):
            self.skipped |= files
        self.at = Position(epoch=at.epoch + 1, steps=at.steps, seconds=self.history[-1].seconds)

    @torch.no_grad()
    def evaluate(self) -> tuple[float, float, float]:
        """The average on what is held out, in float32: loss and correct predictions summed, number of pictures."""
        heldout, processes = self.splits.heldout, self.processes
        size = self.model.config.image_size
        batches = InOrder(len(heldout), self.batch_size, size, processes.rank, processes.world)
        tally = torch.zeros(3, dtype=torch.float64, device=processes.device)
        for images, labels in loader(heldout, eval_transform, batches, 0, self.config.data.workers, replace=False):
            images, labels = images.to(tally.device), labels.to(tally.device)
            logits = self.average.module(images)
            correct = (logits.argmax(1) == labels).sum()
            loss = F.cross_entropy(logits, labels, reduction="sum")
            tally += torch.stack([loss, correct, correct.new_tensor(len(labels))])
        loss_sum, correct_sum, count = processes.sum(tally).tolist()
        if not count:
            raise UsageError("no held-out picture could be read")
        return loss_sum, correct_sum, count


def reseed(seed: int, *place: int) -> None:
    """Seed torch's generators, the GPU's too, from a place in the run."""
    torch.manual_seed(int(np.random.SeedSequence([seed, *place]).generate_state(1, np.uint64)[0]))


def make_deterministic() -> None:
    """On a GPU: kernels that give the same result each time, where PyTorch has them (it warns where not)."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.use_deterministic_algorithms(True, warn_only=True)
