"""Proof of a Mask R-CNN's artifact, stage by stage: each is judged by what the artifact's own stage before gave.

The first stage chooses a thousand boxes, of which many are nearly equal, and the second one answers for each. So the
choice is judged by itself, with intervals (`export.verify.objects`), and the oracle's second stage is then given what
the artifact chose, and its masks the artifact's boxes. No stage's error can hide behind another one's decisions.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dmf.detection import MaskRCNN
from dmf.detection.boxes import clip, decode
from dmf.detection.mask_rcnn import BOX_SCALE, MASK_BINS, RPN_NMS_IOU
from export.verify.inputs import Inputs, normalize
from export.verify.objects import IOU, Objects, expect, judge
from export.verify.parity import Verdict, budgets_of, compare, gate
from export.verify.reference import Answers, Output, Values
from runtime.detections import Detections, Expected
from runtime.errors import ParityError
from runtime.manifest import Detection, Parity, Tolerance

SHAPES = {"boxes": (4,), "scores": (), "labels": (), "masks": (2 * MASK_BINS,) * 2, "proposals": (4,)}  # of a row
ORACLE = "eager PyTorch, float64, each stage on what the artifact's stage before gave"


class Stages:
    """The eager model's stages for one image, in one precision; what they give is float64."""

    def __init__(self, model: MaskRCNN, image: NDArray[np.uint8], dtype: torch.dtype) -> None:
        """`image` is (1, H, W, 3)."""
        self.model, self.dtype = copy.deepcopy(model).to(dtype).eval(), dtype
        x = normalize(image, dtype)
        self.size = (x.shape[2], x.shape[3])
        with torch.no_grad():
            self.levels, logits, deltas = self.model(x)
            boxes, scores, of_level = self.model.decode_proposals(logits, deltas, *self.size)
        self.candidates = Detections(_plain(boxes[0]), _plain(scores[0]), of_level.numpy())
        self.logits, self.boxes = _plain(logits[0]), self._every_box(deltas[0])

    def _every_box(self, deltas: Tensor) -> Values:
        """The box of every anchor, (A, 4)."""
        anchors = torch.cat(self.model.anchors(*self.size)).to(deltas)
        return _plain(clip(decode(deltas, anchors), *self.size))

    @torch.no_grad()
    def second(self, proposals: Values) -> tuple[Values, Values]:
        """(P, 4) -> scores (P, K), boxes (P, K, 4)"""
        boxes = torch.from_numpy(proposals).to(self.dtype)
        logits, deltas = self.model.box_outputs(self.levels, boxes, torch.zeros(len(boxes), dtype=torch.int64))
        found = clip(decode(deltas, boxes[:, None], BOX_SCALE), *self.size)
        return _plain(logits.softmax(1)[:, :-1]), _plain(found)

    @torch.no_grad()
    def masks(self, boxes: Values, labels: NDArray[np.int64]) -> Values:
        """Of objects (N, 4), (N) -> (N, 28, 28), of 0 to 1"""
        rows = torch.from_numpy(boxes).to(self.dtype)
        logits = self.model.mask_outputs(self.levels, rows, torch.zeros(len(rows), dtype=torch.int64))
        return _plain(logits[torch.arange(len(rows)), torch.from_numpy(labels)].sigmoid())


@dataclass(frozen=True, eq=False)
class Judged:
    """Of one image: the second stage's and the masks' values beside the oracle's, and what must be found."""

    outputs: tuple[tuple[str, Values, Values, Values], ...]  # name, what was found, the oracle's, float32's; one image
    expected: Expected | None
    score_budget: float
    failures: tuple[str, ...]


def judge_two_stages(
    model: MaskRCNN,
    answers: Answers,
    inputs: Inputs,
    detection: Detection,
    tolerance: Tolerance,
    checked_by: str,
    oracle: str = ORACLE,
) -> Verdict:
    """The verdict on an artifact that gave these answers.

    `ParityError` for answers that are not a Mask R-CNN's.
    """
    judged = []
    for i, name in enumerate(inputs.names):
        given = {key: np.asarray(rows[i], np.float64) for key, rows in answers.items()}
        judged.append(_judge_image(model, inputs.images[i : i + 1], given, name, detection, tolerance))
    parities, failures = [], [failure for each in judged for failure in each.failures]
    for parts in zip(*(each.outputs for each in judged), strict=True):
        exact = [each[2] for each in parts]
        yardsticks = np.array([np.abs(each[3] - each[2]).max(initial=0) for each in parts])
        widest = max(each.size for each in exact) or 1  # images have different numbers of objects: the rest is 0
        output = Output(parts[0][0], _rows(exact, widest), yardsticks, scale=_scale(parts[0][0], model))
        parities.append(compare(output, list(_rows([each[1] for each in parts], widest)), inputs.names, tolerance))
        failures += gate(parities[-1])
    objects = Objects(
        detection,
        model.config.image_size,
        tuple(each.expected for each in judged),
        np.array([each.score_budget for each in judged]),
        IOU,
    )
    found, wrong = judge(objects, answers, inputs.names)
    failures += wrong
    parity = Parity(
        oracle=oracle,
        passed=not failures,
        tolerance=tolerance,
        outputs=tuple(parities),
        detections=found,
        routing_not_frozen=None,
        batch_consistent=None,
        inputs=inputs.names,
        checked_by=checked_by,
    )
    return Verdict(parity, tuple(failures), answers, objects)


@torch.no_grad()
def check_folds(graph: nn.Module, model: MaskRCNN, inputs: Inputs, allowed: float) -> None:
    """The static graph, of float64, against the model. `ParityError`: a value differs by more than `allowed`."""
    for image in np.split(inputs.images, len(inputs.images)):
        stages = Stages(model, image, torch.float64)
        given = [_plain(output) for output in graph(normalize(image, torch.float64))]
        boxes, scores, labels, masks, _ = given
        (found,) = stages.model.detect(normalize(image, torch.float64))
        pairs = [(boxes, _plain(found.boxes)), (scores, _plain(found.scores)), (labels, _plain(found.labels))]
        pairs.append((masks, stages.masks(boxes, labels.astype(np.int64))))
        for ours, theirs in pairs:
            largest = np.abs(theirs).max(initial=1)
            if ours.shape != theirs.shape or not np.abs(ours - theirs).max(initial=0) <= allowed * largest:
                raise ParityError("the reparameterised graph does not find what the model finds")


def _judge_image(
    model: MaskRCNN,
    image: NDArray[np.uint8],
    given: dict[str, NDArray[Any]],
    name: str,
    detection: Detection,
    tolerance: Tolerance,
) -> Judged:
    _check(given, name, model.config.num_classes)
    exact, float32 = (Stages(model, image, dtype) for dtype in (torch.float64, torch.float32))
    proposals, boxes, labels = given["proposals"], given["boxes"], given["labels"].astype(np.int64)
    failures = _wrong_proposals(exact, float32, proposals, name, tolerance)

    scores, places = exact.second(proposals)
    scores32, places32 = float32.second(proposals)
    score_budget = _budget("scores", scores, scores32, model, tolerance)
    box_budget = _budget("boxes", places, places32, model, tolerance)
    rows, classes = np.nonzero(scores > detection.score_threshold - score_budget)
    candidates = Detections(places[rows, classes], scores[rows, classes], classes)
    among = replace(detection, candidates=model.config.candidates)
    expected = expect(candidates, np.ones(len(candidates), bool), score_budget, box_budget, among)
    if expected is not None:
        objects = expected.objects
        masks = exact.masks(objects.boxes, objects.labels)
        expected = Expected(Detections(objects.boxes, objects.scores, objects.labels, masks), expected.decided)
    own = np.abs(places[:, labels] - boxes).max(2).argmin(0), labels  # whose box each is: the nearest of its class
    return Judged(
        (
            ("masks", given["masks"], exact.masks(boxes, labels), float32.masks(boxes, labels)),
            ("boxes", boxes, places[own], places32[own]),
        ),
        expected,
        score_budget,
        tuple(failures),
    )


def _check(given: dict[str, Values], name: str, num_classes: int) -> None:
    """`ParityError` for answers that are not a Mask R-CNN's."""
    for output, shape in SHAPES.items():
        if output not in given:
            raise ParityError(f"the artifact has no output {output}")
        found = given[output]
        rows = found.shape[:1] if output == "proposals" else given["boxes"].shape[:1]
        if found.shape != (*rows, *shape):
            raise ParityError(
                f"{output} of {name} are {found.shape}, boxes {given['boxes'].shape}; rows must be {shape}"
            )
        if not np.isfinite(found).all():
            raise ParityError(f"{output} of {name} are not all finite")
    if strange := set(given["labels"]) - set(range(num_classes)):
        raise ParityError(f"labels of {name} hold {min(strange):g}; there are {num_classes} classes")
    if not len(given["proposals"]):
        raise ParityError(f"proposals of {name}: there are none")


def _wrong_proposals(exact: Stages, float32: Stages, proposals: Values, name: str, tolerance: Tolerance) -> list[str]:
    """What is wrong with the boxes that the first stage chose, (P, 4)."""
    config = exact.model.config
    logit_budget = _budget("logits", exact.logits, float32.logits, exact.model, tolerance)
    box_budget = _budget("boxes", exact.boxes, float32.boxes, exact.model, tolerance)
    candidates = exact.candidates  # one that may have no area may not be proposed
    sure = (candidates.boxes[:, 2:] - candidates.boxes[:, :2]).min(1) > 2 * box_budget
    every = Detection("onnx_nms", -np.inf, RPN_NMS_IOU, config.proposals, None)
    expected = expect(candidates, sure, logit_budget, box_budget, every, most=len(candidates.boxes))
    assert expected is not None  # there is room for all of them
    near = np.array([np.abs(box - expected.objects.boxes).max(1) for box in proposals]) <= box_budget
    missing = int((expected.decided & ~near.any(0)).sum())
    others, free = 0, np.ones(near.shape[1], bool)
    for candidates_near in near:  # each is another candidate's
        partners = np.flatnonzero(candidates_near & free)
        free[partners[:1]] = False
        others += not len(partners)
    wrong = [f"proposals of {name}: {missing} are missing"] if missing else []
    return [*wrong, f"proposals of {name}: {others} are not the reference's"] if others else wrong


def _budget(name: str, exact: Values, float32: Values, model: MaskRCNN, tolerance: Tolerance) -> float:
    error = np.abs(float32 - exact).max(initial=0)
    output = Output(name, exact.reshape(1, -1), np.array([error]), scale=_scale(name, model))
    return float(budgets_of(output, tolerance)[0])


def _scale(name: str, model: MaskRCNN) -> float | None:
    """How large values can be: of boxes the image's longer side, of probabilities 1."""
    return {"boxes": float(max(model.config.image_size)), "scores": 1.0, "masks": 1.0}.get(name)


def _rows(values: Sequence[Values], length: int) -> Values:
    return np.stack([np.pad(each.reshape(-1), (0, length - each.size)) for each in values])


def _plain(tensor: Tensor) -> Values:
    return tensor.double().numpy()
