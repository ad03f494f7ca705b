"""Detection written out: Python loops over single boxes, places and readings. Imports nothing of dmf."""

from collections.abc import Callable, Sequence
from math import exp, floor, log, log2, sqrt

import torch
from torch import Tensor

Box = Sequence[float]


def iou(a: Box, b: Box) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def encode(box: Box, anchor: Box, scale: Sequence[float] = (1, 1)) -> list[float]:
    width, height = anchor[2] - anchor[0], anchor[3] - anchor[1]
    return [
        ((box[0] + box[2]) - (anchor[0] + anchor[2])) / 2 / width / scale[0],
        ((box[1] + box[3]) - (anchor[1] + anchor[3])) / 2 / height / scale[0],
        log((box[2] - box[0]) / width) / scale[1],
        log((box[3] - box[1]) / height) / scale[1],
    ]


def decode(delta: Box, anchor: Box, scale: Sequence[float] = (1, 1)) -> list[float]:
    width, height = anchor[2] - anchor[0], anchor[3] - anchor[1]
    x = (anchor[0] + anchor[2]) / 2 + delta[0] * scale[0] * width
    y = (anchor[1] + anchor[3]) / 2 + delta[1] * scale[0] * height
    new_width = width * min(max(exp(delta[2] * scale[1]), 16 / 1000), 1000 / 16)
    new_height = height * min(max(exp(delta[3] * scale[1]), 16 / 1000), 1000 / 16)
    return [x - new_width / 2, y - new_height / 2, x + new_width / 2, y + new_height / 2]


def nms(boxes: Sequence[Box], scores: Sequence[float], groups: Sequence[int], threshold: float) -> list[int]:
    """Takes the best that is left, throws away what it covers, and so on."""
    left = sorted(range(len(boxes)), key=lambda i: (-scores[i], i))
    kept = []
    while left:
        best = left.pop(0)
        kept.append(best)
        left = [i for i in left if groups[i] != groups[best] or iou(boxes[i], boxes[best]) <= threshold]
    return kept


def anchors(height: int, width: int, stride: int, scale: float, sizes: Sequence[float]) -> list[list[float]]:
    found = []
    for y in range(0, height, stride):
        for x in range(0, width, stride):
            for ratio in (0.5, 1.0, 2.0):
                for size in sizes:
                    w, h = stride * scale * size / sqrt(ratio), stride * scale * size * sqrt(ratio)
                    found.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
    return found


def assign(
    candidates: Sequence[Box], boxes: Sequence[Box], positive: float, negative: float, forced: float | None
) -> list[int]:
    """-1 for nothing, -2 for ignored."""
    found = []
    for candidate in candidates:
        overlaps = [iou(candidate, box) for box in boxes]
        best = max(overlaps, default=0.0)
        found.append(overlaps.index(best) if best >= positive else -1 if best < negative else -2)
    if forced is not None:
        for number, box in enumerate(boxes):
            overlaps = [iou(candidate, box) for candidate in candidates]
            best = max(overlaps, default=0.0)
            if best > 0 and best >= forced:
                for i, overlap in enumerate(overlaps):
                    if overlap == best:
                        found[i] = number
    return found


def reading(feature: Tensor, y: float, x: float) -> Tensor:
    """Bilinear, of (C, H, W) at places counted from 0: RoIAlign's rules at the border."""
    height, width = feature.shape[1:]
    if y < -1 or y > height or x < -1 or x > width:
        return torch.zeros_like(feature[:, 0, 0])
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    y0, x0 = floor(y), floor(x)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    fy, fx = y - y0, x - x0
    top = feature[:, y0, x0] * (1 - fx) + feature[:, y0, x1] * fx
    bottom = feature[:, y1, x0] * (1 - fx) + feature[:, y1, x1] * fx
    return top * (1 - fy) + bottom * fy


def roi_align(feature: Tensor, stride: int, box: Box, size: int, samples: int, half: float = 0.5) -> Tensor:
    """(C, H, W) -> (C, size, size); `half` is 0 for the unaligned form."""
    x1, y1, x2, y2 = (v / stride - half for v in box)
    out = feature.new_zeros(feature.shape[0], size, size)
    for i in range(size):
        for j in range(size):
            for a in range(samples):
                for b in range(samples):
                    y = y1 + (y2 - y1) / size * (i + (a + 0.5) / samples)
                    x = x1 + (x2 - x1) / size * (j + (b + 0.5) / samples)
                    out[:, i, j] += reading(feature, y, x) / samples**2
    return out


def level(box: Box) -> int:
    """FPN, equation 1, with k0 = 4 and four levels from 2 on."""
    k = floor(4 + log2(sqrt((box[2] - box[0]) * (box[3] - box[1])) / 224 + 1e-9))
    return min(max(k, 2), 5) - 2


def paste(mask: Tensor, box: Box, height: int, width: int) -> Tensor:
    """(S, S) -> (height, width): every pixel's centre looked up in the box's grid, 0 beyond the grid's centres."""
    size = mask.shape[0]
    out = mask.new_zeros(height, width)

    def value(i: int, j: int) -> float:
        return float(mask[i, j]) if 0 <= i < size and 0 <= j < size else 0.0

    for row in range(height):
        for column in range(width):
            y = (row + 0.5 - box[1]) / (box[3] - box[1]) * size - 0.5
            x = (column + 0.5 - box[0]) / (box[2] - box[0]) * size - 0.5
            i, j = floor(y), floor(x)
            out[row, column] = (value(i, j) * (1 - (x - j)) + value(i, j + 1) * (x - j)) * (1 - (y - i)) + (
                value(i + 1, j) * (1 - (x - j)) + value(i + 1, j + 1) * (x - j)
            ) * (y - i)
    return out


def random_boxes(count: int, extent: float, generator: torch.Generator, smallest: float = 1.0) -> Tensor:
    """(count, 4) float64 within (0, 0, extent, extent)."""
    corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * (extent - smallest)
    share = torch.rand(count, 2, generator=generator, dtype=torch.float64)
    return torch.cat([corner, corner + smallest + share * (extent - smallest - corner)], 1)


def each(function: Callable[..., Sequence[float]], *rows: Tensor) -> Tensor:
    """Applied row by row."""
    return torch.tensor([function(*(r.tolist() for r in row)) for row in zip(*rows, strict=True)], dtype=torch.float64)
