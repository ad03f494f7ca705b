"""What a detector's artifact found in a picture, whatever its outputs are; with numpy alone, as an app does it.

By the form of the manifest's ``detection``, for batch 1, A anchors and K classes:

- ``dense``: ``scores`` (1, A, K) of 0 to 1 and ``boxes`` (1, A, 4) of every anchor. Each pair of anchor and class above
  the threshold is a candidate, the surest ``candidates`` of them; suppressed class by class;
- ``onnx_nms``: ``boxes`` (N, 4), ``scores`` (N), ``labels`` (N), of Mask R-CNN also ``masks`` (N, 28, 28);
- ``tflite_detection_postprocess``: ``boxes`` (1, M, 4) as y1, x1, y2, x2, ``labels`` (1, M), ``scores`` (1, M), and
  ``count`` (1), how many of the M are meant;
- ``coreml_nms``: ``confidence`` (N, K), whose largest is the score and the label, and ``coordinates`` (N, 4), the
  centre x, y, width and height as shares of the input's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import RunnerError
from runtime.latency import PostProcessing
from runtime.manifest import Detection, Form

OUTPUTS: dict[Form, tuple[str, ...]] = {
    "dense": ("scores", "boxes"),
    "onnx_nms": ("boxes", "scores", "labels"),
    "tflite_detection_postprocess": ("boxes", "labels", "scores", "count"),
    "coreml_nms": ("confidence", "coordinates"),
}


@dataclass(frozen=True, eq=False)
class Detections:
    """``boxes`` (N, 4) x1, y1, x2, y2 in the input's pixels, ``scores`` (N), ``labels`` (N), the surest first.

    ``masks`` (N, 28, 28) are probabilities within the box, None of a detector that has none.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    masks: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, rows: Any) -> "Detections":
        masks = None if self.masks is None else self.masks[rows]
        return Detections(self.boxes[rows], self.scores[rows], self.labels[rows], masks)


def where_chosen(detection: Detection | None, by_runner: bool) -> PostProcessing | None:
    """What a report says of a sample; ``by_runner``: objects were chosen behind the network, if it doesn't do it."""
    if detection is None:
        return None
    if detection.form != "dense":
        return "graph"
    return "runner" if by_runner else "none"


def read_detections(outputs: Mapping[str, NDArray[Any]], detection: Detection, size: tuple[int, int]) -> Detections:
    """The objects in one picture of ``size`` (height, width). RunnerError: an output is missing or not finite."""
    names = OUTPUTS[detection.form]
    if missing := [name for name in names if name not in outputs]:
        raise RunnerError(f"the artifact has no output {missing[0]}; a detector of form {detection.form} has it")
    values = {name: np.asarray(outputs[name], np.float64) for name in (*names, *({"masks"} & set(outputs)))}
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise RunnerError(f"the artifact's {name} are not all finite")
    _check_shapes(values, detection.form)
    if detection.form == "dense":
        return dense(values["scores"][0], values["boxes"][0], detection)
    if detection.form == "tflite_detection_postprocess":
        count = int(values["count"][0])
        boxes = values["boxes"][0, :count][:, [1, 0, 3, 2]]
        found = Detections(boxes, values["scores"][0, :count], values["labels"][0, :count].astype(np.int64))
    elif detection.form == "coreml_nms":
        confidence, (x, y, width, height) = values["confidence"], values["coordinates"].T
        scale = np.array([size[1], size[0], size[1], size[0]])
        boxes = np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], 1) * scale
        found = Detections(boxes, confidence.max(1, initial=0), confidence.argmax(1))
    else:
        found = Detections(values["boxes"], values["scores"], values["labels"].astype(np.int64), values.get("masks"))
    order = np.argsort(-found.scores, kind="stable")
    return found[order[: detection.max_detections]]


def _check_shapes(values: Mapping[str, NDArray[np.float64]], form: Form) -> None:
    """RunnerError for outputs that don't belong together."""
    shapes = {name: value.shape for name, value in values.items()}
    if form == "dense":
        scores = shapes["scores"]
        fits = len(scores) == 3 and scores[0] == 1 and shapes["boxes"] == (*scores[:2], 4)
    elif form == "tflite_detection_postprocess":
        rows = shapes["scores"]
        fits = len(rows) == 2 and shapes == {"boxes": (*rows, 4), "labels": rows, "scores": rows, "count": (1,)}
        fits = fits and 0 <= values["count"][0] <= rows[1]
    elif form == "coreml_nms":
        rows = shapes["confidence"]
        fits = len(rows) == 2 and shapes["coordinates"] == (rows[0], 4)
    else:
        rows = shapes["scores"]
        fits = len(rows) == 1 and shapes["labels"] == rows and shapes["boxes"] == (*rows, 4)
        fits = fits and shapes.get("masks", (*rows, 28, 28)) == (*rows, 28, 28)
    if not fits:
        told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise RunnerError(f"the artifact answers {told}; these are not a detector's outputs of form {form}")


def dense(scores: NDArray[np.float64], boxes: NDArray[np.float64], detection: Detection) -> Detections:
    """Of every anchor's scores (A, K) and box (A, 4)."""
    flat = scores.reshape(-1)
    pairs = np.flatnonzero(flat > detection.score_threshold)
    pairs = pairs[np.argsort(-flat[pairs], kind="stable")][: detection.candidates]
    anchors, labels = np.divmod(pairs, scores.shape[1])
    found = Detections(boxes[anchors], flat[pairs], labels)
    return found[suppressed(found, detection.nms_iou)[: detection.max_detections]]


def suppressed(found: Detections, iou: float) -> NDArray[np.int64]:
    """Indices of those that stay, by falling score, of equal ones the first.

    One goes if another of its class stays that is surer and overlaps it more than ``iou``.
    """
    left, kept = np.argsort(-found.scores, kind="stable"), []
    while len(left):
        first, left = left[0], left[1:]
        kept.append(first)
        near = overlaps(found.boxes[first], found.boxes[left]) > iou
        left = left[~near | (found.labels[left] != found.labels[first])]
    return np.array(kept, np.int64)


def overlaps(box: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union of one box (4) and others (N, 4), (N); 0 where neither has an area."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    intersection = sides.clip(0).prod(1)
    union = (box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(1) - intersection
    return intersection / np.maximum(union, np.finfo(np.float64).tiny)


@dataclass(frozen=True, eq=False)
class Expected:
    """The objects of a picture; an artifact must find those that are ``decided``, (N), and may find the others.

    One is undecided where a tiny error makes it appear or vanish: its score is at the threshold, or at another one's,
    or its overlap with another one is at the limit.
    """

    objects: Detections
    decided: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Match:
    """Which of the objects ``found`` are expected ones, and how near; ``mask_ious`` are empty without masks."""

    found: int
    missed: int  # decided, and not found
    ious: NDArray[np.float64]
    score_errors: NDArray[np.float64]
    mask_ious: NDArray[np.float64]

    @property
    def is_complete(self) -> bool:
        """Whether every decided object is found, and every found one expected."""
        return self.missed == 0 and self.found == len(self.ious)

    @property
    def score_error(self) -> float:
        """The largest; 1 for an object that only one of both has."""
        return float(self.score_errors.max(initial=0)) if self.is_complete else 1.0


SLACK = 1.0  # px that boxes are grown by on every side before they are matched: some have no area, clipped to an edge


def match(found: Detections, expected: Expected, iou: float) -> Match:
    """Each found object, the surest first, is the expected one of its class whose score is nearest, of those that it
    overlaps by at least ``iou``, both grown by `SLACK`; of equally near ones the first. No object is expected twice.
    """
    objects, free = expected.objects, np.ones(len(expected.objects), bool)
    grown = np.array([-SLACK, -SLACK, SLACK, SLACK])
    boxes, others = found.boxes + grown, objects.boxes + grown
    pairs, ious = [], []
    for i in range(len(found)):
        near = overlaps(boxes[i], others)
        candidates = np.flatnonzero(free & (objects.labels == found.labels[i]) & (near >= iou))
        if len(candidates):
            j = candidates[np.abs(objects.scores[candidates] - found.scores[i]).argmin()]
            free[j] = False
            pairs.append((i, int(j)))
            ious.append(near[j])
    rows, columns = (list(each) for each in zip(*pairs, strict=True)) if pairs else ([], [])
    mask_ious: list[float] = []
    if found.masks is not None and objects.masks is not None:
        mask_ious = [mask_iou(found.masks[i], objects.masks[j]) for i, j in pairs]
    return Match(
        len(found),
        int((expected.decided & free).sum()),
        np.array(ious, np.float64),
        np.abs(found.scores[rows] - objects.scores[columns]),
        np.array(mask_ious, np.float64),
    )


def mask_iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Of two masks of probabilities, set from one half on; 1 if neither is set anywhere."""
    in_a, in_b = a >= 0.5, b >= 0.5
    union = (in_a | in_b).sum()
    return float((in_a & in_b).sum() / union) if union else 1.0
