"""Anchors: the boxes that a level of the pyramid starts from, the same at each of its places.

As mmdetection lays them: centred on the place's corner (x * stride, y * stride), ratios are height / width, and an
anchor's area depends on its size alone.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

RATIOS = (0.5, 1.0, 2.0)
OCTAVE = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))  # RetinaNet's three sizes a level


def level_sizes(height: int, width: int, strides: Sequence[int]) -> list[tuple[int, int]]:
    """Height and width of each level's feature map; a level beyond the backbone's is rounded up, as its layers do."""
    return [(-(-height // stride), -(-width // stride)) for stride in strides]


def base_anchors(stride: int, scale: float, sizes: Sequence[float], ratios: Sequence[float] = RATIOS) -> Tensor:
    """A place's anchors around (0, 0): (ratios * sizes, 4) float64, all sizes of the first ratio first."""
    ratio = torch.tensor(ratios, dtype=torch.float64)[:, None]
    side = stride * scale * torch.tensor(sizes, dtype=torch.float64)[None]
    half_width, half_height = (side / ratio.sqrt() / 2).flatten(), (side * ratio.sqrt() / 2).flatten()
    return torch.stack([-half_width, -half_height, half_width, half_height], 1)


def anchors(
    height: int, width: int, strides: Sequence[int], scale: float, sizes: Sequence[float] = (1.0,)
) -> list[Tensor]:
    """Of each level for an image of this height and width: (places * ratios * sizes, 4) float64, row by row of places.

    `scale` is the side of the smallest square anchor in strides; `sizes` multiply it.
    """
    levels = []
    for stride, (rows, columns) in zip(strides, level_sizes(height, width, strides), strict=True):
        y, x = torch.meshgrid(
            torch.arange(rows, dtype=torch.float64) * stride,
            torch.arange(columns, dtype=torch.float64) * stride,
            indexing="ij",
        )
        centres = torch.stack([x, y, x, y], -1).reshape(-1, 1, 4)
        levels.append((centres + base_anchors(stride, scale, sizes)).reshape(-1, 4))
    return levels
