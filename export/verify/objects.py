"""What a detector must find, and what an artifact found: matched by class and overlap.

Suppression decides, and a tiny error can turn a decision: of two scores that are nearly equal, of an overlap that is
nearly the limit, of a score near the threshold. So it is done here with intervals: scores and corners are taken to be
off by as much as their budgets allow, and an object is decided only if no such error can make it appear or vanish.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.detections import Detections, Expected, Match, match, read_detections
from runtime.manifest import Detection, DetectionParity

IOU, LOOSE_IOU = 0.9, 0.7  # from which on two boxes are the same one, in fp32 and in any other precision
MOST = 1000  # objects that may be found in a picture: if there are more, it is too crowded to say what must be found

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Objects:
    """What must be found in N pictures of `size` (height, width), and how outputs are read."""

    detection: Detection
    size: tuple[int, int]
    expected: tuple[Expected | None, ...]  # None of a picture that is too crowded
    score_budgets: Values  # (N)
    iou: float


def judge(
    objects: Objects, outputs: Mapping[str, Sequence[NDArray[Any]]], names: Sequence[str]
) -> tuple[DetectionParity, list[str]]:
    """The figures, and what keeps an artifact from passing that gave these outputs, by name and picture.

    Raises `RunnerError` for outputs that are none of a detector's.
    """
    matches, failures, decided, undecided = [], list[str](), 0, 0
    for i, (name, expected) in enumerate(zip(names, objects.expected, strict=True)):
        if expected is None:
            continue
        decided, undecided = decided + int(expected.decided.sum()), undecided + int((~expected.decided).sum())
        found = read_detections({key: rows[i] for key, rows in outputs.items()}, objects.detection, objects.size)
        matches.append(each := match(found, expected, objects.iou))
        failures += complaints(each, name, float(objects.score_budgets[i]), objects.iou)
    if not matches:
        failures.append(f"more than {MOST} objects may be found in every picture: too many to tell right from wrong")
    ious, errors, masks = (
        np.concatenate([np.zeros(0), *(getattr(each, field) for each in matches)])
        for field in ("ious", "score_errors", "mask_ious")
    )
    figures = DetectionParity(
        decided=decided,
        undecided=undecided,
        found=sum(each.found for each in matches),
        matched=len(ious),
        iou=objects.iou,
        min_iou=float(ious.min()) if len(ious) else None,
        max_score_error=float(errors.max()) if len(errors) else None,
        min_mask_iou=float(masks.min()) if len(masks) else None,
    )
    return figures, failures


def complaints(each: Match, name: str, budget: float, iou: float) -> list[str]:
    found = []
    if each.missed:
        found.append(f"objects of {name}: {each.missed} are missing")
    if each.found > len(each.ious):
        found.append(f"objects of {name}: {each.found - len(each.ious)} of {each.found} are not the reference's")
    if (error := float(each.score_errors.max(initial=0))) > budget:
        found.append(f"objects of {name}: a score is off by {error:.3g}, at most {budget:.3g} is allowed")
    if (overlap := float(each.mask_ious.min(initial=1))) < iou:
        found.append(f"objects of {name}: a mask has an overlap of {overlap:.3g} with the reference's, not {iou:.3g}")
    return found


def expect_dense(
    scores: Values, boxes: Values, score_error: float, box_error: float, detection: Detection
) -> Expected | None:
    """The objects of one picture with exact scores (A, K) and boxes (A, 4), which an artifact has to these errors."""
    best = scores.max(1, keepdims=True)
    by_class = detection.form != "coreml_nms"  # which takes an anchor for an object of its best class only
    possible = (scores > detection.score_threshold - score_error) & (by_class | (scores >= best - 2 * score_error))
    anchors, labels = np.nonzero(possible)
    candidates = Detections(boxes[anchors], scores[anchors, labels], labels)
    sure = np.ones(len(anchors), bool)
    if not by_class:
        others = np.sort(scores, 1)[:, -2] if scores.shape[1] > 1 else np.full(len(scores), -np.inf)
        sure = candidates.scores > others[anchors] + 2 * score_error
    return expect(candidates, sure, score_error, box_error, detection)


def expect(
    candidates: Detections,
    sure: NDArray[np.bool_],
    score_error: float,
    box_error: float,
    detection: Detection,
    most: int = MOST,
) -> Expected | None:
    """What suppression leaves of these objects, (N), whose scores and corners are exact to within these errors.

    One that is not `sure` may not be a candidate at all. None if more than `most` may be found.
    """
    limit = detection.candidates or len(candidates)
    above, reaching = _ranks(candidates.scores, sure, np.ones(len(candidates), bool), score_error)
    order = np.argsort(-candidates.scores, kind="stable")
    order, rest = np.split(order[above[order] < limit], [4 * most])
    found, sure = candidates[order], (sure & (reaching <= limit))[order]
    sure &= found.scores > detection.score_threshold + score_error
    states = _survival(found, sure, score_error, box_error, detection.nms_iou)
    if len(rest):  # which is of no matter if enough are kept that are surer
        surer = found.scores[states == KEPT] > candidates.scores[rest[0]] + 2 * score_error
        if surer.sum() < detection.max_detections:
            return None
    expected = _cut(found, states, score_error, detection)
    return expected if len(expected.decided) <= most else None


GONE, UNDECIDED, KEPT = 0, 1, 2


def _survival(found: Detections, sure: NDArray[np.bool_], score_error: float, box_error: float, iou: float) -> Any:
    """Of objects by falling score (N): `KEPT` or `GONE` whatever the errors are, or `UNDECIDED`."""
    states = np.full(len(found), UNDECIDED)
    for i in range(len(found)):
        rivals = np.flatnonzero(
            (found.labels == found.labels[i]) & (states != GONE) & (found.scores >= found.scores[i] - 2 * score_error)
        )
        rivals = rivals[rivals != i]
        least, most = _overlap_range(found.boxes[i], found.boxes[rivals], box_error)
        above = found.scores[rivals] > found.scores[i] + 2 * score_error
        if (above & (states[rivals] == KEPT) & (least > iou)).any():
            states[i] = GONE
        elif sure[i] and not (most > iou).any():
            states[i] = KEPT
    return states


def _overlap_range(box: Values, boxes: Values, error: float) -> tuple[Values, Values]:
    """Intersection over union of one box and others (N, 4), whose corners may be off by so many px: from, to (N)."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    own, theirs = box[2:] - box[:2], boxes[:, 2:] - boxes[:, :2]

    def ratio(change: float) -> Values:
        common = (sides + change).clip(0).prod(1)
        areas = (own - change).clip(0).prod() + (theirs - change).clip(0).prod(1)
        return common / np.maximum(areas - common, 1e-30)

    return ratio(-2 * error), np.minimum(ratio(2 * error), 1)


def _cut(found: Detections, states: Any, score_error: float, detection: Detection) -> Expected:
    """The objects that are among the surest `max_detections`, and those that may be."""
    above, reaching = _ranks(found.scores, states == KEPT, states != GONE, score_error)
    possible = np.flatnonzero((states != GONE) & (above < detection.max_detections))
    decided = (states == KEPT) & (reaching <= detection.max_detections)
    return Expected(found[possible], decided[possible])


def _ranks(scores: Values, sure: Any, possible: Any, error: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each score (N): how many `sure` ones exceed it for certain, and how many `possible` ones may reach it.

    It is counted among the latter itself.
    """
    above = np.searchsorted(np.sort(-scores[sure]), -scores - 2 * error, "left")
    return above, np.searchsorted(np.sort(-scores[possible]), 2 * error - scores, "right")
