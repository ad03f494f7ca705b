"""What a detector found, against the eager detector and against loops over single boxes; and what matches what."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import dmf
from dmf.detection import load_detector
from dmf.detection.boxes import clip, decode
from dmf.training.augment import normalize, to_tensor
from dmf.training.config import read
from dmf.training.detection import load
from runtime.detections import (
    OUTPUTS,
    SLACK,
    Detections,
    Expected,
    dense,
    mask_iou,
    match,
    overlaps,
    read_detections,
    suppressed,
    where_chosen,
)
from runtime.errors import RunnerError
from runtime.manifest import Detection

SIZE = (40, 64)  # not square: rows and columns can be confused
SETTINGS = Detection("dense", score_threshold=0.25, nms_iou=0.5, max_detections=20, candidates=60)
FORMS = ("dense", "onnx_nms", "tflite_detection_postprocess", "coreml_nms")


def detections(boxes, scores, labels, masks=None):
    return Detections(np.array(boxes, float).reshape(-1, 4), np.array(scores, float), np.array(labels, int), masks)


def random_boxes(random, count, side=30.0):
    corners = random.uniform(0, side, (count, 2, 2))
    return np.concatenate([corners.min(1), corners.max(1)], 1)


# ---- every anchor's scores and boxes


def slow_iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def slow(scores, boxes, settings, strict=True, by_class=True):
    """Rows of (score, label, x1, y1, x2, y2), pair by pair; of equal ones the one of the earlier anchor, then class."""
    pairs = []
    for anchor, of_anchor in enumerate(scores.tolist()):
        for label, score in enumerate(of_anchor):
            if score > settings.score_threshold or (not strict and score == settings.score_threshold):
                pairs.append((-score, anchor, label))
    kept = []
    for score, anchor, label in sorted(pairs)[: settings.candidates]:
        rivals = [a for _, a, other in kept if other == label or not by_class]
        if all(slow_iou(boxes[a].tolist(), boxes[anchor].tolist()) <= settings.nms_iou for a in rivals):
            kept.append((score, anchor, label))
    kept = kept[: settings.max_detections]
    return np.array([[-score, label, *boxes[anchor]] for score, anchor, label in kept]).reshape(-1, 6)


def rows(found):
    return np.concatenate([found.scores[:, None], found.labels[:, None], found.boxes], 1)


def random_case(seed):
    """Scores (A, K) of which many are equal, boxes (A, 4) of which some have no area or are equal, settings."""
    random = np.random.default_rng(seed)
    anchors, classes = int(random.integers(1, 60)), int(random.integers(1, 4))
    scores = random.random((anchors, classes))
    if seed % 2:
        scores = np.round(scores * 8) / 8  # ties, also at the threshold
    boxes = random_boxes(random, anchors)
    flat = random.random(anchors) < 0.1
    boxes[flat, 2] = boxes[flat, 0]
    copied = random.random(anchors) < 0.2
    boxes[copied] = boxes[0]
    settings = replace(
        SETTINGS,
        score_threshold=float(random.choice([0.0, 0.25, 0.5])),
        nms_iou=float(random.choice([0.0, 0.3, 0.5, 0.9])),
        max_detections=int(random.choice([3, 20])),
        candidates=int(random.choice([10, 200])),
    )
    return scores, boxes, settings


def test_dense_is_the_slow_loop():
    """And no other one: without the cuts, without classes, with the threshold itself, it finds something else."""
    others = dict.fromkeys(("max_detections", "candidates", "threshold", "classes", "overlap"), 0)
    for seed in range(120):
        scores, boxes, settings = random_case(seed)
        found = rows(dense(scores, boxes, settings))
        np.testing.assert_array_equal(found, slow(scores, boxes, settings))
        for name, other in {
            "max_detections": slow(scores, boxes, replace(settings, max_detections=999)),
            "candidates": slow(scores, boxes, replace(settings, candidates=999)),
            "threshold": slow(scores, boxes, settings, strict=False),
            "classes": slow(scores, boxes, settings, by_class=False),
            "overlap": slow(scores, boxes, replace(settings, nms_iou=1.0)),
        }.items():
            others[name] += not np.array_equal(found, other)
    assert min(others.values()) >= 5, others


def test_nothing_is_sure_enough():
    found = dense(np.full((7, 3), 0.25), random_boxes(np.random.default_rng(0), 7), SETTINGS)  # at, not above
    assert (len(found), found.boxes.shape, found.masks) == (0, (0, 4), None)
    assert len(dense(np.zeros((0, 3)), np.zeros((0, 4)), SETTINGS)) == 0


def test_candidates_are_cut_before_suppression():
    """The surest three lie on each other, so one is left of them, and the fourth is never looked at."""
    boxes = np.array([[0, 0, 8, 8]] * 3 + [[20, 20, 28, 28]], float)
    scores = np.array([[0.9], [0.8], [0.7], [0.6]])
    assert dense(scores, boxes, replace(SETTINGS, candidates=3)).scores.tolist() == [0.9]
    assert dense(scores, boxes, replace(SETTINGS, candidates=4)).scores.tolist() == [0.9, 0.6]


def test_what_is_suppressed_suppresses_nothing():
    """The second goes because of the first; the third overlaps only the second, and stays."""
    chain = detections([[0, 0, 10, 10], [3, 0, 13, 10], [6, 0, 16, 10]], [0.9, 0.8, 0.7], [0, 0, 0])
    assert slow_iou(chain.boxes[0], chain.boxes[1]) == slow_iou(chain.boxes[1], chain.boxes[2]) == 7 / 13
    assert suppressed(chain, 0.5).tolist() == [0, 2]
    assert suppressed(chain[[2, 1, 0]], 0.5).tolist() == [2, 0]  # by falling score, wherever they are
    assert suppressed(chain, 7 / 13).tolist() == [0, 1, 2]  # the limit itself is allowed


def test_overlaps():
    random = np.random.default_rng(0)
    box, others = random_boxes(random, 1)[0], random_boxes(random, 50)
    others[7, 2:] = others[7, :2]  # no area
    others[8, [1, 3]] = 5
    np.testing.assert_allclose(overlaps(box, others), [slow_iou(box, other) for other in others], rtol=1e-12)
    assert overlaps(others[7], others[7:8]).tolist() == [0]


@pytest.fixture(scope="module")
def trained():
    return load_detector(dmf.pretrained("retinanet_dmf_nano")).double().eval()


@torch.no_grad()
def test_dense_is_what_the_trained_detector_detects(trained):
    """In float64, on pictures held out; eager takes the surest of each level, which is all of them here."""
    config, total, others = trained.config, 0, 0
    settings = Detection("dense", config.score_threshold, config.nms_iou, config.max_detections, 5000)
    scenes = load(read("retinanet_dmf_nano_digits")).heldout
    for i in range(6):
        x = normalize(to_tensor(scenes.example(i, torch.Generator())[0])[None]).double()
        logits, deltas = trained(x)
        scores = logits[0].sigmoid().numpy()
        levels = trained.anchors(*x.shape[2:])
        boxes = clip(decode(deltas[0], torch.cat(levels)), *x.shape[2:]).numpy()
        sure = np.split((scores > config.score_threshold).sum(1), np.cumsum([len(each) for each in levels]))
        assert max(each.sum() for each in sure) < config.candidates
        found, (eager,) = dense(scores, boxes, settings), trained.detect(x)
        np.testing.assert_allclose(found.scores, eager.scores.numpy(), rtol=1e-12)
        np.testing.assert_allclose(found.boxes, eager.boxes.numpy(), rtol=0, atol=1e-9)
        np.testing.assert_array_equal(found.labels, eager.labels.numpy())
        total += len(found)
        others += len(dense(scores, boxes, replace(settings, nms_iou=0.6))) != len(eager)
    assert total > 50 and others > 0


# ---- the forms


def outputs_of(form, found, classes=3, rows=None):
    """What an artifact of this form gives that found these, float32, in their order; a dense one's boxes lie apart."""
    count = len(found)
    rows = count if rows is None else rows
    one_hot = np.zeros((count, classes), np.float32)
    one_hot[np.arange(count), found.labels] = found.scores
    boxes = found.boxes.astype(np.float32)
    if form == "dense":
        return {"scores": one_hot[None], "boxes": boxes[None]}
    if form == "onnx_nms":
        return {"boxes": boxes, "scores": found.scores.astype(np.float32), "labels": found.labels}
    if form == "coreml_nms":
        x1, y1, x2, y2 = found.boxes.T
        height, width = SIZE
        shares = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
        return {"confidence": one_hot, "coordinates": np.stack(shares, 1).astype(np.float32)}
    values = {"boxes": boxes[:, [1, 0, 3, 2]], "labels": found.labels, "scores": found.scores}
    padded = {}
    for name, value in values.items():
        padded[name] = np.full((1, rows, *value.shape[1:]), 0.99, np.float32)  # must not be read
        padded[name][0, :count] = value
    return padded | {"count": np.array([count], np.float32)}


def settings_of(form, **changes):
    return replace(SETTINGS, form=form, candidates=SETTINGS.candidates if form == "dense" else None, **changes)


APART = detections(
    [[1, 2, 11, 7], [40, 3, 61.5, 12.25], [5, 20, 8, 39], [30, 18, 50, 22]], [0.5, 0.875, 0.75, 0.375], [2, 0, 1, 0]
)


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_read(form):
    """By falling score, whatever order the outputs have; with rows and columns exchanged it is something else."""
    want = APART[[1, 2, 0, 3]]
    outputs = outputs_of(form, APART, rows=6)
    assert set(outputs) == set(OUTPUTS[form])
    found = read_detections(outputs, settings_of(form), SIZE)
    np.testing.assert_allclose(rows(found), rows(want), atol=1e-5)
    assert found.boxes.dtype == found.scores.dtype == np.float64 and found.labels.dtype == np.int64
    assert found.masks is None
    cut = read_detections(outputs, settings_of(form, max_detections=2), SIZE)
    np.testing.assert_array_equal(rows(cut), rows(found)[:2])
    name = "coordinates" if form == "coreml_nms" else "boxes"
    turned = read_detections(outputs | {name: outputs[name][..., [1, 0, 3, 2]]}, settings_of(form), SIZE)
    assert np.abs(turned.boxes - want.boxes).max() > 1


@pytest.mark.parametrize("form", FORMS)
def test_each_form_without_objects(form):
    found = read_detections(outputs_of(form, APART[:0], rows=4), settings_of(form), SIZE)
    assert (found.boxes.shape, found.scores.shape, found.labels.shape) == ((0, 4), (0,), (0,))


def test_of_equal_scores_the_first_stays_first():
    found = detections(APART.boxes, [0.5, 0.75, 0.5, 0.75], [0, 1, 2, 0])
    for form in FORMS:
        assert read_detections(outputs_of(form, found), settings_of(form), SIZE).labels.tolist() == [1, 0, 0, 2]


def test_core_ml_shares_are_of_width_and_height():
    outputs = {"confidence": np.array([[0.25, 0.5, 0.125]]), "coordinates": np.array([[0.5, 0.25, 0.25, 0.5]])}
    found = read_detections(outputs, settings_of("coreml_nms"), SIZE)
    assert rows(found).tolist() == [[0.5, 1, 24, 0, 40, 20]]
    other = read_detections(outputs, settings_of("coreml_nms"), SIZE[::-1])
    assert rows(other).tolist() == [[0.5, 1, 15, 0, 25, 32]]


def test_masks_go_with_their_boxes():
    masks = np.arange(4, dtype=np.float32)[:, None, None] / 4 + np.zeros((4, 28, 28), np.float32)
    outputs = outputs_of("onnx_nms", APART) | {"masks": masks, "proposals": np.full((5, 4), np.nan)}  # not read
    found = read_detections(outputs, settings_of("onnx_nms", max_detections=3), SIZE)
    assert found.masks.dtype == np.float64
    np.testing.assert_array_equal(found.masks, masks[[1, 2, 0]])


@pytest.mark.parametrize("form", FORMS)
def test_outputs_of_no_detector_are_one_line(form):
    outputs = outputs_of(form, APART)
    for name in OUTPUTS[form]:
        with pytest.raises(RunnerError, match=f"no output {name}; a detector of form {form} has it") as caught:
            read_detections({key: value for key, value in outputs.items() if key != name}, settings_of(form), SIZE)
        assert "\n" not in str(caught.value)
        if outputs[name].dtype == np.int64:
            continue
        for bad in (np.nan, np.inf):
            broken = outputs[name].copy()
            broken.flat[-1] = bad
            with pytest.raises(RunnerError, match=f"the artifact's {name} are not all finite") as caught:
                read_detections(outputs | {name: broken}, settings_of(form), SIZE)
            assert "\n" not in str(caught.value)


def test_masks_must_be_finite_too():
    outputs = outputs_of("onnx_nms", APART) | {"masks": np.full((4, 28, 28), np.nan)}
    with pytest.raises(RunnerError, match="the artifact's masks are not all finite"):
        read_detections(outputs, settings_of("onnx_nms"), SIZE)


def test_where_objects_are_chosen():
    assert [where_chosen(None, each) for each in (False, True)] == [None, None]
    assert [where_chosen(SETTINGS, each) for each in (False, True)] == ["none", "runner"]
    for form in FORMS[1:]:
        assert [where_chosen(settings_of(form), each) for each in (False, True)] == ["graph", "graph"]


# ---- matching


def expected(found, decided=None):
    return Expected(found, np.ones(len(found), bool) if decided is None else np.array(decided, bool))


def test_the_same_objects_match_whatever_their_order():
    random = np.random.default_rng(0)
    objects = detections(random_boxes(random, 30), np.sort(random.random(30))[::-1], random.integers(0, 3, 30))
    moved = Detections(objects.boxes + random.uniform(-0.1, 0.1, (30, 4)), objects.scores + 1e-6, objects.labels)
    first = match(moved, expected(objects), 0.7)
    assert first.is_complete and (first.found, first.missed, len(first.ious)) == (30, 0, 30)
    assert first.score_error == pytest.approx(1e-6)
    grown = (each.boxes + np.array([-1, -1, 1, 1]) for each in (moved, objects))
    exact = [slow_iou(a, b) for a, b in zip(*grown, strict=True)]
    np.testing.assert_allclose(first.ious, exact, rtol=1e-12)
    for seed in range(5):
        order, other = (np.random.default_rng([seed, i]).permutation(30) for i in (0, 1))
        again = match(moved[order], expected(objects[other]), 0.7)
        np.testing.assert_array_equal(again.ious, first.ious[order])
        np.testing.assert_array_equal(again.score_errors, first.score_errors[order])


def test_none_is_expected_twice():
    found = detections([[0, 0, 10, 10]] * 2, [0.9, 0.8], [0, 0])
    result = match(found, expected(found[:1]), 0.9)
    assert (result.found, result.missed, result.ious.tolist(), result.score_errors.tolist()) == (2, 0, [1], [0])
    assert not result.is_complete and result.score_error == 1
    assert match(found, expected(found), 0.9).is_complete


def test_another_class_is_another_object():
    found = detections([[0, 0, 10, 10]], [0.9], [0])
    result = match(found, expected(detections([[0, 0, 10, 10]], [0.9], [1])), 0.5)
    assert (result.found, result.missed, len(result.ious), result.score_error) == (1, 1, 0, 1.0)


def test_the_nearest_score_is_taken_not_the_largest_overlap():
    objects = detections([[0, 0, 10, 10], [0, 0, 10, 9.5]], [0.9, 0.5], [0, 0])
    result = match(detections([[0, 0, 10, 10]], [0.6], [0]), expected(objects), 0.8)
    np.testing.assert_allclose(result.score_errors, [0.1])
    np.testing.assert_allclose(result.ious, [12 * 11.5 / 144])  # of the second one, grown
    far = match(detections([[0, 0, 10, 10]], [0.6], [0]), expected(objects), 0.99)  # the second isn't near enough
    np.testing.assert_allclose(far.score_errors, [0.3])
    tied = match(detections([[0, 0, 10, 10]], [0.75], [0]), expected(replace_scores(objects, [1.0, 0.5])), 0.8)
    assert tied.ious.tolist() == [1.0]  # of equally near ones the first


def replace_scores(found, scores):
    return Detections(found.boxes, np.array(scores), found.labels, found.masks)


def test_the_limit_itself_matches():
    found, other = detections([[0, 0, 8, 8]], [0.5], [0]), detections([[0, 0, 8, 3]], [0.5], [0])
    assert match(found, expected(other), 0.5).ious.tolist() == [0.5]  # (8 + 2) x (3 + 2) of (8 + 2) x (8 + 2)
    assert not match(found, expected(other), np.nextafter(0.5, 1)).is_complete


def test_boxes_without_area_match_by_their_place():
    flat = detections([[0, 5, 0, 20]], [0.5], [0])
    assert overlaps(flat.boxes[0], flat.boxes).tolist() == [0]
    assert match(flat, expected(flat), 0.9).ious.tolist() == [1]
    moved = match(detections([[0, 5, 0.1, 20]], [0.5], [0]), expected(flat), 0.9)
    np.testing.assert_allclose(moved.ious, [2 * SLACK / (2 * SLACK + 0.1)])
    assert not match(detections([[0, 10, 0, 25]], [0.5], [0]), expected(flat), 0.9).is_complete


def test_only_decided_objects_are_missed():
    truth = expected(APART, [True, False, True, False])
    assert [match(APART[kept], truth, 0.9).missed for kept in ([0, 2], [2], [1, 3], [])] == [0, 1, 2, 2]
    assert match(APART[[0, 2]], truth, 0.9).is_complete
    assert match(APART[[0, 1, 2, 3]], truth, 0.9).is_complete
    assert not match(APART[[0]], truth, 0.9).is_complete


def test_nothing_found_and_nothing_expected():
    result = match(APART[:0], expected(APART[:0]), 0.9)
    assert result.is_complete and (result.score_error, len(result.mask_ious)) == (0.0, 0)
    assert match(APART[:0], expected(APART), 0.9).missed == 4
    assert match(APART, expected(APART[:0]), 0.9).found == 4


def test_masks_overlap():
    """Set from one half on: 28 x 14 against 28 x 7 of them, and nothing against nothing."""
    half, quarter, nothing = (np.full((28, 28), 0.49) for _ in range(3))
    half[:, :14], quarter[:, :7] = 0.5, 1.0
    assert mask_iou(half, quarter) == mask_iou(quarter, half) == 0.5
    assert (mask_iou(nothing, nothing), mask_iou(half, nothing), mask_iou(half, half)) == (1, 0, 1)
    pair = APART[[0, 1]]
    found = Detections(pair.boxes, pair.scores, pair.labels, np.stack([half, quarter]))
    truth = Detections(pair.boxes, pair.scores, pair.labels, np.stack([quarter, quarter]))
    assert match(found, expected(truth), 0.9).mask_ious.tolist() == [0.5, 1.0]
    assert match(found[[1, 0]], expected(truth), 0.9).mask_ious.tolist() == [1.0, 0.5]
    assert match(found, expected(pair), 0.9).mask_ious.tolist() == []


ROWS = {"scores": np.ones((1, 5, 2)), "boxes": np.ones((1, 5, 4))}
FOUND = {"boxes": np.ones((3, 4)), "scores": np.ones(3), "labels": np.ones(3)}
PADDED = {
    "boxes": np.ones((1, 5, 4)),
    "labels": np.ones((1, 5)),
    "scores": np.ones((1, 5)),
    "count": np.array([2.0]),
}
WHOLE = {"confidence": np.ones((3, 2)), "coordinates": np.ones((3, 4))}


@pytest.mark.parametrize(
    ("form", "outputs", "changes"),
    [
        ("dense", ROWS, {"scores": np.ones((5, 2))}),
        ("dense", ROWS, {"scores": np.ones((2, 5, 2))}),
        ("dense", ROWS, {"boxes": np.ones((1, 4, 4))}),
        ("onnx_nms", FOUND, {"scores": np.ones(2)}),
        ("onnx_nms", FOUND, {"labels": np.ones((3, 1))}),
        ("onnx_nms", FOUND, {"masks": np.ones((3, 14, 14))}),
        ("tflite_detection_postprocess", PADDED, {"count": np.array([-1.0])}),
        ("tflite_detection_postprocess", PADDED, {"count": np.array([6.0])}),
        ("tflite_detection_postprocess", PADDED, {"labels": np.ones((1, 4))}),
        ("coreml_nms", WHOLE, {"coordinates": np.ones((2, 4))}),
        ("coreml_nms", WHOLE, {"confidence": np.ones(3)}),
    ],
)
def test_outputs_that_do_not_belong_together_are_refused(form, outputs, changes):
    settings = Detection(form, 0.5, 0.5, 10, 100 if form == "dense" else None)
    assert len(read_detections(outputs, settings, (8, 8))) > 0
    with pytest.raises(RunnerError, match=f"these are not a detector's outputs of form {form}$"):
        read_detections(outputs | changes, settings, (8, 8))
