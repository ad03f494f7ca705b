"""Boxes as x1, y1, x2, y2 in pixels: overlap, regression targets, clipping, and greedy non-maximum suppression."""

from math import log

import numpy as np
import torch
from torch import Tensor

LARGEST_LOG_RATIO = log(
    1000 / 16
)  # of a box's side to its anchor's, so that no exponential overflows (Fast R-CNN's code)
BLOCK = 256  # boxes that are compared one by one; the rest is compared with what stays of them


def area(boxes: Tensor) -> Tensor:
    """(..., 4) -> (...)"""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union: (N, 4), (M, 4) -> (N, M); 0 where neither box has an area."""
    x1, y1, x2, y2 = a[:, None].unbind(2)  # (N, 1) each
    u1, v1, u2, v2 = b[None].unbind(2)  # (1, M) each
    width = (torch.minimum(x2, u2) - torch.maximum(x1, u1)).clamp(min=0)
    height = (torch.minimum(y2, v2) - torch.maximum(y1, v1)).clamp(min=0)
    intersection = width * height
    union = area(a)[:, None] + area(b)[None] - intersection
    return intersection / union.clamp(min=torch.finfo(union.dtype).tiny)


def encode(boxes: Tensor, anchors: Tensor, scale: tuple[float, float] = (1, 1)) -> Tensor:
    """What moves each anchor onto its box (R-CNN, appendix C): (N, 4), (N, 4) -> dx, dy, dw, dh, (N, 4).

    `scale` divides the shifts and the log ratios (mmdetection's target_stds). Both need an area.
    """
    box_centre, box_size = _centre_and_size(boxes)
    centre, size = _centre_and_size(anchors)
    return torch.cat([(box_centre - centre) / size / scale[0], (box_size / size).log() / scale[1]], -1)


def decode(deltas: Tensor, anchors: Tensor, scale: tuple[float, float] = (1, 1)) -> Tensor:
    """The inverse of `encode`, whose log ratios are limited to those of 62.5: (..., 4), (..., 4) -> (..., 4)."""
    centre, size = _centre_and_size(anchors)
    centre = centre + deltas[..., :2] * scale[0] * size
    half = (deltas[..., 2:] * scale[1]).clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp() * size / 2
    return torch.cat([centre - half, centre + half], -1)


def clip(boxes: Tensor, height: int, width: int) -> Tensor:
    """(..., 4), limited to the image."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack([x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)], -1)


def nms(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float, most: int | None = None) -> Tensor:
    """Greedy suppression: a box goes if one of its own group that stays has a higher score and overlaps it more.

    (N, 4), (N,), (N,) integers (a class, or a level of the pyramid) -> indices of those that stay, by falling score,
    the first `most` of them. Of equal scores the first counts as higher. Exact: groups are told apart by comparison,
    not by shifting boxes.
    """

    def covers(a: Tensor, b: Tensor) -> Tensor:
        return (iou(boxes[a], boxes[b]) > threshold) & (groups[a, None] == groups[b])

    left, kept, count = scores.argsort(descending=True, stable=True), [scores.new_zeros(0, dtype=torch.int64)], 0
    while len(left) and (most is None or count < most):
        block, left = left[:BLOCK], left[BLOCK:]
        overlaps, stays = covers(block, block).cpu().numpy(), np.ones(len(block), dtype=bool)
        for i in range(len(block)):
            if stays[i]:
                stays[i + 1 :] &= ~overlaps[i, i + 1 :]
        block = block[torch.from_numpy(stays).to(block.device)]
        left = left[~covers(block, left).any(0)]
        kept.append(block)
        count += len(block)
    return torch.cat(kept)[:most]


def _centre_and_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """(..., 4) -> (..., 2), (..., 2)"""
    corner1, corner2 = boxes[..., :2], boxes[..., 2:]
    return (corner1 + corner2) / 2, corner2 - corner1
