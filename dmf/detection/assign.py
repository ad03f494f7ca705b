"""Which object each anchor or proposal is to find (Faster R-CNN, section 3.1.2), and which of them are learned from."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dmf.detection.boxes import iou

NOTHING, IGNORED = -1, -2
OVERLAPS = 2**24  # of anchors with objects, held at once: thousands of objects fit in memory


@dataclass(frozen=True)
class Thresholds:
    """From `positive` on, a candidate is its best object's; below `negative`, nothing's; between them it is ignored.

    With `forced`, an object also takes the candidates that overlap it most, if they do by at least `forced`.
    """

    positive: float
    negative: float
    forced: float | None = None


# mmdetection's, which follow the papers
RETINANET = Thresholds(0.5, 0.4, forced=0.0)
RPN = Thresholds(0.7, 0.3, forced=0.3)
BOX_HEAD = Thresholds(0.5, 0.5)


def assign(candidates: Tensor, boxes: Tensor, thresholds: Thresholds) -> Tensor:
    """(A, 4), (N, 4) -> (A,) int64: the object's index, `NOTHING` or `IGNORED`.

    An object without an area, or overlapped by none, is nobody's. Candidates equally good for an object are all its.
    """
    best = candidates.new_zeros(len(candidates))
    nearest = torch.zeros(len(candidates), dtype=torch.int64, device=candidates.device)
    taken = torch.full_like(nearest, NOTHING)
    step = max(OVERLAPS // max(len(candidates), 1), 1)
    for start in range(0, len(boxes) if len(candidates) else 0, step):
        overlaps = iou(candidates, boxes[start : start + step])
        value, index = overlaps.max(1)
        nearest = torch.where(value > best, start + index, nearest)
        best = torch.maximum(best, value)
        if thresholds.forced is not None:
            most = overlaps.max(0).values
            takes = (overlaps == most) & (most > 0) & (most >= thresholds.forced)
            number = torch.arange(start, start + takes.shape[1], device=candidates.device)
            taken = torch.maximum(taken, torch.where(takes, number, NOTHING).max(1).values)
    assigned = torch.where(best >= thresholds.positive, nearest, IGNORED)
    assigned = torch.where(best < thresholds.negative, NOTHING, assigned)
    return torch.where(taken >= 0, taken, assigned)


def sample(assigned: Tensor, count: int, positive_share: float) -> tuple[Tensor, Tensor]:
    """A random choice of at most `count` candidates, at most that share of them positive; negatives fill it up.

    (A,) -> indices of positives (P,), of negatives (Q,), P + Q <= count.
    """
    positive, negative = (assigned >= 0).nonzero()[:, 0], (assigned == NOTHING).nonzero()[:, 0]
    positive = _some(positive, int(count * positive_share))
    return positive, _some(negative, count - len(positive))


def _some(indices: Tensor, count: int) -> Tensor:
    if len(indices) <= count:
        return indices
    return indices[torch.randperm(len(indices), device=indices.device)[:count]]
