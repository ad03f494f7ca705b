"""What a run measured, epoch by epoch: as CSV, for TensorBoard, as curves.

All three are made from the history that the run's checkpoint holds, so a resumed run repeats and loses no row.
"""

import csv
import io
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from dmf.training.state import write_whole
from runtime.extras import require


class EpochMetrics(ABC):
    """Of one epoch, counted from 1; what is held out is evaluated with the averaged weights.

    A dataclass of each task, whose fields are the columns.
    """

    curves: ClassVar[dict[str, tuple[str, ...]]]  # panel: the columns in it
    epoch: int
    step: int  # optimizer steps since the start
    lr: float  # of the epoch's last step
    temperature: float
    train_loss: float  # of augmented pictures, while the weights change
    images_per_second: float  # trained on, by all processes together
    seconds: float  # since the start, without interruptions

    @staticmethod
    @abstractmethod
    def progress(means: Mapping[str, float]) -> str:
        """The training so far in an epoch, in words."""

    @property
    @abstractmethod
    def text(self) -> str:
        """What was learnt, in words."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Any:
        """The inverse of `to_dict`."""
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Column -> number; None where there is nothing to measure."""
        return {name: getattr(self, name) for name in columns(type(self))}


@dataclass(frozen=True)
class ClassificationMetrics(EpochMetrics):
    """Of a classifier."""

    curves = {
        "loss": ("train_loss", "heldout_loss"),
        "accuracy": ("train_accuracy", "heldout_accuracy"),
        "learning rate": ("lr",),
        "temperature": ("temperature",),
    }
    epoch: int
    step: int
    lr: float
    temperature: float
    train_loss: float  # with label smoothing
    train_accuracy: float  # 0..1, as the other
    heldout_loss: float  # cross-entropy without label smoothing
    heldout_accuracy: float
    heldout_correct: int
    heldout_images: int
    images_per_second: float
    seconds: float

    @staticmethod
    def progress(means: Mapping[str, float]) -> str:
        return f"loss {means['train_loss']:.3f}, train {means['train_accuracy']:.1%}"

    @property
    def text(self) -> str:
        return f"{self.progress(vars(self))}, held out {self.heldout_accuracy:.2%}"


@dataclass(frozen=True)
class DetectionMetrics(EpochMetrics):
    """Of a detector: COCO's average precision (dmf.detection.metrics), 0..1, NaN without objects of that size."""

    curves = {
        "loss": ("train_loss",),
        "average precision": ("heldout_ap", "heldout_ap50", "heldout_ap75", "heldout_mask_ap"),
        "learning rate": ("lr",),
        "temperature": ("temperature",),
    }
    epoch: int
    step: int
    lr: float
    temperature: float
    train_loss: float
    heldout_ap: float
    heldout_ap50: float
    heldout_ap75: float
    heldout_small: float
    heldout_medium: float
    heldout_large: float
    heldout_mask_ap: float | None  # None of a detector without masks
    heldout_mask_ap50: float | None
    heldout_images: int
    images_per_second: float
    seconds: float

    @staticmethod
    def progress(means: Mapping[str, float]) -> str:
        return f"loss {means['train_loss']:.3f}"

    @property
    def text(self) -> str:
        masks = "" if self.heldout_mask_ap is None else f", of masks {self.heldout_mask_ap:.3f}"
        return f"{self.progress(vars(self))}, held out AP {self.heldout_ap:.3f}, AP50 {self.heldout_ap50:.3f}{masks}"


def columns(row: type[EpochMetrics]) -> list[str]:
    return [f.name for f in fields(row)]  # type: ignore[arg-type]


def write_csv(path: Path, row: type[EpochMetrics], history: Sequence[EpochMetrics]) -> None:
    """One row per epoch, its columns named in the first line."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns(row), lineterminator="\n")
    writer.writeheader()
    writer.writerows(epoch.to_dict() for epoch in history)
    write_whole(path, text.getvalue().encode())


def write_curves(path: Path, history: Sequence[EpochMetrics], title: str) -> None:
    """A PNG of 1200 x 800 px. Raises `UsageError` without matplotlib."""
    figure = require("matplotlib.figure", extra="train").Figure(figsize=(12, 8), dpi=100, layout="constrained")
    figure.suptitle(title)
    for axes, (name, shown) in zip(figure.subplots(2, 2).flat, history[0].curves.items(), strict=True):
        for column in shown:
            marker = "." if len(history) == 1 else ""
            values = [getattr(m, column) for m in history]
            if None not in values:
                axes.plot([m.epoch for m in history], values, marker, label=column)
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
        """Every column that is a number as a scalar over the epochs."""
        values = [
            self.summaries.Summary.Value(tag=tag, simple_value=value)
            for tag, value in row.to_dict().items()
            if tag != "epoch" and value is not None
        ]
        summary = self.summaries.Summary(value=values)
        self.writer.write(self.events.Event(wall_time=time.time(), step=row.epoch, summary=summary).SerializeToString())
        self.file.flush()

    def close(self) -> None:
        self.file.close()
