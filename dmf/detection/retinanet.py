"""RetinaNet on DMF (Lin et al., 2017; the paper's Table 4): one stage, focal loss."""

from collections.abc import Sequence
from math import log

import torch
from torch import Tensor, nn

from dmf.detection.anchors import OCTAVE, RATIOS, anchors
from dmf.detection.assign import IGNORED, RETINANET, assign
from dmf.detection.boxes import clip, decode, encode
from dmf.detection.config import RetinaNetConfig
from dmf.detection.detector import Detector, flatten_head, select
from dmf.detection.fpn import FPN
from dmf.detection.instances import Detections, Target
from dmf.detection.losses import sigmoid_focal, smooth_l1

STRIDES = (8, 16, 32, 64, 128)
ANCHORS = len(OCTAVE) * len(RATIOS)  # at each place
PRIOR = 0.01  # what every class is thought to be at first, so that the many empty places don't swamp the rest


class RetinaNet(Detector):
    """Raises `ValueError` from its methods for images off the stride. Sizes are (B, 3, H, W); A counts all anchors."""

    config: RetinaNetConfig

    def __init__(self, config: RetinaNetConfig) -> None:
        super().__init__(config)
        widths = [config.backbone.block_channels[i] for i in config.backbone.feature_blocks]
        self.fpn = FPN(widths[1:], config.fpn_channels, extra="input")
        self.class_tower = _tower(config.fpn_channels, config.head_convs)
        self.box_tower = _tower(config.fpn_channels, config.head_convs)
        self.class_output = nn.Conv2d(config.fpn_channels, ANCHORS * config.num_classes, 3, padding=1)
        self.box_output = nn.Conv2d(config.fpn_channels, ANCHORS * 4, 3, padding=1)
        for part in (self.class_tower, self.box_tower, self.class_output, self.box_output):
            part.apply(_initialize)
        assert self.class_output.bias is not None
        nn.init.constant_(self.class_output.bias, -log((1 - PRIOR) / PRIOR))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> class logits (B, A, K), box deltas (B, A, 4), in the order of `anchors`"""
        levels = self.fpn(self.backbone(images)[1:])
        logits = [self.class_output(self.class_tower(x)) for x in levels]
        deltas = [self.box_output(self.box_tower(x)) for x in levels]
        return flatten_head(logits, self.config.num_classes), flatten_head(deltas, 4)

    def anchors(self, height: int, width: int) -> list[Tensor]:
        """Of each level, (A_level, 4) float64."""
        return anchors(height, width, STRIDES, self.config.anchor_scale, OCTAVE)

    def decode(self, logits: Tensor, deltas: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
        """The surest of each level, before suppression: of fixed size, so that it exports.

        (B, A, K), (B, A, 4) -> boxes (B, N, 4) within the image, scores (B, N), labels (B, N);
        N is the sum over the levels of min(`candidates`, A_level * K).
        """
        levels = self.anchors(height, width)
        counts = [len(level) for level in levels]
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        for level, logit, delta in zip(levels, logits.split(counts, 1), deltas.split(counts, 1), strict=True):
            places = logit.flatten(1)
            best, index = places.topk(min(self.config.candidates, places.shape[1]), 1)
            place, label = index // self.config.num_classes, index % self.config.num_classes
            chosen = delta.gather(1, place[..., None].expand(-1, -1, 4))
            found.append((decode(chosen, level.to(deltas)[place]), best.sigmoid(), label))
        boxes, scores, labels = (torch.cat(part, 1) for part in zip(*found, strict=True))
        return clip(boxes, height, width), scores, labels

    def loss(self, images: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Focal loss of the classes and L1 of the deltas, each divided by the number of anchors on objects."""
        self.check_targets(images, targets)
        logits, deltas = self(images)
        places = torch.cat(self.anchors(*images.shape[2:])).to(deltas)
        assigned = torch.stack([assign(places, t.boxes.to(places), RETINANET) for t in targets])  # (B, A)
        positive = assigned >= 0
        classes, goals = torch.zeros_like(logits), []
        for i, target in enumerate(targets):
            objects = assigned[i, positive[i]]
            classes[i, positive[i], target.labels[objects]] = 1
            goals.append(encode(target.boxes.to(places)[objects], places[positive[i]]))
        count = positive.sum().clamp(min=1)
        focal = sigmoid_focal(logits, classes) * (assigned != IGNORED)[..., None]
        return {
            "classes": focal.sum() / count,
            "boxes": smooth_l1(deltas[positive], torch.cat(goals)).sum() / count,
        }

    @torch.no_grad()
    def detect(self, images: Tensor) -> list[Detections]:
        found = []
        for boxes, scores, labels in zip(*self.decode(*self(images), *images.shape[2:]), strict=True):
            kept = select(self.config, boxes, scores, labels)
            found.append(Detections(boxes[kept], scores[kept], labels[kept]))
        return found


def _tower(channels: int, convs: int) -> nn.Sequential:
    layers = [layer for _ in range(convs) for layer in (nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU())]
    return nn.Sequential(*layers)


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        assert module.bias is not None
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)
