"""Golden vectors survive the round trip, and nothing else is taken for them."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from runtime.errors import UsageError
from runtime.golden import Golden, read_golden, write_golden

IMAGES = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
LOGITS = np.random.default_rng(0).standard_normal((2, 10))


def test_round_trip(tmp_path):
    path = tmp_path / "golden.safetensors"
    images = IMAGES[:, :, ::-1]  # not contiguous
    write_golden(path, Golden(images, LOGITS, ("noise", "photograph: café")))
    golden = read_golden(path)
    np.testing.assert_array_equal(golden.images, images)
    np.testing.assert_array_equal(golden.logits, LOGITS)
    assert (golden.images.dtype, golden.logits.dtype) == (np.uint8, np.float64)
    assert golden.names == ("noise", "photograph: café")


@pytest.mark.parametrize(
    ("images", "logits", "names", "message"),
    [
        (IMAGES.astype(np.float32), LOGITS, ("a", "b"), "images must be uint8"),
        (IMAGES.transpose(0, 3, 1, 2), LOGITS, ("a", "b"), "images must be uint8"),
        (IMAGES, LOGITS.astype(np.float32), ("a", "b"), "logits must be float64"),
        (IMAGES, LOGITS[0], ("a", "b"), "logits must be float64"),
        (IMAGES, LOGITS, ("a",), "as many"),
        (IMAGES[:0], LOGITS[:0], (), "at least one"),
    ],
)
def test_other_shapes_and_types_are_refused(images, logits, names, message):
    with pytest.raises(ValueError, match=message):
        Golden(images, logits, names)


def test_other_files_are_refused(tmp_path):
    garbage, nameless = tmp_path / "garbage", tmp_path / "nameless"
    garbage.write_bytes(b"not safetensors")
    save_file({"images": IMAGES, "logits": LOGITS}, nameless)
    for path in (garbage, nameless, tmp_path / "missing"):
        with pytest.raises(UsageError, match="not golden vectors"):
            read_golden(path)
