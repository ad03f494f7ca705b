"""Digits on photographs: what is pasted where is known to the pixel, and nothing is in both splits."""

import numpy as np
import pytest
import torch
from torch import Generator

from dmf.detection import digits
from dmf.detection.digits import COVERED, DigitScenes, box_of, colour, covered, digit_scenes, free_place, glyph
from dmf.training.data import Digits
from runtime.errors import UsageError

SIZE = (96, 128)


@pytest.fixture(scope="module")
def splits():
    return digit_scenes(SIZE, 10, 40, 0.2, 0)


def scene(examples, index, seed=0):
    picture, target = examples.example(index, Generator().manual_seed(seed))
    return np.asarray(picture), target.boxes.numpy(), target.labels.numpy(), target.masks.numpy()


def test_what_is_held_out_is_always_the_same(splits):
    again, other = digit_scenes(SIZE, 10, 40, 0.2, 0).heldout, digit_scenes(SIZE, 10, 40, 0.2, 1).heldout
    for i in (0, 7):
        for a, b in zip(scene(splits.heldout, i), scene(again, i, seed=3), strict=True):
            np.testing.assert_array_equal(a, b)
        assert (scene(splits.heldout, i)[0] != scene(other, i)[0]).any()
        assert (scene(splits.heldout, i)[0] != scene(splits.heldout, i + 1)[0]).any()


def test_what_is_trained_on_follows_from_the_generator(splits):
    for a, b in zip(scene(splits.train, 0, seed=5), scene(splits.train, 3, seed=5), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (scene(splits.train, 0, seed=5)[0] != scene(splits.train, 0, seed=6)[0]).any()
    with pytest.raises(ValueError, match="drawn anew each time"):
        splits.train.truth(0)


def test_nothing_is_in_both_splits(splits):
    pictures = [{p.tobytes() for p in part.digits.pixels} for part in splits]
    assert not pictures[0] & pictures[1]
    assert [len(part.digits) for part in splits] == [1437, 360]
    photographs = [{p.tobytes() for p in part.photographs} for part in splits]
    assert not photographs[0] & photographs[1]
    assert [len(part) for part in photographs] == [len(digits.TRAIN_PHOTOGRAPHS), len(digits.HELDOUT_PHOTOGRAPHS)]
    assert all(p.ndim == 3 and p.dtype == np.uint8 for part in splits for p in part.photographs)


def slow_box(mask):
    places = [(x, y) for y in range(mask.shape[0]) for x in range(mask.shape[1]) if mask[y, x]]
    xs, ys = zip(*places, strict=True)
    return [min(xs), min(ys), max(xs) + 1, max(ys) + 1]


def test_boxes_are_the_tightest_around_the_masks(splits):
    for i in range(8):
        pixels, boxes, labels, masks = scene(splits.heldout, i)
        assert pixels.shape == (*SIZE, 3) and masks.shape == (len(boxes), *SIZE) and len(labels) == len(boxes)
        assert boxes.dtype == np.float32 and masks.dtype == bool
        assert masks.sum(0).max(initial=0) <= 1  # a pixel is of one digit, the one on top
        for box, mask in zip(boxes, masks, strict=True):
            assert box.tolist() == slow_box(mask)
            assert box.tolist() != slow_box(np.roll(mask, 1, 1))


def test_masks_are_where_the_picture_is_not_the_photograph(splits):
    """Against the photograph that was painted on."""
    seen = 0
    for i in range(20):
        pixels, _, _, masks = scene(splits.heldout, i)
        rng = np.random.default_rng([0, False, i])
        photographs = splits.heldout.photographs
        bare = digits.background(photographs[int(rng.integers(len(photographs)))], SIZE, rng)
        changed = (pixels != bare).any(2)
        difference = np.abs(pixels.astype(float).mean(2) - bare.astype(float).mean(2))
        near = np.zeros(SIZE, bool)
        for mask in masks:  # the blurred edge of a stroke stays in the digit's box, but for what another one covers
            x1, y1, x2, y2 = slow_box(mask)
            near[max(y1 - 3, 0) : y2 + 3, max(x1 - 3, 0) : x2 + 3] = True
        assert (changed & ~near).sum() <= 20
        for mask in masks:
            seen += 1
            assert changed[mask].mean() > 0.95
            assert difference[mask].mean() > 20
            elsewhere = np.roll(mask, (SIZE[0] // 2, SIZE[1] // 2), (0, 1)) & ~near
            assert not elsewhere.any() or changed[elsewhere].mean() < 0.05
    assert seen > 30


def test_labels_are_the_digits():
    """Solid squares and rings, told apart by how much of their box they fill."""
    y, x = np.mgrid[:64, :64]
    inside = (abs(x - 31.5) < 20) & (abs(y - 31.5) < 20)
    ring = inside & ~((abs(x - 31.5) < 13) & (abs(y - 31.5) < 13))
    shapes = Digits(np.stack([inside, ring]).astype(np.uint8) * 255, [4, 7])
    scenes = DigitScenes(shapes, [np.full((200, 200, 3), 120, np.uint8)], 40, SIZE, 0, False)
    labels, rings = [], []
    for i in range(40):
        _, boxes, found, masks = scene(scenes, i)
        labels += found.tolist()
        sides = boxes[:, 2:] - boxes[:, :2]
        rings += (masks.sum((1, 2)) < 0.7 * sides.prod(1)).tolist()
    expected = [label == 7 for label in labels]
    assert 0.3 < np.mean(expected) < 0.7
    agreement = np.mean(np.equal(rings, expected))
    assert agreement > 0.85 > 0.65 > np.mean(np.equal(rings, np.roll(expected, 1)))


def test_numbers_and_sizes_of_digits(splits):
    counts, heights = [], []
    for i in range(40):
        boxes = scene(splits.heldout, i)[1]
        counts.append(len(boxes))
        heights += (boxes[:, 3] - boxes[:, 1]).tolist()
    assert min(counts) == 0 and max(counts) >= 5
    assert 0.9 * digits.HEIGHTS[0] * 96 - 4 <= min(heights) < 25 < 40 < max(heights) <= digits.HEIGHTS[1] * 96 + 1


def test_truth_is_the_target(splits):
    from pycocotools.mask import decode

    for i in (0, 2, 5):
        _, boxes, labels, masks = scene(splits.heldout, i)
        truth = splits.heldout.truth(i)
        np.testing.assert_array_equal(truth.boxes, boxes)
        np.testing.assert_array_equal(truth.labels, labels)
        np.testing.assert_array_equal(truth.areas, masks.sum((1, 2)))
        assert not truth.crowds.any()
        for code, mask in zip(truth.masks, masks, strict=True):
            np.testing.assert_array_equal(decode(code), mask)
    assert truth.boxes.dtype == np.float64 and len(truth.boxes)


def test_a_picture_without_digits(splits):
    index = next(i for i in range(40) if len(scene(splits.heldout, i)[1]) == 0)
    _, boxes, labels, masks = scene(splits.heldout, index)
    assert boxes.shape == (0, 4) and labels.shape == (0,) and masks.shape == (0, *SIZE)
    truth = splits.heldout.truth(index)
    assert truth.boxes.shape == (0, 4) and truth.masks == []


def test_backgrounds_to_train_on_are_many():
    """From one grey photograph: with colours, and, blended with another, unlike any crop of it; those held out not."""
    one = np.random.default_rng(0).integers(0, 256, (150, 150, 1), np.uint8).repeat(3, 2)
    shapes = Digits(np.full((1, 64, 64), 255, np.uint8), [0])

    def coloured(fresh):
        scenes = DigitScenes(shapes, [one], 40, SIZE, 0, fresh)
        empty = [pixels for pixels, boxes, _, _ in (scene(scenes, i, seed=i) for i in range(40)) if not len(boxes)]
        return [bool((pixels != pixels[..., :1]).any()) for pixels in empty]

    assert any(coloured(True)) and not all(coloured(True))
    assert coloured(False) and not any(coloured(False))


def test_blended_and_recoloured():
    rng = np.random.default_rng(0)
    black, white = np.zeros((*SIZE, 3), np.uint8), np.full((*SIZE, 3), 255, np.uint8)
    for _ in range(5):
        mixed = digits.blend(black, white, rng)
        assert mixed.shape == (*SIZE, 3) and mixed.dtype == np.uint8
        assert (mixed == mixed[..., :1]).all()
        np.testing.assert_allclose(digits.blend(white, white, rng), 255)
        changed = digits.recolour(mixed, rng)
        assert changed.shape == mixed.shape and changed.dtype == np.uint8 and (changed != mixed).any()


def test_pieces():
    rng = np.random.default_rng(0)
    assert covered((0, 0, 10, 10), (5, 5, 25, 25)) == 0.25 == covered((5, 5, 25, 25), (0, 0, 10, 10))
    assert covered((0, 0, 10, 10), (10, 0, 20, 10)) == 0
    boxes = [(0, 0, 30, 60)]
    for _ in range(20):
        place = free_place((30, 30), (60, 60), boxes, rng)
        assert place is None or covered(place, boxes[0]) <= COVERED
        assert place is None or (min(place) >= 0 and max(place) <= 60)
    assert free_place((60, 60), (60, 60), boxes, rng) is None
    for level in (0, 100, 128, 255):
        assert abs(colour(np.full((4, 4, 3), level, np.uint8), rng).mean() - level) >= digits.CONTRAST
    cell = np.zeros((64, 64), np.uint8)
    cell[10:50, 20:40] = 255
    alpha = glyph(cell, 25, rng)
    assert alpha.min() >= 0 and alpha.max() == 1 and box_of(alpha > 0.5) == (0, 0, alpha.shape[1], alpha.shape[0])
    assert 20 <= alpha.shape[0] <= 25


def test_refused():
    with pytest.raises(UsageError, match=r"^scenes of 32 x 128 px are too small for digits; give at least 64 x 64$"):
        digit_scenes((32, 128), 10, 10, 0.2, 0)
    with pytest.raises(UsageError, match=r"^heldout_share is 0.001, which splits no digits"):
        digit_scenes(SIZE, 10, 10, 0.001, 0)


def test_a_batch_of_them(splits):
    from dmf.detection.data import DetectionTransform

    generator = Generator().manual_seed(0)
    samples = [splits.heldout.sample(i, DetectionTransform((), 1333, 0.0), 0, generator) for i in range(3)]
    images, known = splits.heldout.batch(samples)
    assert images.shape == (3, 3, 96, 128) and images.dtype == torch.float32
    assert [one.picture for one in known] == [0, 1, 2] and {one.scale_x for one in known} == {1.0}
