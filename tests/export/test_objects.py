"""Suppression with intervals keeps its promise whatever the errors are, and objects are judged by it.

Drawn errors stand for an artifact's: plain suppression of what is off by them must find every decided object, and
nothing that isn't expected. Objects are told apart by their anchor and class, not by where they lie.
"""

from dataclasses import replace

import numpy as np
import pytest

from export.verify.objects import Objects, expect, expect_dense, judge
from runtime.detections import Detections, Expected, dense
from runtime.errors import RunnerError
from runtime.manifest import Detection

DRAWS = 200
SCORE_ERROR, BOX_ERROR = 0.01, 0.2  # px
EVERY = Detection("dense", score_threshold=0.25, nms_iou=0.5, max_detections=100, candidates=None)
SETTINGS = {
    "dense": EVERY,
    "max_detections": replace(EVERY, max_detections=6),
    "candidates": replace(EVERY, candidates=15),
    "both": replace(EVERY, candidates=20, max_detections=5),
    "coreml_nms": replace(EVERY, form="coreml_nms"),
    "coreml_nms, cut": replace(EVERY, form="coreml_nms", max_detections=5),
}
CASES = 12


def crowd(seed, anchors=40, classes=3):
    """Boxes (A, 4) around a few places, some of no area; scores (A, K), many of them close, some at the threshold."""
    random = np.random.default_rng(seed)
    centres = random.uniform(5, 35, (5, 2))[random.integers(0, 5, anchors)] + random.uniform(-2, 2, (anchors, 2))
    sides = random.uniform(6, 10, (anchors, 2))
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], 1)
    flat = random.random(anchors) < 0.1
    boxes[flat, 2] = boxes[flat, 0]
    scores = random.random((anchors, classes)) ** 2
    near = random.random((anchors, classes)) < 0.2
    scores[near] = EVERY.score_threshold + random.uniform(-1.5, 1.5, near.sum()) * SCORE_ERROR
    level = random.random(anchors) < 0.3  # two classes nearly as sure
    scores[level, 0] = scores[level, 1] + random.uniform(-2.5, 2.5, level.sum()) * SCORE_ERROR
    return scores, boxes


def best_only(scores):
    """Of each anchor its surest class alone, as Core ML takes it."""
    return np.where(np.arange(scores.shape[1]) == scores.argmax(1)[:, None], scores, -1.0)


def plain(scores, boxes, settings):
    """Pairs of anchor and class that are found; boxes must all differ."""
    anchors = {tuple(box): anchor for anchor, box in enumerate(boxes.tolist())}
    assert len(anchors) == len(boxes)
    found = dense(best_only(scores) if settings.form == "coreml_nms" else scores, boxes, settings)
    return [
        (anchors[tuple(box)], label) for box, label in zip(found.boxes.tolist(), found.labels.tolist(), strict=True)
    ]


def pairs_of(expected, boxes):
    """Pairs of anchor and class that are expected: the decided ones, and all."""
    anchors = {tuple(box): anchor for anchor, box in enumerate(boxes.tolist())}
    objects = expected.objects
    pairs = [
        (anchors[tuple(box)], label) for box, label in zip(objects.boxes.tolist(), objects.labels.tolist(), strict=True)
    ]
    assert len(set(pairs)) == len(pairs)
    return {pair for pair, decided in zip(pairs, expected.decided, strict=True) if decided}, set(pairs)


def drawn(random, values, error):
    """Off by up to the error; every other time by all of it, one way or the other."""
    changes = random.uniform(-1, 1, values.shape)
    return values + error * (np.sign(changes) * (1 - 1e-9) if random.integers(2) else changes)


def broken_promises(seed, settings, times=1.0, score_error=SCORE_ERROR, box_error=BOX_ERROR):
    """Draws of a crowd that miss a decided object, and that find one not expected; decided ones, and the others' fate.

    The errors are ``times`` as large as was said.
    """
    scores, boxes = crowd(seed)
    decided, every = pairs_of(expect_dense(scores, boxes, score_error, box_error, settings), boxes)
    random, missing, unexpected, seen = np.random.default_rng([seed, 1]), 0, 0, []
    for _ in range(DRAWS):
        found = set(
            plain(drawn(random, scores, times * score_error), drawn(random, boxes, times * box_error), settings)
        )
        missing += bool(decided - found)
        unexpected += bool(found - every)
        seen.append(found)
    came_and_went = set.union(*seen) - set.intersection(*seen)
    return missing, unexpected, len(decided), len(every - decided), len(came_and_went)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_promise(name):
    """It holds for every draw, and not for nothing: objects are decided, others really come and go."""
    results = np.array([broken_promises(seed, SETTINGS[name]) for seed in range(CASES)])
    missing, unexpected, decided, undecided, came_and_went = results.sum(0)
    assert (missing, unexpected) == (0, 0)
    assert decided >= CASES and undecided >= CASES and came_and_went >= CASES, results.sum(0)


@pytest.mark.parametrize("name", SETTINGS)
def test_errors_three_times_as_large_break_it(name):
    results = np.array([broken_promises(seed, SETTINGS[name], times=3) for seed in range(CASES)])
    missing, unexpected = results.sum(0)[:2]
    assert missing > 0 and unexpected > 0, results


@pytest.mark.parametrize(("score_error", "box_error"), [(SCORE_ERROR, 0.0), (0.0, BOX_ERROR)])
def test_either_error_alone(score_error, box_error):
    """Each is kept apart: with the other one's share of the errors it is broken."""
    errors = {"score_error": score_error, "box_error": box_error}
    results = np.array([broken_promises(seed, EVERY, **errors) for seed in range(CASES)])
    assert results.sum(0)[:2].tolist() == [0, 0] and results.sum(0)[2:].min() > 0
    tripled = np.array([broken_promises(seed, EVERY, 3, **errors) for seed in range(CASES)])
    assert tripled.sum(0)[:2].min() > 0


@pytest.mark.parametrize("name", SETTINGS)
def test_without_errors_everything_is_decided_as_plain_suppression_does(name):
    for seed in range(CASES):
        scores, boxes = crowd(seed)
        expected = expect_dense(scores, boxes, 0.0, 0.0, SETTINGS[name])
        found = plain(scores, boxes, SETTINGS[name])
        assert pairs_of(expected, boxes) == (set(found), set(found))
        assert expected.decided.all() and len(found) > 3
        np.testing.assert_array_equal(expected.objects.scores, np.sort(expected.objects.scores)[::-1])


@pytest.mark.parametrize("name", SETTINGS)
def test_with_large_errors_nothing_is_decided(name):
    scores, boxes = crowd(0)
    every = expect_dense(scores, boxes, 1.0, 40.0, SETTINGS[name])
    assert not every.decided.any()
    assert len(every.decided) == scores.size  # and anything may be found


def test_exact_ties_are_undecided():
    """Of two equal scores, the order decides, and an artifact may have another one."""
    boxes = np.array([[0, 0, 8, 8], [0, 0, 8, 7.5], [20, 20, 28, 28]])
    scores = np.array([[0.5], [0.5], [0.75]])
    expected = expect_dense(scores, boxes, 0.0, 0.0, EVERY)
    assert pairs_of(expected, boxes) == ({(2, 0)}, {(0, 0), (1, 0), (2, 0)})
    cut = expect_dense(scores, np.array([*boxes[:1], [9, 9, 15, 15], boxes[2]]), 0.0, 0.0, SETTINGS["max_detections"])
    assert cut.decided.all()
    two = replace(EVERY, max_detections=2)
    assert expect_dense(scores, boxes * [[1], [4], [1]], 0.0, 0.0, two).decided.tolist() == [True, False, False]
    classes = expect_dense(np.array([[0.5, 0.5]]), boxes[:1], 0.0, 0.0, replace(EVERY, form="coreml_nms"))
    assert classes.decided.tolist() == [False, False]


@pytest.mark.parametrize(
    ("score", "states"),
    [
        (0.25 + 1.01 * SCORE_ERROR, [True]),
        (0.25 + 0.99 * SCORE_ERROR, [False]),
        (0.25, [False]),
        (0.25 - 0.99 * SCORE_ERROR, [False]),
        (0.25 - 1.01 * SCORE_ERROR, []),
    ],
)
def test_at_the_threshold(score, states):
    expected = expect_dense(np.array([[score]]), np.array([[0.0, 0, 8, 8]]), SCORE_ERROR, BOX_ERROR, EVERY)
    assert expected.decided.tolist() == states


@pytest.mark.parametrize(
    ("common", "states"), [(7.6, [True, True]), (7.7, [True, False]), (8.3, [True, False]), (8.4, [True])]
)
def test_at_the_limit_of_overlap(common, states):
    """Two boxes 8 wide and 12 high have so much of their height in common: IoU common / (24 - common), 1/2 at 8.

    Corners off by 0.05 px change every side by up to 0.1: (8.1 x 7.7) / (2 x 7.9 x 11.9 - 8.1 x 7.7) = 0.496 at most
    for 7.6, 0.506 for 7.7; (7.9 x 8.2) / (2 x 8.1 x 12.1 - 7.9 x 8.2) = 0.494 at least for 8.3, 0.503 for 8.4.
    """
    boxes = np.array([[0, 0, 8, 12], [0, 12 - common, 8, 24 - common]])
    expected = expect_dense(np.array([[0.75], [0.5]]), boxes, SCORE_ERROR, 0.05, EVERY)
    assert expected.decided.tolist() == states


def test_a_candidate_that_is_not_sure_may_be_missing():
    """The promise where some of the candidates come and go; held to be sure they break it."""
    failures = {"unsure": [0, 0], "sure": [0, 0]}
    for seed in range(CASES):
        scores, boxes = crowd(seed)
        scores = scores[:, :1]
        random = np.random.default_rng([seed, 2])
        sure = random.random(len(boxes)) < 0.8
        candidates = Detections(boxes, scores[:, 0], np.zeros(len(boxes), np.int64))
        promises = {
            "unsure": pairs_of(expect(candidates, sure, SCORE_ERROR, BOX_ERROR, EVERY), boxes),
            "sure": pairs_of(expect(candidates, np.ones_like(sure), SCORE_ERROR, BOX_ERROR, EVERY), boxes),
        }
        assert promises["unsure"][0]
        for _ in range(DRAWS):
            there = sure | (random.random(len(boxes)) < 0.5)
            off = np.where(there[:, None], drawn(random, scores, SCORE_ERROR), -1.0)
            found = set(plain(off, drawn(random, boxes, BOX_ERROR), EVERY))
            for name, (decided, every) in promises.items():
                failures[name][0] += bool(decided - found)
                failures[name][1] += bool(found - every)
    assert failures["unsure"] == [0, 0]
    assert min(failures["sure"]) > 0


def test_a_picture_may_be_too_crowded():
    """More than `most` may be found; but what isn't found needs no room."""
    for seed in range(CASES):
        candidates = everything(*crowd(seed))
        for settings in (EVERY, SETTINGS["max_detections"]):
            whole = expect(*candidates, SCORE_ERROR, BOX_ERROR, settings)
            count = len(whole.decided)
            assert expect(*candidates, SCORE_ERROR, BOX_ERROR, settings, most=count - 1) is None
            same(expect(*candidates, SCORE_ERROR, BOX_ERROR, settings, most=count), whole)


@pytest.mark.parametrize(
    ("last_but_one", "max_detections", "states"),
    [(0.6, 1, [True]), (0.6, 2, [True, True]), (0.505, 2, None), (0.6, 3, None)],
)
def test_of_many_candidates_the_surest_must_do(last_but_one, max_detections, states):
    """Eight are looked at for `most` of two: seven on one place, one apart. The ninth, of 0.5, is somewhere else, too.

    It does not matter only where enough are surely before it.
    """
    boxes = np.array([[0, 0, 8, 8]] * 7 + [[20, 0, 28, 8], [0, 20, 8, 28]], float)
    scores = np.array([0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, last_but_one, 0.5])
    candidates = Detections(boxes, scores, np.zeros(9, np.int64)), np.ones(9, bool)
    settings = replace(EVERY, max_detections=max_detections)
    expected = expect(*candidates, SCORE_ERROR, BOX_ERROR, settings, most=2)
    assert (None if expected is None else expected.decided.tolist()) == states
    whole = expect(*candidates, SCORE_ERROR, BOX_ERROR, settings)
    assert len(whole.decided) == 3 if states is None else whole.decided.tolist() == states


def same(found, expected):
    np.testing.assert_array_equal(found.objects.boxes, expected.objects.boxes)
    np.testing.assert_array_equal(found.objects.scores, expected.objects.scores)
    np.testing.assert_array_equal(found.decided, expected.decided)


def everything(scores, boxes):
    anchors, labels = (each.reshape(-1) for each in np.indices(scores.shape))
    return Detections(boxes[anchors], scores.reshape(-1), labels), np.ones(scores.size, bool)


def test_nothing_to_expect():
    for settings in SETTINGS.values():
        expected = expect_dense(np.full((4, 2), 0.1), np.zeros((4, 4)), SCORE_ERROR, BOX_ERROR, settings)
        assert (len(expected.objects), len(expected.decided)) == (0, 0)


# ---- the judgement


NAMES = ("noise 0", "a wall")
BUDGETS = np.array([0.01, 0.02])
GRAPH = Detection("onnx_nms", score_threshold=0.25, nms_iou=0.5, max_detections=10, candidates=None)


def truth(masks=False):
    """Three objects, the last undecided, and two, both decided; their masks set half of the box and a quarter."""
    first = [[0, 0, 8, 8], [20, 10, 38, 28], [10, 30, 20, 36]], [0.9, 0.75, 0.26], [0, 1, 1]
    second = [[4, 4, 22, 22], [30, 2, 38, 8]], [0.5, 0.375], [2, 0]
    objects = [
        Detections(
            np.array(boxes, float),
            np.array(scores),
            np.array(labels),
            np.stack([mask(columns) for columns in (14, 7, 14)[: len(boxes)]]) if masks else None,
        )
        for boxes, scores, labels in (first, second)
    ]
    decided = np.array([True, True, False]), np.array([True, True])
    expected = tuple(Expected(*each) for each in zip(objects, decided, strict=True))
    return Objects(GRAPH, (40, 40), expected, BUDGETS, 0.9)


def mask(columns):
    probabilities = np.full((28, 28), 0.1)
    probabilities[:, :columns] = 0.9
    return probabilities


def answers(objects):
    """What an artifact gives that finds all of them, by name and picture; float32."""
    found = [each.objects for each in objects.expected]
    outputs = {
        name: [np.array(getattr(each, name), np.float32) for each in found] for name in ("boxes", "scores", "labels")
    }
    if found[0].masks is not None:
        outputs["masks"] = [each.masks.astype(np.float32) for each in found]
    return outputs


def kept(outputs, image, indices):
    """Only these objects of one picture."""
    return {name: [row[indices] if i == image else row for i, row in enumerate(rows)] for name, rows in outputs.items()}


def changed(outputs, name, image, index, value):
    rows = [row.copy() for row in outputs[name]]
    rows[image][index] = value
    return outputs | {name: rows}


def test_the_same_objects_pass():
    figures, failures = judge(truth(), answers(truth()), NAMES)
    assert failures == []
    assert (figures.decided, figures.undecided, figures.found, figures.matched) == (4, 1, 5, 5)
    assert (figures.iou, figures.min_iou, figures.min_mask_iou) == (0.9, 1.0, None)
    assert figures.max_score_error == pytest.approx(abs(float(np.float32(0.9)) - 0.9), rel=1e-6)


def test_figures_are_the_closed_form():
    """A box 18 px square that is moved by 0.5 px, both grown by 1 px; a score 0.015 lower, in float32."""
    outputs = changed(answers(truth()), "boxes", 1, 0, [4.5, 4, 22.5, 22])
    outputs = changed(outputs, "scores", 1, 0, 0.485)
    figures, failures = judge(truth(), outputs, NAMES)
    assert failures == []
    assert figures.min_iou == pytest.approx(19.5 / 20.5, rel=1e-12)
    assert figures.max_score_error == pytest.approx(0.5 - float(np.float32(0.485)), rel=1e-12)


def test_what_is_undecided_may_be_missing():
    figures, failures = judge(truth(), kept(answers(truth()), 0, [0, 1]), NAMES)
    assert failures == []
    assert (figures.decided, figures.undecided, figures.found, figures.matched) == (4, 1, 4, 4)


def test_what_is_decided_may_not():
    figures, failures = judge(truth(), kept(answers(truth()), 0, [0, 2]), NAMES)
    assert failures == ["objects of noise 0: 1 are missing"]
    assert (figures.found, figures.matched) == (4, 4)


def test_nothing_else_may_be_found():
    doubled = kept(answers(truth()), 1, [0, 0, 1])
    figures, failures = judge(truth(), doubled, NAMES)
    assert failures == ["objects of a wall: 1 of 3 are not the reference's"]
    assert (figures.found, figures.matched) == (6, 5)


@pytest.mark.parametrize(
    ("name", "image", "index", "value"),
    [("labels", 1, 1, 1), ("boxes", 1, 1, [32, 2, 40, 8]), ("boxes", 1, 1, [2, 30, 8, 38])],
)
def test_another_class_or_place_is_another_object(name, image, index, value):
    failures = judge(truth(), changed(answers(truth()), name, image, index, value), NAMES)[1]
    assert failures == ["objects of a wall: 1 are missing", "objects of a wall: 1 of 2 are not the reference's"]


@pytest.mark.parametrize(("score", "passes"), [(0.519, True), (0.521, False), (0.481, True), (0.479, False)])
def test_a_score_is_judged_by_its_pictures_budget(score, passes):
    failures = judge(truth(), changed(answers(truth()), "scores", 1, 0, score), NAMES)[1]
    assert failures == ([] if passes else ["objects of a wall: a score is off by 0.021, at most 0.02 is allowed"])


def test_the_other_picture_has_a_budget_of_its_own():
    failures = judge(truth(), changed(answers(truth()), "scores", 0, 1, 0.765), NAMES)[1]
    assert failures == ["objects of noise 0: a score is off by 0.015, at most 0.01 is allowed"]


def test_an_undecided_object_that_is_found_must_be_right_too():
    failures = judge(truth(), changed(answers(truth()), "scores", 0, 2, 0.29), NAMES)[1]
    assert failures == ["objects of noise 0: a score is off by 0.03, at most 0.01 is allowed"]


def test_masks_are_judged():
    """One column of 14 is 13/14 of the mask, two are 12/14, below 0.9."""
    objects = truth(masks=True)
    figures, failures = judge(objects, answers(objects), NAMES)
    assert failures == [] and figures.min_mask_iou == 1.0
    figures, failures = judge(objects, changed(answers(objects), "masks", 0, 0, mask(13)), NAMES)
    assert failures == [] and figures.min_mask_iou == 13 / 14
    figures, failures = judge(objects, changed(answers(objects), "masks", 0, 0, mask(12)), NAMES)
    assert failures == ["objects of noise 0: a mask has an overlap of 0.857 with the reference's, not 0.9"]
    assert figures.min_mask_iou == 12 / 14


def test_without_objects_there_are_no_figures():
    nothing = Expected(truth().expected[0].objects[:0], np.zeros(0, bool))
    objects = replace(truth(), expected=(nothing, nothing))
    figures, failures = judge(objects, answers(objects), NAMES)
    assert failures == []
    assert (figures.decided, figures.undecided, figures.found, figures.matched) == (0, 0, 0, 0)
    assert (figures.min_iou, figures.max_score_error, figures.min_mask_iou) == (None, None, None)
    assert len(judge(objects, answers(truth()), NAMES)[1]) == 2


def test_outputs_of_no_detector_are_the_runners_error():
    outputs = answers(truth())
    with pytest.raises(RunnerError, match="no output labels"):
        judge(truth(), {name: rows for name, rows in outputs.items() if name != "labels"}, NAMES)
    with pytest.raises(RunnerError, match="scores are not all finite"):
        judge(truth(), changed(outputs, "scores", 0, 0, np.nan), NAMES)


def test_a_picture_that_is_too_crowded_is_left_out():
    """Whatever was found there; if all are, nothing is proven."""
    objects = replace(truth(), expected=(truth().expected[0], None))
    figures, failures = judge(objects, kept(answers(truth()), 1, [0, 0, 0]), NAMES)
    assert failures == []
    assert (figures.decided, figures.undecided, figures.found, figures.matched) == (2, 1, 3, 3)
    failures = judge(replace(truth(), expected=(None, None)), answers(truth()), NAMES)[1]
    assert len(failures) == 1 and "objects may be found in every picture" in failures[0]
