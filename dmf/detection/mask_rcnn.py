"""Mask R-CNN on DMF (He et al., 2017; the paper's Table 5): proposals, then a class, a box and a mask for each."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dmf.detection.anchors import RATIOS, anchors
from dmf.detection.assign import BOX_HEAD, RPN, assign, sample
from dmf.detection.boxes import area, clip, decode, encode, nms
from dmf.detection.config import MaskRCNNConfig
from dmf.detection.detector import Detector, flatten_head, select
from dmf.detection.fpn import FPN
from dmf.detection.instances import Detections, Target
from dmf.detection.losses import smooth_l1
from dmf.detection.masks import binary_masks, crop_masks
from dmf.detection.roi_align import level_of, roi_align

STRIDES = (4, 8, 16, 32, 64)
ROI_STRIDES = STRIDES[:-1]  # the pooled level is for proposals alone
BOX_BINS, MASK_BINS = 7, 14
BOX_SCALE = (0.1, 0.2)  # of the box head's deltas
# mmdetection's
RPN_NMS_IOU = 0.7
RPN_SAMPLES, RPN_POSITIVE = 256, 0.5
BOX_POSITIVE = 0.25


class RPNHead(nn.Module):
    """Region proposals (Faster R-CNN, section 3.1): objectness and deltas of each anchor."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness = nn.Conv2d(channels, len(RATIOS), 1)
        self.deltas = nn.Conv2d(channels, len(RATIOS) * 4, 1)
        for layer in (self.conv, self.objectness, self.deltas):
            _normal(layer, 0.01)

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Five maps (B, C, H_l, W_l) -> logits (B, A), deltas (B, A, 4)"""
        hidden = [F.relu(self.conv(x)) for x in levels]
        logits = flatten_head([self.objectness(x) for x in hidden], 1)[..., 0]
        return logits, flatten_head([self.deltas(x) for x in hidden], 4)


class BoxHead(nn.Module):
    """Two linear layers, then class logits (the last is the background) and a box for each class."""

    def __init__(self, channels: int, hidden: int, num_classes: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels * BOX_BINS**2, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.classes = nn.Linear(hidden, num_classes + 1)
        self.deltas = nn.Linear(hidden, num_classes * 4)
        for layer in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        _normal(self.classes, 0.01)
        _normal(self.deltas, 0.001)

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """(R, C, 7, 7) -> logits (R, K + 1), deltas (R, K, 4)"""
        x = F.relu(self.fc2(F.relu(self.fc1(regions.flatten(1)))))
        return self.classes(x), self.deltas(x).unflatten(1, (-1, 4))


class MaskHead(nn.Module):
    """Convolutions, one of them transposed, then a mask for each class."""

    def __init__(self, channels: int, convs: int, num_classes: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(convs))
        self.upsample = nn.ConvTranspose2d(channels, channels, 2, 2)
        self.masks = nn.Conv2d(channels, num_classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                assert module.bias is not None
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def forward(self, regions: Tensor) -> Tensor:
        """(R, C, 14, 14) -> logits (R, K, 28, 28)"""
        for conv in self.convs:
            regions = F.relu(conv(regions))
        return self.masks(F.relu(self.upsample(regions)))


class MaskRCNN(Detector):
    """Raises `ValueError` from its methods for images off the stride.

    The two stages are separate methods of fixed sizes, so that each exports: `forward` and `decode_proposals`, then
    `box_outputs`, `decode_boxes` and `mask_outputs`. Between them is NMS.
    """

    config: MaskRCNNConfig

    def __init__(self, config: MaskRCNNConfig) -> None:
        super().__init__(config)
        channels, classes = config.fpn_channels, config.num_classes
        widths = [config.backbone.block_channels[i] for i in config.backbone.feature_blocks]
        self.fpn = FPN(widths, channels, extra="pool")
        self.rpn = RPNHead(channels)
        self.box_head = BoxHead(channels, config.box_hidden, classes)
        self.mask_head = MaskHead(channels, config.mask_convs, classes)

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """(B, 3, H, W) -> five levels (B, C, H_l, W_l), objectness logits (B, A), deltas (B, A, 4)"""
        levels = self.fpn(self.backbone(images))
        return levels, *self.rpn(levels)

    def anchors(self, height: int, width: int) -> list[Tensor]:
        """Of each level, (A_level, 4) float64."""
        return anchors(height, width, STRIDES, self.config.anchor_scale)

    def decode_proposals(
        self, logits: Tensor, deltas: Tensor, height: int, width: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The surest of each level, before suppression: of fixed size, so that it exports.

        (B, A), (B, A, 4) -> boxes (B, N, 4) within the image, logits (B, N), levels (N,).
        """
        per_level = self.anchors(height, width)
        counts = [len(level) for level in per_level]
        found: list[tuple[Tensor, Tensor]] = []
        levels: list[int] = []
        for i, (places, logit, delta) in enumerate(
            zip(per_level, logits.split(counts, 1), deltas.split(counts, 1), strict=True)
        ):
            best, place = logit.topk(min(self.config.candidates, logit.shape[1]), 1)
            chosen = delta.gather(1, place[..., None].expand(-1, -1, 4))
            found.append((decode(chosen, places.to(deltas)[place]), best))
            levels += [i] * best.shape[1]
        boxes, scores = (torch.cat(part, 1) for part in zip(*found, strict=True))
        return clip(boxes, height, width), scores, torch.tensor(levels, device=boxes.device)

    def box_outputs(self, levels: Sequence[Tensor], boxes: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """Regions (R, 4) of images (R,) -> class logits (R, K + 1), deltas (R, K, 4)"""
        return self.box_head(self._regions(levels, boxes, images, BOX_BINS))

    def decode_boxes(
        self, logits: Tensor, deltas: Tensor, proposals: Tensor, height: int, width: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The surest of one image, before suppression: (R, K + 1), (R, K, 4), (R, 4) -> (N, 4), (N,), (N,);
        N is min(`candidates`, R * K).
        """
        scores = logits.softmax(1)[:, :-1].flatten()
        best, index = scores.topk(min(self.config.candidates, len(scores)))
        boxes = decode(deltas, proposals[:, None], BOX_SCALE).flatten(0, 1)[index]
        return clip(boxes, height, width), best, index % self.config.num_classes

    def mask_outputs(self, levels: Sequence[Tensor], boxes: Tensor, images: Tensor) -> Tensor:
        """Regions (R, 4) of images (R,) -> mask logits (R, K, 28, 28)"""
        return self.mask_head(self._regions(levels, boxes, images, MASK_BINS))

    def _regions(self, levels: Sequence[Tensor], boxes: Tensor, images: Tensor, size: int) -> Tensor:
        maps = levels[: len(ROI_STRIDES)]
        return roi_align(maps, ROI_STRIDES, boxes, images, level_of(boxes, len(maps)), size)

    @torch.no_grad()
    def propose(self, logits: Tensor, deltas: Tensor, height: int, width: int) -> list[Tensor]:
        """(B, A), (B, A, 4) -> of each image at most `proposals` boxes (N, 4), suppressed level by level."""
        boxes, scores, levels = self.decode_proposals(logits, deltas, height, width)
        proposals = []
        for box, score in zip(boxes, scores, strict=True):
            real = (area(box) > 0).nonzero()[:, 0]
            kept = nms(box[real], score[real], levels[real], RPN_NMS_IOU, self.config.proposals)
            proposals.append(box[real[kept]])
        return proposals

    def loss(self, images: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Of both stages: binary cross entropy and L1; cross entropy, L1, and binary cross entropy of the masks."""
        self.check_targets(images, targets, masks=True)
        height, width = images.shape[2:]
        levels, objectness, deltas = self(images)
        targets = [Target(t.boxes.to(deltas), t.labels, t.masks) for t in targets]
        first = self._proposal_loss(objectness, deltas, targets, torch.cat(self.anchors(height, width)).to(deltas))
        proposals = self.propose(objectness, deltas, height, width)
        return first | self._region_loss(levels, proposals, targets)

    def _proposal_loss(
        self, objectness: Tensor, deltas: Tensor, targets: Sequence[Target], places: Tensor
    ) -> dict[str, Tensor]:
        """Of a random choice of anchors; both terms are divided by its number."""
        logits, labels, found, goals = [], [], [], []
        for target, logit, delta in zip(targets, objectness, deltas, strict=True):
            assigned = assign(places, target.boxes, RPN)
            positive, negative = sample(assigned, RPN_SAMPLES, RPN_POSITIVE)
            chosen = logit[torch.cat([positive, negative])]
            logits.append(chosen)
            labels.append((torch.arange(len(chosen), device=chosen.device) < len(positive)).to(chosen))
            found.append(delta[positive])
            goals.append(encode(target.boxes[assigned[positive]], places[positive]))
        count = max(sum(len(x) for x in labels), 1)
        entropy = F.binary_cross_entropy_with_logits(torch.cat(logits), torch.cat(labels), reduction="sum")
        return {
            "proposal_objectness": entropy / count,
            "proposal_boxes": smooth_l1(torch.cat(found), torch.cat(goals)).sum() / count,
        }

    def _region_loss(
        self, levels: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        """Of a random choice of proposals and objects; the mask's term is of its positives alone."""
        regions, images, labels, goals, masks = [], [], [], [], []
        for i, (proposal, target) in enumerate(zip(proposals, targets, strict=True)):
            objects = target.boxes[area(target.boxes) > 0]  # proposals from the start, so that there are positives
            candidates = torch.cat([objects, proposal])
            assigned = assign(candidates, target.boxes, BOX_HEAD)
            positive, negative = sample(assigned, self.config.box_samples, BOX_POSITIVE)
            owner = assigned[positive]
            regions.append(candidates[torch.cat([positive, negative])])
            images.append(torch.full((len(regions[-1]),), i, device=candidates.device))
            label = images[-1].new_full((len(regions[-1]),), self.config.num_classes)
            label[: len(positive)] = target.labels[owner]
            labels.append(label)
            goals.append(encode(target.boxes[owner], candidates[positive], BOX_SCALE))
            assert target.masks is not None
            masks.append(crop_masks(target.masks, candidates[positive], owner, 2 * MASK_BINS))
        region, image, label = torch.cat(regions), torch.cat(images), torch.cat(labels)
        positive = (label < self.config.num_classes).nonzero()[:, 0]  # in the order of `goals` and `masks`
        logits, deltas = self.box_outputs(levels, region, image)
        mask_logits = self.mask_outputs(levels, region[positive], image[positive])
        rows, count = torch.arange(len(positive), device=label.device), max(len(label), 1)
        chosen_masks = mask_logits[rows, label[positive]]
        mask_loss = F.binary_cross_entropy_with_logits(chosen_masks, torch.cat(masks), reduction="sum")
        return {
            "classes": F.cross_entropy(logits, label, reduction="sum") / count,
            "boxes": smooth_l1(deltas[positive, label[positive]], torch.cat(goals)).sum() / count,
            "masks": mask_loss / max(chosen_masks.numel(), 1),
        }

    @torch.no_grad()
    def detect(self, images: Tensor) -> list[Detections]:
        height, width = images.shape[2:]
        levels, objectness, deltas = self(images)
        found = []
        for i, proposals in enumerate(self.propose(objectness, deltas, height, width)):
            own = torch.full((len(proposals),), i, device=images.device)
            outputs = self.box_outputs(levels, proposals, own)
            boxes, scores, labels = self.decode_boxes(*outputs, proposals, height, width)
            kept = select(self.config, boxes, scores, labels)
            boxes, labels = boxes[kept], labels[kept]
            logits = self.mask_outputs(levels, boxes, own.new_full((len(kept),), i))
            probabilities = logits[torch.arange(len(kept), device=images.device), labels].sigmoid()
            found.append(Detections(boxes, scores[kept], labels, binary_masks(probabilities, boxes, height, width)))
        return found


def _normal(layer: nn.Conv2d | nn.Linear, std: float) -> None:
    assert layer.bias is not None
    nn.init.normal_(layer.weight, std=std)
    nn.init.zeros_(layer.bias)
