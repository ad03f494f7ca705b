"""What every detector is: a DMF without its classifier, and heads on a feature pyramid."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from dmf.config import DMFConfig
from dmf.detection.boxes import nms
from dmf.detection.config import DetectorConfig
from dmf.detection.instances import Detections, Target
from dmf.model import DMF

CLASSIFIER = ("end_mobile2former", "end_former", "end_conv", "end_bn", "head")  # parts of DMF


class Backbone(DMF):
    """A DMF without end modules and head, for dense prediction (section 3.6): its other entries keep their names.

    The blocks of the first `frozen_stages` stages don't learn, and stay in eval mode.
    """

    def __init__(self, config: DMFConfig, frozen_stages: int = 0) -> None:
        super().__init__(config)
        for name in CLASSIFIER:
            delattr(self, name)
        self._frozen_blocks = config.feature_blocks[frozen_stages - 1] + 1 if frozen_stages else 0
        self.blocks[: self._frozen_blocks].requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:  # type: ignore[override]
        """(B, 3, H, W) -> the last feature map of each stage, strides 4, 8, 16, 32"""
        return self.forward_features(images)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.blocks[: self._frozen_blocks].eval()
        return self


class Detector(nn.Module, ABC):
    """A detector for images of any size that `config.backbone.stride` divides, (B, 3, H, W), normalised."""

    config: DetectorConfig
    backbone: Backbone

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone, config.frozen_stages)

    @abstractmethod
    def loss(self, images: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """(B, 3, H, W) and their B targets -> scalars by name, whose sum is to be minimised.

        In training mode the backbone's kernel attentions normalise over the batch, so B must be at least 2. Raises
        `ValueError` for images off the stride, and for targets that are not these images'.
        """

    @abstractmethod
    def detect(self, images: Tensor) -> list[Detections]:
        """(B, 3, H, W) -> what is found in each, in eval mode. Raises `ValueError` for images off the stride."""

    def check_targets(self, images: Tensor, targets: Sequence[Target], masks: bool = False) -> None:
        """Raises `ValueError` where they don't belong to these images, or name a class that the detector hasn't."""
        if len(targets) != len(images):
            raise ValueError(f"{len(targets)} targets for {len(images)} images; each image needs one, maybe empty")
        size = tuple(images.shape[2:])
        for i, target in enumerate(targets):
            if len(target.labels) and (label := int(target.labels.max())) >= self.config.num_classes:
                raise ValueError(f"target {i} has label {label}; the detector has {self.config.num_classes} classes")
            if masks and target.masks is None:
                raise ValueError(f"target {i} has no masks; {self.config.architecture} learns from masks")
            if masks and target.masks is not None and tuple(target.masks.shape[1:]) != size:
                raise ValueError(f"target {i} has masks of {tuple(target.masks.shape[1:])} for an image of {size}")


def flatten_head(outputs: Sequence[Tensor], values: int) -> Tensor:
    """A head's output for each level, (B, anchors * values, H, W) -> (B, all anchors, values), in `anchors`' order."""
    return torch.cat([x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, values) for x in outputs], 1)


def select(config: DetectorConfig, boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
    """(N, 4), (N,), (N,) of one image -> indices of what `detect` returns: sure enough, suppressed class by class."""
    sure = (scores > config.score_threshold).nonzero()[:, 0]
    return sure[nms(boxes[sure], scores[sure], labels[sure], config.nms_iou, config.max_detections)]
