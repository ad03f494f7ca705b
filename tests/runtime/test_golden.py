"""Golden vectors survive the round trip, and nothing else is taken for them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from runtime.errors import UsageError
from runtime.golden import Golden, Taps, read_golden, write_golden

IMAGES = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
LOGITS = np.random.default_rng(0).standard_normal((2, 10))
BUDGETS = np.array([0.1, 0.2])
TAPS = Taps(
    ("stem", "blocks.0.ffn", "head"),
    (("conv",), ("12", "13"), ("logits",)),
    np.random.default_rng(1).standard_normal((3, 2, 64)).astype(np.float32),
    np.random.default_rng(2).random((3, 2)),
    ("a.fused.one",),
)


def test_round_trip(tmp_path):
    path = tmp_path / "golden.safetensors"
    images = IMAGES[:, :, ::-1]  # not contiguous
    write_golden(path, Golden(images, LOGITS, BUDGETS, ("noise", "photograph: café")))
    golden = read_golden(path)
    np.testing.assert_array_equal(golden.images, images)
    np.testing.assert_array_equal(golden.logits, LOGITS)
    np.testing.assert_array_equal(golden.budgets, BUDGETS)
    assert (golden.images.dtype, golden.logits.dtype) == (np.uint8, np.float64)
    assert golden.names == ("noise", "photograph: café")
    assert golden.taps is None


def test_round_trip_of_taps(tmp_path):
    path = tmp_path / "golden.safetensors"
    write_golden(path, Golden(IMAGES, LOGITS, BUDGETS, ("a", "b"), taps=TAPS))
    taps = read_golden(path).taps
    assert taps is not None
    assert (taps.modules, taps.tensors, taps.untapped) == (TAPS.modules, TAPS.tensors, TAPS.untapped)
    np.testing.assert_array_equal(taps.sketches, TAPS.sketches)
    np.testing.assert_array_equal(taps.budgets, TAPS.budgets)


def test_the_documented_layout(tmp_path):
    """As an app reads it."""
    path = tmp_path / "golden.safetensors"
    write_golden(path, Golden(IMAGES, LOGITS, BUDGETS, ("a", "b"), LOGITS, TAPS))
    with safe_open(path, framework="numpy") as file:
        layout = {name: (str(file.get_tensor(name).dtype), file.get_tensor(name).shape) for name in file.keys()}  # noqa: SIM118
        metadata = {key: json.loads(value) for key, value in file.metadata().items()}
    assert layout == {
        "images": ("uint8", (2, 4, 5, 3)),
        "logits": ("float64", (2, 10)),
        "budgets": ("float64", (2,)),
        "frozen_logits": ("float64", (2, 10)),
        "module_sketches": ("float32", (3, 2, 64)),
        "module_budgets": ("float64", (3, 2)),
    }
    assert metadata == {
        "names": ["a", "b"],
        "modules": [
            {"module": "stem", "tensors": ["conv"]},
            {"module": "blocks.0.ffn", "tensors": ["12", "13"]},
            {"module": "head", "tensors": ["logits"]},
        ],
        "untapped": ["a.fused.one"],
    }


@pytest.mark.parametrize(
    ("images", "logits", "budgets", "names", "message"),
    [
        (IMAGES.astype(np.float32), LOGITS, BUDGETS, ("a", "b"), "images must be uint8"),
        (IMAGES.transpose(0, 3, 1, 2), LOGITS, BUDGETS, ("a", "b"), "images must be uint8"),
        (IMAGES, LOGITS.astype(np.float32), BUDGETS, ("a", "b"), "logits must be float64"),
        (IMAGES, LOGITS[0], BUDGETS, ("a", "b"), "logits must be float64"),
        (IMAGES, LOGITS, BUDGETS[:1], ("a", "b"), "budgets must be float64"),
        (IMAGES, LOGITS, BUDGETS.astype(np.float32), ("a", "b"), "budgets must be float64"),
        (IMAGES, LOGITS, BUDGETS, ("a",), "as many"),
        (IMAGES[:0], LOGITS[:0], BUDGETS[:0], (), "at least one"),
    ],
)
def test_other_shapes_and_types_are_refused(images, logits, budgets, names, message):
    with pytest.raises(ValueError, match=message):
        Golden(images, logits, budgets, names)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sketches": TAPS.sketches[:, :, :63]}, "sketches must be float32"),
        ({"sketches": TAPS.sketches.astype(np.float64)}, "sketches must be float32"),
        ({"budgets": TAPS.budgets.T}, "budgets must be float64"),
        ({"modules": TAPS.modules[1:]}, "as many"),
        ({"tensors": TAPS.tensors[1:]}, "as many"),
    ],
)
def test_other_taps_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(TAPS, **changes)


def test_taps_of_other_images_are_refused():
    taps = replace(TAPS, sketches=TAPS.sketches[:, :1], budgets=TAPS.budgets[:, :1])
    with pytest.raises(ValueError, match="sketches are of 1 images, not of 2"):
        Golden(IMAGES, LOGITS, BUDGETS, ("a", "b"), taps=taps)


def test_other_files_are_refused(tmp_path):
    garbage, nameless, not_json = tmp_path / "garbage", tmp_path / "nameless", tmp_path / "not_json"
    garbage.write_bytes(b"not safetensors")
    tensors = {"images": IMAGES, "logits": LOGITS, "budgets": BUDGETS}
    save_file(tensors, nameless)
    save_file(tensors, not_json, {"names": "a, b"})
    for path in (garbage, nameless, not_json, tmp_path / "missing"):
        with pytest.raises(UsageError, match="not golden vectors"):
            read_golden(path)
