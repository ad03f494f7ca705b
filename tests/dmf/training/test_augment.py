"""Augmentation keeps shape and range and follows its generator; evaluation is the packages' preprocessing."""

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import dmf
from dmf.training.augment import MEAN, POLICY, STD, TrainTransform, crop_box, drawn_from, eval_transform, normalize
from dmf.training.config import AugmentConfig
from export.plan import input_spec, make_plan
from runtime.errors import UsageError
from runtime.preprocess import load_image, to_input

ALL = AugmentConfig(
    crop_scale=(0.08, 1.0),
    crop_ratio=(0.75, 4 / 3),
    flip=0.5,
    rand_augment_ops=2,
    rand_augment_magnitude=9,
    erase=0.25,
    invert=0.25,
)
OFF = AugmentConfig()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(width: int = 50, height: int = 40, seed: int = 0) -> Image.Image:
    """Smooth and coloured, unlike its mirror image."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def pixels(x: torch.Tensor) -> torch.Tensor:
    """Back to 0..1"""
    return x * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]


@pytest.mark.parametrize("size", [(64, 64), (200, 90), (31, 77)])
@pytest.mark.parametrize("crop", [64, 224])
def test_evaluation_is_the_packages_preprocessing(tmp_path, size, crop):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)).save(tmp_path / "x.png")
    spec = input_spec(make_plan(dmf.create_model("dmf_nano", image_size=crop), "onnx"), (crop, crop))
    expected = to_input(load_image(tmp_path / "x.png", spec)[None], spec)[0]
    given = eval_transform(Image.open(tmp_path / "x.png"), crop)
    assert given.dtype == torch.float32
    assert (given.numpy() == expected).all()
    other = replace(spec, interpolation="bilinear")
    assert (given.numpy() != to_input(load_image(tmp_path / "x.png", other)[None], other)[0]).any()


@pytest.mark.parametrize("size", [32, 64, 96])
def test_shape_and_range(size):
    transform = TrainTransform(replace(ALL, erase=0.0))
    least, most = 1.0, 0.0
    for seed in range(60):
        x = transform(picture(seed=seed), size, seeded(seed))
        assert x.shape == (3, size, size) and x.dtype == torch.float32
        least, most = min(least, pixels(x).min().item()), max(most, pixels(x).max().item())
    assert -1e-6 < least < 0.01 and 0.99 < most < 1 + 1e-6


@pytest.mark.parametrize("magnitude", [1, 9, 29])
@pytest.mark.parametrize("operation", POLICY, ids=lambda policy: policy[0][0])
def test_each_operation_keeps_shape_and_range(monkeypatch, operation, magnitude):
    monkeypatch.setattr("dmf.training.augment.POLICY", [operation])
    transform = TrainTransform(replace(OFF, rand_augment_ops=1, rand_augment_magnitude=magnitude))
    noise = Image.fromarray(np.random.default_rng(0).integers(20, 256, (40, 40, 3), np.uint8))
    plain = TrainTransform(OFF)(noise, 40, seeded(0))
    x = transform(noise, 40, seeded(0))
    assert x.shape == (3, 40, 40)
    assert pixels(x).min() > -1e-6 and pixels(x).max() < 1 + 1e-6
    assert (pixels(x) - pixels(plain)).abs().max() > 1e-3


def test_off_is_a_resize():
    x = TrainTransform(OFF)(picture(64, 64), 32, seeded(0))
    expected = np.asarray(picture(64, 64).resize((32, 32), Image.Resampling.BICUBIC)).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(pixels(x), expected, rtol=0, atol=1e-6)
    assert torch.equal(x, TrainTransform(OFF)(picture(64, 64), 32, seeded(1)))


def test_the_generator_alone_decides():
    transform = TrainTransform(ALL)
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 (kornia might draw from it)
    first = [transform(picture(), 32, seeded(i)) for i in range(8)]
    torch.manual_seed(2)
    random.seed(2)
    np.random.seed(2)  # noqa: NPY002
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    second = [TrainTransform(ALL)(picture(), 32, seeded(i)) for i in reversed(range(8))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, second[1:], strict=False))
    assert torch.equal(torch.get_rng_state(), states[0])  # and nothing is drawn elsewhere
    assert random.getstate() == states[1]
    assert (np.random.get_state()[1] == states[2]).all()  # noqa: NPY002


def test_rand_augment_picks_for_each_picture():
    """Distinct operations, all of them in time."""
    transform = TrainTransform(replace(OFF, rand_augment_ops=2, rand_augment_magnitude=9))
    assert transform.rand_augment is not None
    generator, picked = seeded(0), Counter()
    for _ in range(150):
        drawn_from(generator, transform.rand_augment, torch.rand(3, 8, 8, generator=generator))
        names = [param.name for param in transform.rand_augment._params]
        assert len(set(names)) == 2
        picked.update(names)
    assert len(picked) == len(POLICY)
    assert max(picked.values()) < 45  # 20 expected


@pytest.mark.parametrize("axis", ["x", "y"])
@pytest.mark.parametrize("magnitude", [6, 15, 29])
def test_shear_has_the_papers_strength(monkeypatch, axis, magnitude):
    """A straight line becomes one of slope 0.3 m / 30, of either sign."""
    monkeypatch.setattr("dmf.training.augment.POLICY", [[(f"shear_{axis}", *_range(f"shear_{axis}"))]])
    transform = TrainTransform(replace(OFF, rand_augment_ops=1, rand_augment_magnitude=magnitude))
    line = np.zeros((65, 65, 3), np.uint8)
    if axis == "x":
        line[:, 32] = 255
    else:
        line[32] = 255
    slopes = []
    for seed in range(8):
        x = pixels(transform(Image.fromarray(line), 65, seeded(seed)))[0]
        rows = (x if axis == "x" else x.T)[16:49]
        centres = (rows * torch.arange(65)).sum(1) / rows.sum(1)
        slopes.append(np.polyfit(np.arange(33), centres, 1)[0])
    expected = 0.3 * magnitude / 30  # the angle is what kornia scales, hence not quite linear
    np.testing.assert_allclose(np.abs(slopes), expected, rtol=0.06)
    assert min(slopes) < 0 < max(slopes)
    assert abs(np.tan(np.radians(0.3 * 180 * magnitude / 30)) - expected) > 0.5 * expected  # kornia's own range


def _range(name: str) -> tuple[float, float]:
    return next(policy[0][1:] for policy in POLICY if policy[0][0] == name)


@pytest.mark.parametrize("axis", ["x", "y"])
def test_translation_is_a_share_of_the_side(monkeypatch, axis):
    monkeypatch.setattr("dmf.training.augment.POLICY", [[(f"translate_{axis}", *_range(f"translate_{axis}"))]])
    transform = TrainTransform(replace(OFF, rand_augment_ops=1, rand_augment_magnitude=15))
    dot = np.zeros((80, 80, 3), np.uint8)
    dot[40, 40] = 255
    found = {divmod(int(transform(Image.fromarray(dot), 80, seeded(i))[0].argmax()), 80) for i in range(8)}
    assert found == ({(40, 36), (40, 44)} if axis == "x" else {(36, 40), (44, 40)})  # 0.1 * 15 / 30 of 80


def test_crop_boxes_have_the_share_and_ratio_asked_for():
    generator = seeded(0)
    boxes = np.array([crop_box(500, 375, (0.08, 0.5), (0.75, 4 / 3), generator) for _ in range(2000)])
    left, top, right, bottom = boxes.T
    assert left.min() >= 0 and top.min() >= 0 and right.max() <= 500 and bottom.max() <= 375
    share, ratio = (right - left) * (bottom - top) / (500 * 375), (right - left) / (bottom - top)
    assert 0.08 <= share.min() < 0.09 and 0.49 < share.max() <= 0.5 + 1e-9
    assert 0.75 - 1e-9 <= ratio.min() < 0.77 and 1.3 < ratio.max() <= 4 / 3 + 1e-9
    # uniform: the means of share, log ratio and of where the box lies between its ends, each within 4 standard errors
    for values, low, high in (
        (share, 0.08, 0.5),
        (np.log(ratio), np.log(0.75), np.log(4 / 3)),
        (left / (500 - right + left), 0, 1),
        (top / (375 - bottom + top), 0, 1),
    ):
        error = (high - low) / 12**0.5 / 2000**0.5
        assert abs(values.mean() - (low + high) / 2) < 4 * error
        assert abs((values**2).mean() - (low + high) / 2) > 4 * error


def test_crop_of_a_panorama_is_the_largest_in_the_centre():
    assert crop_box(1000, 100, (0.9, 1.0), (0.75, 1.25), seeded(0)) == (437.5, 0, 562.5, 100)
    assert crop_box(100, 1000, (0.9, 1.0), (0.8, 1.25), seeded(0)) == (0, 437.5, 100, 562.5)
    assert crop_box(1000, 100, (0.01, 0.02), (0.75, 1.25), seeded(0)) != (437.5, 0, 562.5, 100)
    assert crop_box(64, 64, (1.0, 1.0), (1.0, 1.0), seeded(0)) == (0, 0, 64, 64)


def test_the_crop_is_what_is_seen():
    """On a ramp, the mean of the crop is the ramp at the box's centre."""
    ramp = Image.fromarray(np.repeat(np.tile(np.arange(200, dtype=np.uint8), (100, 1))[..., None], 3, 2))
    config = replace(OFF, crop_scale=(0.1, 0.3), crop_ratio=(0.5, 2.0))
    transform, centres = TrainTransform(config), []
    for seed in range(20):
        left, _, right, _ = crop_box(200, 100, (0.1, 0.3), (0.5, 2.0), seeded(seed))
        centres.append((left + right) / 2)
        mean = pixels(transform(ramp, 32, seeded(seed))).mean().item() * 255
        assert abs(mean - (centres[-1] - 0.5)) < 1
    assert np.ptp(centres) > 50


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("field", ["flip", "invert", "erase"])
def test_probabilities(field, probability):
    transform, source = TrainTransform(replace(OFF, **{field: probability})), picture(24, 24)
    plain = TrainTransform(OFF)(source, 24, seeded(0))
    changed = 0
    for seed in range(200):
        x = transform(source, 24, seeded(seed))
        if torch.equal(x, plain):
            continue
        changed += 1
        if field == "flip":
            assert torch.equal(x, plain.flip(2))
        elif field == "invert":
            torch.testing.assert_close(pixels(x), 1 - pixels(plain), rtol=0, atol=1e-6)
        else:
            erased = (x != plain).any(0)
            rows, columns = erased.any(1), erased.any(0)
            assert (x[:, erased] == 0).all()
            assert erased.sum() == rows.sum() * columns.sum() <= 0.5 * 24 * 24  # one box, 0.02 to 0.33 but for rounding
    assert abs(changed / 200 - probability) <= 4 * (probability * (1 - probability) / 200) ** 0.5


def test_erasing_is_per_picture():
    transform = TrainTransform(replace(OFF, erase=1.0))
    boxes = {tuple((transform(picture(), 32, seeded(i)) == 0).all(0).nonzero()[0].tolist()) for i in range(10)}
    assert len(boxes) > 5


def test_normalize_is_the_closed_form():
    x = torch.rand(3, 4, 5, generator=seeded(0))
    expected = [(x[c].double() - MEAN[c]) / STD[c] for c in range(3)]
    np.testing.assert_allclose(normalize(x), torch.stack(expected), rtol=0, atol=1e-6)
    assert (normalize(x.flip(0)).flip(0) - torch.stack(expected)).abs().max() > 0.01


@pytest.mark.parametrize(("ops", "magnitude"), [(2, 0), (2, 30), (16, 9)])
def test_rand_augment_that_kornia_does_not_take(ops, magnitude):
    with pytest.raises(UsageError, match=rf"rand_augment_ops is {ops}, rand_augment_magnitude {magnitude}: "):
        TrainTransform(replace(OFF, rand_augment_ops=ops, rand_augment_magnitude=magnitude))
