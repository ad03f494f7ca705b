"""What a run learns to do: the network, its data, its loss and its measure. The loop knows nothing else of them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

import dmf
from dmf.training.data import Splits
from dmf.training.distributed import Processes
from dmf.training.metrics import EpochMetrics


class Objective(nn.Module, ABC):
    """A network and its loss, as one module, so that DistributedDataParallel sees the whole of it."""

    @abstractmethod
    def forward(self, images: Tensor, known: Any) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) and what is known about them -> the loss, and the task's `totals`, summed over the images."""


class Task(ABC):
    """One task on one data set; `network` is untrained, `image_size` the side in px that batches are counted at."""

    totals: ClassVar[tuple[str, ...]]  # what the objective sums, the loss first; the number of images comes beside
    row: ClassVar[type[EpochMetrics]]
    title: str  # of the curves
    splits: Splits[Any]
    network: nn.Module
    image_size: int
    sizes: tuple[int, ...]
    train_transform: Any  # as `Examples.sample` calls it

    @abstractmethod
    def objective(self) -> Objective:
        """Of `network` itself, not a copy."""

    @abstractmethod
    def evaluate(self, network: nn.Module, batch_size: int, processes: Processes) -> dict[str, Any]:
        """What is held out, measured in float32: the fields of `row` that begin with "heldout".

        UsageError: none of it could be read.
        """

    @abstractmethod
    def summary(self, last: Any) -> dict[str, Any]:
        """Of the last epoch, what a run is judged by."""

    @abstractmethod
    def save(self, network: nn.Module, path: Path, metadata: Mapping[str, str]) -> None:
        """A checkpoint of the trained network. Raises `OSError` and safetensors' errors."""


def backbone(network: nn.Module) -> dmf.DMF:
    """The Dynamic Mobile-Former of a network, which may be all of it."""
    return next(module for module in network.modules() if isinstance(module, dmf.DMF))


def means(totals: Sequence[float], names: Sequence[str]) -> dict[str, float]:
    """Per image; the last of `totals` is the number of images."""
    return {name: total / totals[-1] for name, total in zip(names, totals[:-1], strict=True)}
