"""The task of Table 1 to 3: which class a picture is of."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dmf
from dmf.training.augment import TrainTransform, eval_transform
from dmf.training.config import ClassificationConfig
from dmf.training.data import Images, Splits, load
from dmf.training.distributed import Processes
from dmf.training.metrics import ClassificationMetrics
from dmf.training.sampler import InOrder, loader
from dmf.training.task import Objective, Task
from runtime.errors import UsageError


class Classification(Task):
    """Cross-entropy with label smoothing; measured by the share of correct predictions."""

    totals = ("train_loss", "train_accuracy")
    row = ClassificationMetrics
    network: dmf.DMF

    def __init__(self, config: ClassificationConfig, splits: Splits[Images] | None = None) -> None:
        """`splits` are those of `config.data` unless given. UsageError: unusable data."""
        self.config = config
        self.splits: Splits[Images] = splits or load(config.data)
        network = config.model.network(len(self.splits.train.classes))
        self.network = dmf.DMF(network)
        self.image_size, self.sizes = network.image_size, config.sampler.sizes or (network.image_size,)
        self.train_transform = TrainTransform(config.augment)
        self.title = f"{config.model.variant}, {config.data.name}"

    def objective(self) -> Objective:
        return CrossEntropy(self.network, self.config.optimizer.label_smoothing)

    @torch.no_grad()
    def evaluate(self, network: nn.Module, batch_size: int, processes: Processes) -> dict[str, Any]:
        heldout = self.splits.heldout
        batches = InOrder(len(heldout), batch_size, self.image_size, processes.rank, processes.world)
        tally = torch.zeros(3, dtype=torch.float64, device=processes.device)
        for images, labels in loader(heldout, eval_transform, batches, 0, self.config.data.workers, replace=False):
            images, labels = images.to(tally.device), labels.to(tally.device)
            logits = network(images)
            correct = (logits.argmax(1) == labels).sum()
            loss = F.cross_entropy(logits, labels, reduction="sum")
            tally += torch.stack([loss, correct, correct.new_tensor(len(labels))])
        loss_sum, correct_sum, count = processes.sum(tally).tolist()
        if not count:
            raise UsageError("no held-out picture could be read")
        return {
            "heldout_loss": loss_sum / count,
            "heldout_accuracy": correct_sum / count,
            "heldout_correct": int(correct_sum),
            "heldout_images": int(count),
        }

    def summary(self, last: ClassificationMetrics) -> dict[str, Any]:
        return {
            "heldout_accuracy": last.heldout_accuracy,
            "heldout_correct": last.heldout_correct,
            "heldout_images": last.heldout_images,
        }

    def save(self, network: nn.Module, path: Path, metadata: Mapping[str, str]) -> None:
        assert isinstance(network, dmf.DMF)
        dmf.save_checkpoint(network, path, metadata)


class CrossEntropy(Objective):
    """The classifier's loss, and how often it is right."""

    def __init__(self, network: dmf.DMF, label_smoothing: float) -> None:
        super().__init__()
        self.network, self.label_smoothing = network, label_smoothing

    def forward(self, images: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, s, s), labels (B,) int64"""
        labels = known.to(images.device, non_blocking=True)
        logits = self.network(images)
        loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        correct = (logits.argmax(1) == labels).sum()
        return loss, torch.stack([loss.detach() * len(labels), correct])
