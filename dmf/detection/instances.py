"""What is in a picture: annotated objects (`Target`) and found ones (`Detections`), boxes as x1, y1, x2, y2 in pixels.

A pixel's square is [x, x + 1) x [y, y + 1): a box around one pixel is 1 wide, and the whole picture is (0, 0, W, H).
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Target:
    """The objects of one image; N may be 0, and a box may have no area (it is then nobody's target).

    Raises `ValueError` for another shape or type, for a box that is not finite, and for one whose corners are swapped.
    """

    boxes: Tensor  # (N, 4) float32, px
    labels: Tensor  # (N,) int64, from 0
    masks: Tensor | None = None  # (N, H, W) bool

    def __post_init__(self) -> None:
        if self.boxes.ndim != 2 or self.boxes.shape[1] != 4 or not self.boxes.is_floating_point():
            raise ValueError(f"boxes are {_describe(self.boxes)}; they must be (N, 4) of a floating type")
        if self.labels.shape != self.boxes.shape[:1] or self.labels.dtype != torch.int64:
            raise ValueError(f"labels are {_describe(self.labels)}; they must be ({len(self.boxes)},) of int64")
        if self.labels.numel() and self.labels.min() < 0:
            raise ValueError(f"a label is {int(self.labels.min())}; labels count from 0")
        wrong = ~self.boxes.isfinite().all(1) | (self.boxes[:, 2:] < self.boxes[:, :2]).any(1)
        if wrong.any():
            i = int(wrong.nonzero()[0])
            raise ValueError(f"box {i} is {self.boxes[i].tolist()}; it must be finite, with x1 <= x2 and y1 <= y2")
        masks = self.masks
        if masks is not None and (masks.ndim != 3 or len(masks) != len(self.boxes) or masks.dtype != torch.bool):
            raise ValueError(f"masks are {_describe(masks)}; they must be ({len(self.boxes)}, H, W) of bool")

    def to(self, device: torch.device | str) -> "Target":
        """The same on another device."""
        masks = None if self.masks is None else self.masks.to(device)
        return Target(self.boxes.to(device), self.labels.to(device), masks)


@dataclass(frozen=True, eq=False)
class Detections:
    """The objects found in one image, the surest first; N is at most the config's `max_detections`."""

    boxes: Tensor  # (N, 4), px, within the image
    scores: Tensor  # (N,), of 0 to 1
    labels: Tensor  # (N,) int64, from 0
    masks: Tensor | None = None  # (N, H, W) bool, of a detector that has masks

    def __len__(self) -> int:
        return len(self.boxes)


def _describe(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"
