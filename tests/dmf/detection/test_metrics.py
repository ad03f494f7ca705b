"""COCO's average precision: against a slow one in plain Python; nothing, masks and crowds."""

import math

import numpy as np
import pytest
import torch
from pycocotools.mask import decode, encode

from dmf.detection.data import Annotated, Truth
from dmf.detection.instances import Detections, Target
from dmf.detection.metrics import AveragePrecision, Found, average_precision, found

CLASSES = 3


def truth(boxes, labels, areas=None, crowds=None, masks=None):
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    return Truth(
        boxes,
        np.array(labels, np.int64),
        sides.prod(1) if areas is None else np.array(areas, np.float64),
        np.zeros(len(boxes), bool) if crowds is None else np.array(crowds),
        masks,
    )


def guess(boxes, labels, scores, masks=None):
    return Found(np.array(boxes, np.float64).reshape(-1, 4), np.array(scores), np.array(labels, np.int64), masks)


def random_case(seed, pictures=12):
    """Objects, and detections near some of them, some of a wrong class, some of nothing."""
    rng = np.random.default_rng(seed)
    truths, guesses = {}, {}
    for i in range(3, 3 + pictures):
        count = rng.integers(0, 6)
        corners = rng.uniform(0, 300, (count, 2))
        boxes = np.hstack([corners, corners + np.exp(rng.uniform(2.5, 5.5, (count, 2)))])
        labels = rng.integers(0, CLASSES, count)
        truths[i] = truth(boxes, labels)
        moved = boxes + rng.normal(0, 0.06, boxes.shape) * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        stray = rng.uniform(0, 200, (2, 2))
        found_boxes = np.vstack([moved, moved + 2, np.hstack([stray, stray + 40])])
        wrong = rng.random(count) < 0.2
        found_labels = np.concatenate([np.where(wrong, (labels + 1) % CLASSES, labels), labels, [0, 1]])
        guesses[i] = guess(found_boxes, found_labels, rng.random(len(found_boxes)))
    return guesses, truths


def overlap(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def slow_ap(guesses, truths, threshold, smallest=0.0, largest=math.inf):
    """101 points of recall; objects of other sizes are nobody's fault, nor detections that match them or nothing."""
    per_class = []
    for label in range(CLASSES):
        ranked, objects = [], 0
        for i, one in truths.items():
            real = [j for j in range(len(one.labels)) if one.labels[j] == label]
            inside = {j: smallest <= one.areas[j] < largest for j in real}
            objects += sum(inside.values())
            taken = set()
            mine = guesses.get(i)
            order = [] if mine is None else [k for k in np.argsort(-mine.scores) if mine.labels[k] == label]
            for k in order:
                box = mine.boxes[k]
                best = None
                for group in (True, False):  # objects that count come first
                    for j in real:
                        free = inside[j] == group and j not in taken
                        least = threshold if best is None else overlap(box, one.boxes[best])
                        if free and overlap(box, one.boxes[j]) >= least:
                            best = j
                    if best is not None:
                        break
                area = (box[2] - box[0]) * (box[3] - box[1])
                if best is None:
                    if smallest <= area < largest:
                        ranked.append((mine.scores[k], False))
                else:
                    taken.add(best)
                    if inside[best]:
                        ranked.append((mine.scores[k], True))
        if not objects:
            continue
        ranked.sort(key=lambda pair: -pair[0])
        hits, curve = 0, []
        for n, (_, hit) in enumerate(ranked, 1):
            hits += hit
            curve.append((hits / objects, hits / n))
        points = [max((p for r, p in curve if r >= level), default=0.0) for level in np.linspace(0, 1, 101)]
        per_class.append(sum(points) / 101)
    return sum(per_class) / len(per_class) if per_class else math.nan


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_against_a_slow_one(seed):
    guesses, truths = random_case(seed)
    got = average_precision(guesses, truths, CLASSES)
    steps = [0.5 + 0.05 * k for k in range(10)]
    expected = AveragePrecision(
        sum(slow_ap(guesses, truths, t) for t in steps) / 10,
        slow_ap(guesses, truths, 0.5),
        slow_ap(guesses, truths, 0.75),
        sum(slow_ap(guesses, truths, t, 0, 32**2) for t in steps) / 10,
        sum(slow_ap(guesses, truths, t, 32**2, 96**2) for t in steps) / 10,
        sum(slow_ap(guesses, truths, t, 96**2) for t in steps) / 10,
    )
    np.testing.assert_allclose(got, expected, atol=1e-9)
    assert 0.05 < got.ap < got.ap50 < 0.95
    for name, change in (
        ("moved", lambda one: one._replace(boxes=one.boxes + 15)),
        ("other class", lambda one: one._replace(labels=(one.labels + 1) % CLASSES)),
        ("reversed", lambda one: one._replace(scores=1 - one.scores)),
    ):
        changed = average_precision({i: change(one) for i, one in guesses.items()}, truths, CLASSES)
        assert abs(changed.ap - got.ap) > 1e-3, name


def test_everything_found():
    _, truths = random_case(0)
    perfect = {i: guess(one.boxes, one.labels, np.ones(len(one.labels))) for i, one in truths.items()}
    assert average_precision(perfect, truths, CLASSES).ap == pytest.approx(1)
    # the very first annotation counts: pycocotools takes id 0 for no match
    first = {0: truth([[0, 0, 50, 50]], [0])}
    assert average_precision({0: guess([[0, 0, 50, 50]], [0], [0.9])}, first, 1).ap == pytest.approx(1)
    assert average_precision({0: guess([[0, 0, 50, 50]], [1], [0.9])}, first, 2).ap == 0


def test_nothing():
    objects = {1: truth([[0, 0, 20, 20]], [0]), 2: truth([], [])}
    nothing = guess([], [], [])
    for guesses in ({}, {1: nothing, 2: nothing}):
        found_none = average_precision(guesses, objects, CLASSES)
        assert found_none[:4] == (0, 0, 0, 0)
        assert math.isnan(found_none.medium) and math.isnan(found_none.large)
    empty = average_precision({2: guess([[0, 0, 5, 5]], [0], [0.5])}, {2: truth([], [])}, CLASSES)
    assert all(math.isnan(v) for v in empty)


def test_crowds_count_neither_way():
    inside = guess([[0, 0, 40, 40], [60, 60, 90, 90]], [0, 0], [0.9, 0.8])
    boxes, labels = [[0, 0, 100, 50], [60, 60, 90, 90]], [0, 0]
    crowd = average_precision({0: inside}, {0: truth(boxes, labels, crowds=[True, False])}, 1)
    alone = average_precision({0: inside}, {0: truth(boxes, labels)}, 1)
    assert crowd.ap == pytest.approx(1) and alone.ap < 0.6


def test_thousands_of_objects():
    corners = np.stack(np.meshgrid(np.arange(60) * 10.0, np.arange(50) * 10.0), -1).reshape(-1, 2)
    many = truth(np.hstack([corners, corners + 8]), np.zeros(3000))
    everything = {0: guess(many.boxes, many.labels, np.linspace(1, 0.5, 3000))}
    assert average_precision(everything, {0: many}, 1).ap50 == pytest.approx(100 / 3000, abs=0.01)  # it looks at 100


def test_masks_are_measured_by_their_pixels():
    def code(mask):
        return encode(np.asfortranarray(mask.astype(np.uint8)))

    left, right = np.zeros((2, 40, 40), bool)
    left[:, :20], right[:, 20:] = True, True
    box = [[0, 0, 40, 40]]
    truths = {0: truth(box, [0], areas=[800], masks=[code(left)])}
    right_pixels = {0: guess(box, [0], [1.0], [code(left)])}
    wrong_pixels = {0: guess(box, [0], [1.0], [code(right)])}
    assert average_precision(right_pixels, truths, 1, "segm").ap == pytest.approx(1)
    assert average_precision(wrong_pixels, truths, 1, "segm").ap == 0
    assert average_precision(wrong_pixels, truths, 1).ap == pytest.approx(1)  # the boxes are the same
    with pytest.raises(ValueError, match="detections or annotations have none"):
        average_precision({0: guess(box, [0], [1.0])}, truths, 1, "segm")
    with pytest.raises(ValueError, match="detections in picture 5, of which no truth is given"):
        average_precision({5: guess(box, [0], [1.0])}, truths, 1)


def test_back_into_the_picture():
    """An image of 20 x 40 px in a batch of 32 x 64, scaled by 0.5 from a picture of 40 x 80."""
    nothing = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    about = Annotated(nothing, 0, 20, 40, 0.5, 0.5)
    mask = torch.zeros(1, 32, 64, dtype=torch.bool)
    mask[0, 4:10, 8:30] = True
    mask[0, 25:, 50:] = True  # in the padding
    one = found(Detections(torch.tensor([[4.0, 3.0, 50.0, 30.0]]), torch.tensor([0.5]), torch.tensor([2]), mask), about)
    np.testing.assert_allclose(one.boxes, [[8, 6, 80, 40]])
    assert one.scores.tolist() == [0.5] and one.labels.tolist() == [2]
    expected = np.zeros((40, 80), bool)
    expected[8:20, 16:60] = True
    np.testing.assert_array_equal(decode(one.masks[0]), expected)
    none = found(Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64)), about)
    assert none.boxes.shape == (0, 4) and none.masks is None
