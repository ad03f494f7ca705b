"""Masks of objects: from an image's pixels into a box's grid, and back."""

import torch
from torch import Tensor

from dmf.detection.roi_align import roi_align

PASTED_AT_ONCE = 2**24  # pixels: bounds memory


def crop_masks(masks: Tensor, boxes: Tensor, objects: Tensor, size: int) -> Tensor:
    """What a mask head should say: (N, H, W) bool, boxes (R, 4), whose object (R,) -> (R, size, size) float, 0 or 1.

    A place is set where RoIAlign reads at least half of it set (Mask R-CNN's code; mmdetection's `crop_and_resize`).
    """
    level = torch.zeros_like(objects)
    return (roi_align([masks[:, None]], [1], boxes, objects, level, size)[:, 0] >= 0.5).to(boxes)


def paste_masks(probabilities: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """(N, size, size) of each box (N, 4) -> (N, height, width): bilinear, and 0 outside the box.

    Two products with interpolation weights: pixel centres are at 0.5, and so are the centres of the grid's places.
    """
    size = probabilities.shape[1]
    weight_y = _weights(boxes[:, 1], boxes[:, 3], height, size)
    weight_x = _weights(boxes[:, 0], boxes[:, 2], width, size)
    return weight_y @ probabilities @ weight_x.transpose(1, 2)


def binary_masks(probabilities: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """As `paste_masks`, set from one half on: (N, height, width) bool."""
    step = max(PASTED_AT_ONCE // (height * width), 1)
    pasted = [
        paste_masks(probabilities[i : i + step], boxes[i : i + step], height, width) >= 0.5
        for i in range(0, len(boxes), step)
    ]
    return torch.cat(pasted) if pasted else torch.zeros(0, height, width, dtype=torch.bool, device=boxes.device)


def _weights(start: Tensor, end: Tensor, length: int, size: int) -> Tensor:
    """(N,), (N,) -> (N, length, size): how much of each place of the grid each pixel of an axis takes."""
    pixels = torch.arange(length, device=start.device).to(start) + 0.5
    extent = (end - start).clamp(min=1e-6)[:, None]
    at = (pixels - start[:, None]) / extent * size - 0.5
    return (1 - (at[..., None] - torch.arange(size, device=start.device).to(start)).abs()).clamp(min=0)
