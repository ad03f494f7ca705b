"""RoIAlign (Mask R-CNN, section 3) on several feature maps at once, in gathers and sums, which every format can hold.

A region is divided into size x size bins; a bin's value is the mean of samples x samples bilinear readings. As
mmdetection's and torchvision's with aligned=True: the centre of a feature's first place is at 0.5.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

CANONICAL_SIDE = 56  # px: regions from this side to its double belong to the first level (FPN, equation 1)


def level_of(boxes: Tensor, levels: int) -> Tensor:
    """The feature map that a region is read from, floor(log2(sqrt(area) / 56)) within them: (R, 4) -> (R,) int64."""
    side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp(min=0).sqrt()
    return (side / CANONICAL_SIDE + 1e-6).log2().floor().clamp(0, levels - 1).long()


def roi_align(
    features: Sequence[Tensor],
    strides: Sequence[int],
    boxes: Tensor,
    images: Tensor,
    levels: Tensor,
    size: int,
    samples: int = 2,
) -> Tensor:
    """Features (B, C, H_l, W_l) of each level, R regions -> (R, C, size, size).

    A region has a box in pixels (R, 4), an image (R,) and a level (R,), both int64. A reading more than one place
    outside its feature map is 0, one less outside is the border's. Features may be bool: they are read as 0 and 1.
    """
    batch, channels = features[0].shape[:2]
    rows = torch.cat([f.flatten(2).transpose(1, 2) for f in features], 1)  # (B, places of all levels, C)
    heights, widths = [f.shape[2] for f in features], [f.shape[3] for f in features]
    starts = [sum(h * w for h, w in zip(heights[:i], widths[:i], strict=True)) for i in range(len(features))]

    def of_level(values: Sequence[int]) -> Tensor:
        return torch.tensor(values, device=boxes.device)[levels]

    corners = boxes / of_level(strides)[:, None]
    height, width = of_level(heights), of_level(widths)
    y0, y1, weight_y = _readings(corners[:, 1], corners[:, 3], height, size * samples)
    x0, x1, weight_x = _readings(corners[:, 0], corners[:, 2], width, size * samples)
    first = (images * rows.shape[1] + of_level(starts))[:, None, None]  # (R, 1, 1)
    rows = rows.reshape(batch * rows.shape[1], channels)
    total: Tensor | int = 0
    for y, wy in zip((y0, y1), weight_y, strict=True):
        for x, wx in zip((x0, x1), weight_x, strict=True):
            index = first + y[:, :, None] * width[:, None, None] + x[:, None, :]
            total = total + rows[index] * (wy[:, :, None] * wx[:, None, :])[..., None]
    assert isinstance(total, Tensor)  # (R, size * samples, size * samples, C)
    return total.reshape(-1, size, samples, size, samples, channels).mean((2, 4)).permute(0, 3, 1, 2)


def _readings(start: Tensor, end: Tensor, length: Tensor, count: int) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Along one axis: regions from start to end (R,), a map of so many places (R,), count readings a region.

    -> the two places that each reading lies between, (R, count) each, and their weights.
    """
    steps = (torch.arange(count, device=start.device).to(start) + 0.5) / count
    at = start[:, None] + (end - start)[:, None] * steps - 0.5
    last = length[:, None] - 1
    inside = ((at >= -1) & (at <= length[:, None])).to(at)
    at = torch.minimum(at.clamp(min=0), last.to(at))
    low = at.floor()
    weight = at - low
    high = torch.minimum(low.long() + 1, last)
    return low.long(), high, ((1 - weight) * inside, weight * inside)
