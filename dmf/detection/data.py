"""Pictures with annotated objects, on their way into a detector: resized, mirrored, normalised, padded to one batch."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Generator, Tensor

from dmf.detection.instances import Target
from dmf.training.augment import happens, normalize, to_tensor
from dmf.training.data import Examples


class Truth(NamedTuple):
    """All annotated objects of a picture, as the COCO metrics want them."""

    boxes: NDArray[np.float64]  # (N, 4) x1, y1, x2, y2 in px of the picture
    labels: NDArray[np.int64]  # (N,)
    areas: NDArray[np.float64]  # (N,) px, of the object, not of its box
    crowds: NDArray[np.bool_]  # (N,) groups: finding one is neither right nor wrong
    masks: list[dict[str, Any]] | None  # COCO's run-length code of each


class Annotated(NamedTuple):
    """What is known about one image of a batch."""

    target: Target  # in px of the image
    picture: int  # its index in the data set
    height: int  # of the image, px, without what a batch is padded with
    width: int
    scale_x: float  # px of the image per px of the picture
    scale_y: float


class DetectionExamples(Examples):
    """Pictures and the objects in them; every image of a batch is padded to a multiple of `stride` px."""

    stride = 32
    degenerate = 0  # annotated boxes without an area, which nothing can be learnt from

    @abstractmethod
    def example(self, index: int, generator: Generator) -> tuple[Image.Image, Target]:
        """An RGB picture and the objects to be learnt, in its px. Raises `UnreadableImage`."""

    @abstractmethod
    def truth(self, index: int) -> Truth:
        """Of the same picture, what its detections are measured against."""

    def sample(
        self, index: int, transform: Callable[..., Any], size: int, generator: Generator
    ) -> tuple[Tensor, Annotated]:
        """`transform(picture, target, generator)`; `size` is not looked at: the transform knows its sizes."""
        picture, target = self.example(index, generator)
        image, moved = transform(picture, target, generator)
        height, width = image.shape[1:]
        return image, Annotated(moved, index, height, width, width / picture.width, height / picture.height)

    def batch(self, samples: Sequence[tuple[Tensor, Any]]) -> tuple[Tensor, list[Annotated]]:
        """Images (B, 3, H, W), 0 (ImageNet's mean colour) right of and below each, masks padded likewise."""
        height, width = (
            -(-max(image.shape[axis] for image, _ in samples) // self.stride) * self.stride for axis in (1, 2)
        )
        return (
            torch.stack([padded(image, height, width) for image, _ in samples]),
            [known._replace(target=padded_masks(known.target, height, width)) for _, known in samples],
        )


class DetectionTransform:
    """Resize to a shorter side drawn from `shorter_sides`, mirror, normalise.

    The ratio of the sides is kept and the longer one is at most `longer_side` px; without `shorter_sides` pictures
    keep their size. For training and, with one size and no flip, for evaluation.
    """

    def __init__(self, shorter_sides: Sequence[int], longer_side: int, flip: float) -> None:
        self.shorter_sides, self.longer_side, self.flip = tuple(shorter_sides), longer_side, flip

    def __call__(self, picture: Image.Image, target: Target, generator: Generator) -> tuple[Tensor, Target]:
        """RGB -> (3, h, w), float32, normalised, and the target in its px; all chance comes from `generator`."""
        if self.shorter_sides:
            drawn = int(torch.randint(len(self.shorter_sides), (), generator=generator))
            picture, target = resized(picture, target, self.shorter_sides[drawn], self.longer_side)
        if happens(self.flip, generator):
            picture, target = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), mirrored(target, picture.width)
        return normalize(to_tensor(picture)), target


def resized(picture: Image.Image, target: Target, shorter: int, longer: int) -> tuple[Image.Image, Target]:
    """The largest size whose shorter side is at most `shorter` px and whose longer one at most `longer`."""
    scale = min(shorter / min(picture.size), longer / max(picture.size))
    width, height = (max(1, round(side * scale)) for side in picture.size)
    x, y = width / picture.width, height / picture.height
    masks = target.masks
    if masks is not None:  # each pixel is the one that its centre lies in
        rows = ((torch.arange(height) + 0.5) / y).long().clamp(max=picture.height - 1)
        columns = ((torch.arange(width) + 0.5) / x).long().clamp(max=picture.width - 1)
        masks = masks[:, rows][:, :, columns]
    boxes = target.boxes * torch.tensor([x, y, x, y], dtype=target.boxes.dtype)
    return picture.resize((width, height), Image.Resampling.BILINEAR), Target(boxes, target.labels, masks)


def mirrored(target: Target, width: int) -> Target:
    """Left and right swapped, in an image of `width` px."""
    x1, y1, x2, y2 = target.boxes.unbind(1)
    masks = None if target.masks is None else target.masks.flip(2)
    return Target(torch.stack([width - x2, y1, width - x1, y2], 1), target.labels, masks)


def padded(x: Tensor, height: int, width: int) -> Tensor:
    """(..., h, w) -> (..., height, width), 0 at the right and at the bottom"""
    return F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]))


def padded_masks(target: Target, height: int, width: int) -> Target:
    return target if target.masks is None else Target(target.boxes, target.labels, padded(target.masks, height, width))
