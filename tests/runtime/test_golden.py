"""Golden vectors survive the round trip, and nothing else is taken for them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from runtime.detections import Detections, Expected
from runtime.errors import UsageError
from runtime.golden import Golden, GoldenObjects, Taps, read_golden, write_golden

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


def objects(count, seed, masks=False):
    """Random ones, every other decided."""
    random = np.random.default_rng(seed)
    found = Detections(
        random.uniform(0, 30, (count, 4)),
        random.random(count),
        random.integers(0, 9, count),
        random.random((count, 28, 28)) if masks else None,
    )
    return Expected(found, np.arange(count) % 2 == 0)


def golden_objects(masks=False, **changes):
    """Two and three objects, and none in between."""
    random = np.random.default_rng(3)
    whole = GoldenObjects(
        np.concatenate([IMAGES, IMAGES[:1]]),
        ("a", "b: café", "c"),
        tuple(objects(count, count, masks) for count in (2, 0, 3)),
        0.9,
        random.random(3),
        ("scores", "boxes"),
        random.standard_normal((2, 3, 64)).astype(np.float32),
        random.random((2, 3)),
    )
    return replace(whole, **changes)


@pytest.mark.parametrize("masks", [False, True])
def test_round_trip_of_objects(tmp_path, masks):
    """Of a mask, what is set is kept."""
    path, written = tmp_path / "golden.safetensors", golden_objects(masks)
    write_golden(path, written)
    golden = read_golden(path)
    assert isinstance(golden, GoldenObjects)
    assert (golden.names, golden.iou, golden.outputs, golden.taps) == (written.names, 0.9, ("scores", "boxes"), None)
    for name in ("images", "score_budgets", "sketches", "budgets"):
        np.testing.assert_array_equal(getattr(golden, name), getattr(written, name))
    for read, kept in zip(golden.expected, written.expected, strict=True):
        for name in ("boxes", "scores", "labels"):
            found, given = getattr(read.objects, name), getattr(kept.objects, name)
            assert (found.shape, found.dtype) == (given.shape, given.dtype)
            np.testing.assert_array_equal(found, given)
        assert read.decided.dtype == np.bool_
        np.testing.assert_array_equal(read.decided, kept.decided)
        if masks:
            assert read.objects.masks.dtype == np.float64
            np.testing.assert_array_equal(read.objects.masks, kept.objects.masks >= 0.5)
        else:
            assert read.objects.masks is None


def test_round_trip_without_any_object_nor_output(tmp_path):
    """As of a graph that suppresses, and of taps."""
    path = tmp_path / "golden.safetensors"
    nothing = {"expected": (objects(0, 0),) * 3, "outputs": (), "sketches": np.zeros((0, 3, 64), np.float32)}
    sketches = np.concatenate([TAPS.sketches, TAPS.sketches[:, :1]], 1)
    taps = replace(TAPS, sketches=sketches, budgets=np.ones((3, 3)))
    write_golden(path, golden_objects(**nothing, budgets=np.zeros((0, 3)), taps=taps))
    golden = read_golden(path)
    assert [each.objects.boxes.shape for each in golden.expected] == [(0, 4)] * 3
    assert (golden.outputs, golden.sketches.shape, golden.budgets.shape) == ((), (0, 3, 64), (0, 3))
    assert golden.taps.modules == TAPS.modules
    np.testing.assert_array_equal(golden.taps.sketches, sketches)


@pytest.mark.parametrize("masks", [False, True])
def test_the_documented_layout_of_objects(tmp_path, masks):
    """As an app reads it: rows of one length, whose labels are -1 where there is no object."""
    path, written = tmp_path / "golden.safetensors", golden_objects(masks)
    write_golden(path, written)
    with safe_open(path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = {key: json.loads(value) for key, value in file.metadata().items()}
    layout = {
        "images": ("uint8", (3, 4, 5, 3)),
        "object_boxes": ("float64", (3, 3, 4)),
        "object_scores": ("float64", (3, 3)),
        "object_labels": ("int64", (3, 3)),
        "object_decided": ("uint8", (3, 3)),
        "score_budgets": ("float64", (3,)),
        "output_sketches": ("float32", (2, 3, 64)),
        "output_budgets": ("float64", (2, 3)),
    }
    layout |= {"object_masks": ("uint8", (3, 3, 28, 28))} if masks else {}
    assert {name: (str(tensor.dtype), tensor.shape) for name, tensor in tensors.items()} == layout
    assert metadata == {"names": ["a", "b: café", "c"], "iou": 0.9, "outputs": ["scores", "boxes"]}
    first, _, last = (each.objects for each in written.expected)
    assert tensors["object_labels"].tolist() == [[*first.labels, -1], [-1, -1, -1], last.labels.tolist()]
    assert tensors["object_decided"].tolist() == [[1, 0, 0], [0, 0, 0], [1, 0, 1]]
    np.testing.assert_array_equal(tensors["object_boxes"][0, :2], first.boxes)
    np.testing.assert_array_equal(tensors["object_scores"][2], last.scores)
    if masks:
        assert set(np.unique(tensors["object_masks"])) == {0, 1}
        np.testing.assert_array_equal(tensors["object_masks"][2], np.round(last.masks))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": IMAGES.astype(np.float32)}, "images must be uint8"),
        ({"names": ("a", "b")}, "3 images and 2 names must be as many"),
        ({"images": IMAGES[:0], "names": ()}, "at least one"),
        ({"expected": (objects(1, 0),) * 2}, "3 images have the objects of 2, 3 budgets"),
        ({"score_budgets": np.zeros(4)}, "3 images have the objects of 3, 4 budgets"),
        ({"outputs": ("scores",)}, r"sketches must be float32 \(O, 3, 64\)"),
        ({"sketches": np.zeros((2, 3, 63), np.float32)}, "sketches must be float32"),
        ({"sketches": np.zeros((2, 2, 64), np.float32)}, "sketches must be float32"),
        ({"sketches": np.zeros((2, 3, 64))}, "sketches must be float32"),
        ({"budgets": np.zeros((3, 2))}, r"budgets must be float64 \(O, 3\)"),
        ({"budgets": np.zeros((2, 3), np.float32)}, "budgets must be float64"),
        ({"taps": TAPS}, "sketches are of 2 images, not of 3"),
    ],
)
def test_other_objects_are_refused(changes, message):
    golden_objects()
    with pytest.raises(ValueError, match=message) as caught:
        golden_objects(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "missing", ["images", "object_scores", "object_masks", "score_budgets", "output_budgets", "iou"]
)
def test_files_without_a_part_are_refused(tmp_path, missing):
    """But for masks: a detector may have none."""
    path = tmp_path / "golden.safetensors"
    tensors, metadata = parts(path)
    save_file(
        {k: v for k, v in tensors.items() if k != missing}, path, {k: v for k, v in metadata.items() if k != missing}
    )
    if missing == "object_masks":
        assert read_golden(path).expected[0].objects.masks is None
    else:
        with pytest.raises(UsageError, match=f"not golden vectors: .*{missing}"):
            read_golden(path)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("object_boxes", (3, 3, 5)),
        ("object_boxes", (3, 2, 4)),
        ("object_scores", (3, 2)),
        ("object_scores", (3,)),
        ("object_labels", (2, 3)),
        ("object_decided", (3, 4)),
        ("object_masks", (3, 2, 28, 28)),
        ("object_masks", (2, 3, 28, 28)),
        ("output_sketches", (2, 3, 32)),
        ("score_budgets", (2,)),
    ],
)
def test_files_whose_rows_differ_are_refused(tmp_path, name, shape):
    path = tmp_path / "golden.safetensors"
    tensors, metadata = parts(path)
    save_file(tensors | {name: np.zeros(shape, tensors[name].dtype)}, path, metadata)
    with pytest.raises(UsageError, match=r"not golden vectors: .*; export the package again") as caught:
        read_golden(path)
    assert "\n" not in str(caught.value)


def parts(path):
    """The tensors and the metadata of a file with masks, as they are written."""
    write_golden(path, golden_objects(masks=True))
    with safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
