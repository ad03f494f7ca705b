"""What a run measured, epoch by epoch: as CSV, for TensorBoard, as curves.

All three are made from the history that the run's checkpoint holds, so a resumed run repeats and loses no row.
"""

import csv
import io
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from dmf.training.state import write_whole
from runtime.extras import require


@dataclass(frozen=True)
class EpochMetrics:
    """Of one epoch, counted from 1; what is held out is evaluated with the averaged weights."""

    epoch: int
    step: int  # optimizer steps since the start
    lr: float  # of the epoch's last step
    temperature: float
    train_loss: float  # with label smoothing, of augmented pictures, while the weights change
    train_accuracy: float  # 0..1, as the other
    heldout_loss: float  # cross-entropy without label smoothing
    heldout_accuracy: float
    heldout_correct: int
    heldout_images: int
    images_per_second: float  # trained on, by all processes together
    seconds: float  # since the start, without interruptions


CURVES = {  # panel: the columns in it
    "loss": ("train_loss", "heldout_loss"),
    "accuracy": ("train_accuracy", "heldout_accuracy"),
    "learning rate": ("lr",),
    "temperature": ("temperature",),
}


def write_csv(path: Path, history: Sequence[EpochMetrics]) -> None:
    """One row per epoch, its columns named in the first line."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(EpochMetrics)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in history)
    write_whole(path, text.getvalue().encode())


def write_curves(path: Path, history: Sequence[EpochMetrics], title: str) -> None:
    """A PNG of 1200 x 800 px. Raises `UsageError` without matplotlib."""
    figure = require("matplotlib.figure", extra="train").Figure(figsize=(12, 8), dpi=100, layout="constrained")
    figure.suptitle(title)
    for axes, (name, columns) in zip(figure.subplots(2, 2).flat, CURVES.items(), strict=True):
        for column in columns:
            marker = "." if len(history) == 1 else ""
            axes.plot([m.epoch for m in history], [getattr(m, column) for m in history], marker, label=column)
        axes.set(xlabel="epoch", ylabel=name)
        axes.grid(alpha=0.3)
        axes.legend()
    image = io.BytesIO()
    figure.savefig(image, format="png")
    write_whole(path, image.getvalue())


class TensorBoard:
    """One event file in a folder, begun anew with the history at every start, then grown by a row per epoch.

    Written by TensorBoard's own record writer: `torch.utils.tensorboard` would import TensorFlow where it is installed.
    """

    def __init__(self, folder: Path, history: Sequence[EpochMetrics]) -> None:
        self.events = require("tensorboard.compat.proto.event_pb2", extra="train")
        self.summaries = require("tensorboard.compat.proto.summary_pb2", extra="train")
        folder.mkdir(exist_ok=True)
        self.file = (folder / "events.out.tfevents.0.dmf-train").open("wb")
        self.writer = require("tensorboard.summary.writer.record_writer", extra="train").RecordWriter(self.file)
        self.writer.write(self.events.Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
        for row in history:
            self.add(row)

    def add(self, row: EpochMetrics) -> None:
        """Every column as a scalar over the epochs."""
        values = [
            self.summaries.Summary.Value(tag=tag, simple_value=value)
            for tag, value in asdict(row).items()
            if tag != "epoch"
        ]
        summary = self.summaries.Summary(value=values)
        self.writer.write(self.events.Event(wall_time=time.time(), step=row.epoch, summary=summary).SerializeToString())
        self.file.flush()

    def close(self) -> None:
        self.file.close()
