"""One run in one folder: begun or resumed, its checkpoint kept up to date, its results written at the end."""

import json
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from dmf.training import metrics, state
from dmf.training.config import TrainingConfig
from dmf.training.display import Display
from dmf.training.distributed import Processes
from dmf.training.loop import NotFinite, Trainer
from dmf.training.metrics import EpochMetrics
from dmf.training.state import TrainingStopped
from runtime.errors import UsageError

STATE, MODEL = "state.pt", "model.safetensors"


@dataclass
class Folder:
    """The files of a run; `good` is the step of the checkpoint in it."""

    path: Path
    good: int = 0

    @property
    def state(self) -> Path:
        return self.path / STATE

    def last_good(self, advice: str) -> str:
        """For a message that ends the run."""
        if not self.state.is_file():
            return "there is no checkpoint yet"
        return f"the last good checkpoint is {self.state} (step {self.good}); {advice}"


def train(config: TrainingConfig, out: Path, processes: Processes, *, resume: bool, quiet: bool) -> dict[str, Any]:
    """Run `config` to its end in the folder `out`; returns what summary.json holds.

    Raises `UsageError`: the folder holds a run already, nothing or another run to resume, unusable data.
    `TrainingStopped`: the loss is not finite, or the disk is full.
    """
    folder = Folder(out)
    saved = state.load(folder.state) if resume else None
    if not resume and (used := [name for name in (STATE, MODEL) if (out / name).exists()]):
        raise UsageError(
            f"{out} holds a run already ({used[0]}); add --resume to go on with it, or choose another --out"
        )
    # joins the processes, so that none of them can have looked above for files after the first began to write
    trainer = Trainer(config, None, processes)
    if saved is not None:
        trainer.resume(saved)
        folder.good = trainer.at.steps
    if processes.first:
        out.mkdir(parents=True, exist_ok=True)
    with Display(config.schedule.epochs, quiet=quiet or not processes.first) as display:
        try:
            drive(trainer, folder, display, resumed=resume)
            if processes.first:
                return finish(trainer, out)
            return {}
        except NotFinite as error:
            raise TrainingStopped(
                f"{error} at step {trainer.at.steps + 1}, epoch {trainer.at.epoch + 1}; "
                + folder.last_good("begin a new run with a lower optimizer.lr or a clip")
            ) from error
        except (OSError, SafetensorError) as error:
            where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
            reason = (isinstance(error, OSError) and error.strerror) or str(error).partition("\n")[0]
            raise TrainingStopped(f"{where}{reason}; {folder.last_good('go on from it with --resume')}") from error


def drive(trainer: Trainer, folder: Folder, display: Display, *, resumed: bool) -> None:
    """The loop, with everything that is written and shown on the way; only the first process writes."""
    writes, board = trainer.processes.first, None

    def checkpoint() -> None:
        if writes:
            state.save(folder.state, trainer.state())
        folder.good = trainer.at.steps

    known = set(trainer.skipped)
    begin, begun_at = time.perf_counter(), trainer.at.epoch

    def after_epoch(row: EpochMetrics) -> None:
        if board is not None:
            metrics.write_csv(folder.path / "metrics.csv", trainer.task.row, trainer.history)
            board.add(row)
        for path in sorted(trainer.skipped.keys() - known):
            display.note(f"skipped ({len(trainer.skipped)} so far): {trainer.skipped[path]}")
        known.update(trainer.skipped)
        per_epoch = (time.perf_counter() - begin) / (row.epoch - begun_at)
        display.epoch(row, per_epoch * (display.epochs - row.epoch))

    try:
        if writes:
            state.write_whole(folder.path / "config.toml", trainer.config.to_toml().encode())
            if not resumed:
                checkpoint()  # so that there is always a last good one
            metrics.write_csv(folder.path / "metrics.csv", trainer.task.row, trainer.history)
            board = metrics.TensorBoard(folder.path / "tensorboard", trainer.history)
        display.begin(trainer.at.epoch)
        trainer.run(checkpoint, display.step, after_epoch)
    finally:
        if board is not None:
            board.close()


def finish(trainer: Trainer, out: Path) -> dict[str, Any]:
    """Write the curves, the averaged weights of the last step and the summary, which is returned.

    The weights are never chosen by what they reach on the held-out pictures, so that this stays an honest estimate.
    """
    last, config, task = trainer.history[-1], trainer.config, trainer.task
    summary = {
        **task.summary(last),
        "train_images": len(trainer.splits.train),
        "unreadable_images": len(trainer.skipped),
        "epochs": last.epoch,
        "steps": last.step,
        "seconds": last.seconds,
        "processes": trainer.processes.world,
        "threads": torch.get_num_threads(),
        "device": device_name(trainer.processes.device),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "config": config.to_dict(),
    }
    metrics.write_curves(out / "curves.png", trainer.history, task.title)
    metadata = {"training": json.dumps(summary), "classes": json.dumps(trainer.splits.train.classes)}
    task.save(trainer.average.module, out / MODEL, metadata)
    state.write_whole(out / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())
    return summary


def device_name(device: torch.device) -> str:
    """Of the GPU, or "cpu" and how many cores this process may use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores"
