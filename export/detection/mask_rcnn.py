"""Mask R-CNN -> static graph for one image: the backbone folded as a classifier's is, then both stages to the end.

How many boxes are proposed and found depends on the data. Suppression and RoIAlign are ops of our own, which
`dmf.detection` computes and a converter translates into those of its format (`export.convert.onnx`).
"""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dmf.detection import MaskRCNN
from dmf.detection import boxes as reference_boxes
from dmf.detection import roi_align as reference_roi_align
from dmf.detection.boxes import area, clip, decode
from dmf.detection.mask_rcnn import BOX_BINS, BOX_SCALE, MASK_BINS, ROI_STRIDES, RPN_NMS_IOU
from dmf.detection.roi_align import level_of
from export.detection.pyramid import StaticFPN, check_size
from export.reparameterize import reparameterize_backbone
from export.static import LaidOut, StaticBackbone


@torch.library.custom_op("dmf::nms", mutates_args=())
def nms(boxes: Tensor, scores: Tensor, groups: Tensor, num_groups: int, threshold: float, most: int) -> Tensor:
    """`dmf.detection.boxes.nms` for groups 0 to num_groups - 1."""
    return reference_boxes.nms(boxes, scores, groups, threshold, most)


@nms.register_fake
def _(boxes: Tensor, scores: Tensor, groups: Tensor, num_groups: int, threshold: float, most: int) -> Tensor:
    return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)


@torch.library.custom_op("dmf::roi_align", mutates_args=())
def roi_align(features: Tensor, boxes: Tensor, stride: int, size: int) -> Tensor:
    """`dmf.detection.roi_align` on one level of one image: (1, C, H, W), (R, 4) px -> (R, C, size, size)"""
    zeros = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    return reference_roi_align.roi_align([features], [stride], boxes, zeros, zeros, size).contiguous()


@roi_align.register_fake
def _(features: Tensor, boxes: Tensor, stride: int, size: int) -> Tensor:
    return features.new_empty(boxes.shape[0], features.shape[1], size, size)


def regions(levels: Sequence[Tensor], boxes: Tensor, size: int) -> Tensor:
    """Each box (R, 4) read from the feature map (1, C, H_l, W_l) of its own level -> (R, C, size, size)"""
    maps = levels[: len(ROI_STRIDES)]
    own = level_of(boxes, len(maps))
    rows = [(own == level).nonzero()[:, 0] for level in range(len(maps))]
    read = [
        roi_align(features, boxes[row], stride, size)
        for features, stride, row in zip(maps, ROI_STRIDES, rows, strict=True)
    ]
    return torch.cat(read)[torch.cat(rows).argsort()]


class Found(NamedTuple):
    """N <= `max_detections` objects, the surest first, and the P <= `proposals` boxes that they were looked for in."""

    boxes: Tensor  # (N, 4) px, within the image
    scores: Tensor  # (N,), of 0 to 1
    labels: Tensor  # (N,) int64, from 0
    masks: Tensor  # (N, 28, 28), of 0 to 1: how likely each place of the box is the object's
    proposals: Tensor  # (P, 4) px, within the image, the surest first


class StaticMaskRCNN(LaidOut):
    """One image (1, 3, H, W) of fixed size -> `Found`, as `MaskRCNN.detect` has it but for the masks: not pasted."""

    anchors: Tensor

    def __init__(self, model: MaskRCNN, size: tuple[int, int]) -> None:
        super().__init__()
        self.backbone: StaticBackbone = reparameterize_backbone(model.backbone)
        self.fpn = StaticFPN(model.fpn)
        self.rpn, self.box_head, self.mask_head = model.rpn, model.box_head, model.mask_head
        anchors = model.anchors(*size)
        self.hold(anchors=torch.cat(anchors))
        self.anchor_counts = [len(level) for level in anchors]
        self.config, self.size = model.config, size

    def forward(self, images: Tensor) -> Found:
        levels = [self.layout.permute_to_nchw(x) for x in self.fpn(self.backbone(images))]
        proposals = self.propose(*self.rpn(levels))
        boxes, scores, labels = self.find(levels, proposals)
        logits = self.mask_head(regions(levels, boxes, MASK_BINS))
        masks = logits[torch.arange(boxes.shape[0], device=boxes.device), labels].sigmoid()
        return Found(boxes, scores, labels, masks, proposals)

    def propose(self, logits: Tensor, deltas: Tensor) -> Tensor:
        """(1, A), (1, A, 4) -> (P, 4)"""
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        parts = (each.split(self.anchor_counts) for each in (logits[0], deltas[0], self.anchors))
        for level, (logit, delta, anchor) in enumerate(zip(*parts, strict=True)):
            best, place = logit.topk(min(self.config.candidates, len(logit)))
            found.append((decode(delta[place], anchor[place]), best, torch.full_like(place, level)))
        boxes, scores, levels = (torch.cat(each) for each in zip(*found, strict=True))
        boxes = clip(boxes, *self.size)
        real = (area(boxes) > 0).nonzero()[:, 0]
        boxes, config = boxes[real], self.config
        return boxes[nms(boxes, scores[real], levels[real], len(found), RPN_NMS_IOU, config.proposals)]

    def find(self, levels: Sequence[Tensor], proposals: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(P, 4) -> boxes (N, 4), scores (N,), labels (N,)"""
        config, classes = self.config, self.config.num_classes
        logits, deltas = self.box_head(regions(levels, proposals, BOX_BINS))
        # with as many scores of 0, which are never sure enough, there always are as many as topk takes
        scores, index = F.pad(logits.softmax(1)[:, :-1].flatten(), (0, config.candidates)).topk(config.candidates)
        sure = (scores > config.score_threshold).nonzero()[:, 0]
        scores, index = scores[sure], index[sure]
        boxes = clip(decode(deltas.flatten(0, 1)[index], proposals[index // classes], BOX_SCALE), *self.size)
        labels = index % classes
        kept = nms(boxes, scores, labels, classes, config.nms_iou, config.max_detections)
        return boxes[kept], scores[kept], labels[kept]


@torch.no_grad()
def reparameterize_mask_rcnn(model: MaskRCNN, height: int, width: int) -> StaticMaskRCNN:
    """A new module that computes what `model` does in eval mode for an image of this size, in the model's dtype.

    `ValueError`: a side is no positive multiple of the model's stride.
    """
    check_size(model, height, width)
    graph = StaticMaskRCNN(copy.deepcopy(model).double(), (height, width))
    return graph.to(next(model.parameters()).dtype).eval()
