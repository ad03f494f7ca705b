"""The task of Tables 4 and 5: which objects are where in a picture, and, with Mask R-CNN, which pixels are theirs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import dmf
from dmf.checkpoint import CheckpointError
from dmf.detection import DETECTORS, Detections, Detector, MaskRCNNConfig, load_backbone, save_detector
from dmf.detection.checkpoint import build_detector
from dmf.detection.coco import coco
from dmf.detection.data import Annotated, DetectionExamples, DetectionTransform
from dmf.detection.digits import digit_scenes
from dmf.detection.metrics import Found, average_precision, found
from dmf.training.data import Splits
from dmf.training.detection_config import DetectionConfig
from dmf.training.distributed import Processes
from dmf.training.metrics import DetectionMetrics
from dmf.training.sampler import InOrder, loader
from dmf.training.task import Objective, Task
from runtime.errors import UsageError


class Detection(Task):
    """The sum of the detector's own losses; measured by COCO's average precision, of masks where it has them.

    A detector divides its losses by what one process sees of a batch. So a run on several processes, unlike a
    classifier's, is only like the run on one.
    """

    totals = ("train_loss",)
    row = DetectionMetrics
    network: Detector

    def __init__(self, config: DetectionConfig, splits: Splits[DetectionExamples] | None = None) -> None:
        """`splits` are those of `config.data` unless given. UsageError: unusable data or backbone weights."""
        self.config = config
        self.has_masks = isinstance(DETECTORS[config.model.variant], MaskRCNNConfig)
        self.splits: Splits[DetectionExamples] = splits or load(config)
        self.network = build_detector(config.model.network(len(self.splits.train.classes)))
        if config.model.backbone_weights is not None:
            begin_with(self.network, config.model.backbone_weights)
        # the sampler's sizes are not used: every batch has the same number of pictures
        self.image_size, self.sizes = 1, (1,)
        augment = config.augment
        self.train_transform = DetectionTransform(augment.shorter_sides, augment.longer_side, augment.flip)
        largest = sorted(augment.shorter_sides)[-1:]
        self.eval_transform = DetectionTransform(largest, augment.longer_side, 0.0)
        self.title = f"{config.model.variant}, {config.data.name}"

    def objective(self) -> Objective:
        return DetectionLoss(self.network)

    @torch.no_grad()
    def detections(self, network: nn.Module, batch_size: int, processes: Processes) -> dict[int, Found]:
        """What is found in this process' share of the held-out pictures, by their index."""
        assert isinstance(network, Detector)
        heldout = self.splits.heldout
        batches = InOrder(len(heldout), batch_size, self.image_size, processes.rank, processes.world)
        results = {}
        for images, known in loader(heldout, self.eval_transform, batches, 0, self.config.data.workers, replace=False):
            detected: list[Detections] = network.detect(images.to(processes.device))
            for one, about in zip(detected, known, strict=True):
                results[about.picture] = found(one, about)
        return results

    def evaluate(self, network: nn.Module, batch_size: int, processes: Processes) -> dict[str, Any]:
        results: dict[int, Found] = {}
        for part in processes.gather(self.detections(network, batch_size, processes)):
            results |= part
        if not results:
            raise UsageError("no held-out picture could be read")
        truths = {i: self.splits.heldout.truth(i) for i in sorted(results)}
        classes = len(self.splits.heldout.classes)
        boxes = average_precision(results, truths, classes)
        masks = average_precision(results, truths, classes, "segm") if self.has_masks else None
        return {
            **{f"heldout_{name}": value for name, value in boxes._asdict().items()},
            "heldout_mask_ap": masks.ap if masks else None,
            "heldout_mask_ap50": masks.ap50 if masks else None,
            "heldout_images": len(results),
        }

    def summary(self, last: DetectionMetrics) -> dict[str, Any]:
        measured = {name: value for name, value in vars(last).items() if name.startswith("heldout_")}
        return {
            **{name: None if value != value else value for name, value in measured.items()},  # JSON knows no NaN
            "degenerate_boxes": sum(part.degenerate for part in self.splits),
        }

    def save(self, network: nn.Module, path: Path, metadata: Mapping[str, str]) -> None:
        assert isinstance(network, Detector)
        save_detector(network, path, metadata)


class DetectionLoss(Objective):
    """The sum of a detector's losses."""

    def __init__(self, network: Detector) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, known: list[Annotated]) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) and what is in each; the sum over the images is that of a loss that is a mean over them."""
        losses = self.network.loss(images, [one.target.to(images.device) for one in known])
        loss = torch.stack(list(losses.values())).sum()
        return loss, loss.detach()[None] * len(images)


def load(config: DetectionConfig) -> Splits[Any]:
    """The data set of `config`. UsageError: as `digit_scenes` and `coco` raise it."""
    data, network = config.data, config.model.network(1)
    if data.name == "digit_scenes":
        return digit_scenes(
            network.image_size, data.train_scenes, data.heldout_scenes, data.heldout_share, data.split_seed
        )
    assert data.path is not None, "the config has seen to it"
    has_masks, skip = isinstance(network, MaskRCNNConfig), data.unreadable == "skip"
    return coco(Path(data.path), data.train, data.heldout, has_masks, skip)


def begin_with(detector: Detector, weights: str) -> None:
    """Load the backbone, from a path or from the package's checkpoint of a variant.

    UsageError: no such checkpoint, or not one of this backbone.
    """
    shipped = dmf.pretrained(weights) if weights in dmf.VARIANTS else None
    try:
        load_backbone(detector, shipped or weights)
    except CheckpointError as error:
        raise UsageError(f"[model] backbone_weights: {error}") from error
