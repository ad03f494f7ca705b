"""`dmf-export` of a Mask R-CNN, and its proof stage by stage, which must name whatever is wrong with an answer."""

import copy
import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

import export.cli
import export.verify.cli
from dmf.detection import create_detector
from dmf.detection.masks import paste_masks
from dmf.detection.seeded import seed_detector
from export.verify.inputs import PHOTOGRAPHS, Inputs, normalize, photograph
from export.verify.parity import tolerance_of
from export.verify.two_stages import judge_two_stages
from runtime.errors import ParityError
from runtime.golden import read_golden, write_golden
from runtime.manifest import hash_files, open_package, read_manifest, write_manifest
from tests.export.test_negative_controls import freeze_routing

HEIGHT, WIDTH = SIZE = 64, 96  # not square: rows and columns can be confused
NAME = "mask_rcnn_dmf_nano-onnx"
NANO = ["--model", "mask_rcnn_dmf_nano", "--seed", "1", "--image-size", "64x96", "--format", "onnx"]
OUTPUTS = ("boxes", "scores", "labels", "masks", "proposals")
TOLERANCE = tolerance_of("fp32", False, True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The package and what it was made of."""
    out, held = tmp_path_factory.mktemp("out"), []
    with pytest.MonkeyPatch.context() as patch:
        real = export.cli.prepare
        patch.setattr("export.cli.prepare", lambda *each: held.append(real(*each)) or held[0])
        patch.setattr("export.cli.measure", lambda *_, **__: None)
        assert export.cli.main([*NANO, "--out", str(out), "--quiet"]) == 0
    assert [path.name for path in out.iterdir()] == [NAME]
    return open_package(out / NAME), held[0]


@pytest.fixture(scope="module")
def oracle():
    """The eager model in float64."""
    return seed_detector(create_detector("mask_rcnn_dmf_nano", image_size=SIZE), 1).double()


def run_directly(path, images):
    """What the artifact gives for (N, H, W, 3): each output by name, N of them, by the runtime's own API."""
    session = onnxruntime.InferenceSession(path)
    each = [session.run(OUTPUTS, {"image": normalize(image[None]).numpy()}) for image in images]
    return {name: list(rows) for name, rows in zip(OUTPUTS, zip(*each, strict=True), strict=True)}


@pytest.fixture(scope="module")
def answers(made):
    """Of two pictures of its proof: a photograph, and noise."""
    package, prepared = made
    images = prepared.reference.inputs.images[[0, 2]]
    return images, run_directly(package.artifact, images)


def failures(made, image, answer):
    """Of one picture's answer, by name."""
    package, prepared = made
    inputs = Inputs(image[None], ("the picture",))
    given = {name: [value] for name, value in answer.items()}
    return judge_two_stages(prepared.model, given, inputs, package.manifest.detection, TOLERANCE, "a test").failures


# The package ------------------------------------------------------------------


def test_a_package_says_what_it_is(made, capfd):
    package, _ = made
    plain = package.manifest.to_json()
    assert plain["model"]["variant"] == "mask_rcnn_dmf_nano"
    (spec,) = plain["inputs"]
    assert (spec["fit"], spec["crop"], spec["resize"], spec["shape"]) == ("pad", [64, 96], None, [1, 3, 64, 96])
    shapes = {"boxes": [-1, 4], "scores": [-1], "labels": [-1], "masks": [-1, 28, 28], "proposals": [-1, 4]}
    assert {each["name"]: each["shape"] for each in plain["outputs"]} == shapes
    assert plain["detection"]["form"] == "onnx_nms" and plain["detection"]["candidates"] is None
    objects = plain["parity"]["detections"]
    assert objects["matched"] == objects["found"] > 100 and objects["decided"] > 4 * objects["undecided"]
    assert objects["min_iou"] > 0.99 and objects["min_mask_iou"] > 0.95 and objects["max_score_error"] < 1e-4
    golden = read_golden(package.golden)
    assert sum(int(each.decided.sum()) for each in golden.expected) == objects["decided"]
    assert {each.objects.masks.shape[1:] for each in golden.expected} == {(28, 28)}
    capfd.readouterr()
    assert export.verify.cli.main([str(package.path), "--json", "--quiet"]) == 0
    figures = json.loads(capfd.readouterr().out)[str(package.path)]
    assert figures["failures"] == [] and figures["parity"]["detections"]["found"] == objects["found"]


@torch.no_grad()
def test_it_finds_in_other_pictures_what_the_eager_model_finds(made, oracle):
    """Objects that are decided, and their masks, pasted: by the pixel, but for those within rounding of one half."""
    package, prepared = made
    images = np.stack([photograph(name, *SIZE)[::-1] for name in PHOTOGRAPHS])
    given = run_directly(package.artifact, images)
    inputs, detection = Inputs(images, PHOTOGRAPHS), package.manifest.detection
    verdict = judge_two_stages(prepared.model, given, inputs, detection, TOLERANCE, "a test")
    assert verdict.failures == ()
    checked, pasted_before = 0, None
    for i, expected in enumerate(verdict.objects.expected):
        (theirs,) = oracle.detect(normalize(images[i : i + 1], torch.float64))
        boxes, scores, labels, masks = (given[name][i] for name in OUTPUTS[:4])
        pasted = paste_masks(*(torch.from_numpy(each).double() for each in (masks, boxes)), *SIZE).numpy()
        wanted = theirs.scores.numpy()[:, None]
        sure = np.abs(wanted - expected.objects.scores[expected.decided]).min(1) < 1e-6
        for row in np.flatnonzero(sure):
            off = np.abs(boxes - theirs.boxes[row].numpy()).max(1) + 1e3 * (labels != int(theirs.labels[row]))
            j = int(off.argmin())
            assert off[j] < 1e-2 and abs(scores[j] - float(theirs.scores[row])) < 1e-4
            clear = np.abs(pasted[j] - 0.5) > 1e-2
            mask = theirs.masks[row].numpy()
            assert ((pasted[j] >= 0.5) == mask)[clear].all()
            if pasted_before is not None and mask.any():
                assert not ((pasted_before >= 0.5) == mask)[clear].all()
            pasted_before, checked = pasted[j], checked + 1
    assert checked > 50


# Its proof --------------------------------------------------------------------


def test_the_artifacts_own_answers_pass(made, answers):
    images, given = answers
    for i in range(2):
        assert failures(made, images[i], {name: rows[i] for name, rows in given.items()}) == ()


def moved(answer, _):
    """The largest of the boxes: an overlap would not show it."""
    boxes = answer["boxes"].copy()
    row = int((boxes[:, 2:] - boxes[:, :2]).prod(1).argmax())
    boxes[row] += [3, 0, 3, 0] if boxes[row, 2] < WIDTH - 3 else [-3, 0, -3, 0]
    return {**answer, "boxes": boxes}


def relabelled(answer, _):
    labels = answer["labels"].copy()
    labels[0] = (labels[0] + 1) % 10
    return {**answer, "labels": labels}


def dropped(answer, _):
    return answer | {name: answer[name][1:] for name in OUTPUTS[:4]}


def invented(answer, other):
    """The surest object of another picture in the place of the last one: there are as many as there may be."""
    return answer | {name: np.concatenate([answer[name][:-1], other[name][:1]]) for name in OUTPUTS[:4]}


def rescored(answer, _):
    return {**answer, "scores": answer["scores"] * np.float32(0.999)}


def without_proposals(answer, _):
    return {**answer, "proposals": answer["proposals"][20:]}


def proposals_moved(answer, _):
    return {**answer, "proposals": answer["proposals"] * np.float32(0.98)}


ALTERED = {
    "proposals of another picture": (
        lambda answer, other: {**answer, "proposals": other["proposals"]},
        "proposals of the picture: ",
    ),
    "a fifth of the proposals left out": (without_proposals, "proposals of the picture: "),
    "proposals too small": (proposals_moved, "are not the reference's"),
    "a box 3 px further": (moved, "boxes of the picture: error"),
    "another label": (relabelled, "objects of the picture: 1 are missing"),
    "masks of the neighbour": (
        lambda answer, _: {**answer, "masks": np.roll(answer["masks"], 1, 0)},
        "masks of the picture: error",
    ),
    "an object dropped": (dropped, "objects of the picture: 1 are missing"),
    "an object invented": (invented, "objects of the picture: 1 of 100 are not the reference's"),
    "an object found twice": (
        lambda answer, _: invented(answer, answer),
        "objects of the picture: 1 of 100 are not the reference's",
    ),
    "scores too low": (rescored, "objects of the picture: a score is off"),
    "everything of another picture": (lambda _, other: other, "proposals of the picture: "),
}


@pytest.mark.parametrize("how", ALTERED)
def test_an_altered_answer_is_refused(how, made, answers):
    images, given = answers
    first, second = ({name: rows[i] for name, rows in given.items()} for i in range(2))
    alter, part = ALTERED[how]
    found = failures(made, images[0], alter(first, second))
    assert any(part in each for each in found), found


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"masks": None}, "no output masks"),
        ({"masks": np.zeros((100, 14, 14), np.float32)}, "masks"),
        ({"labels": np.full(100, 10)}, "labels"),
        ({"boxes": np.full((100, 4), np.nan, np.float32)}, "boxes"),
        ({"scores": np.zeros(99, np.float32)}, "scores"),
        ({"proposals": np.zeros((0, 4), np.float32)}, "proposals"),
    ],
)
def test_answers_of_something_else_are_no_mask_rcnns(change, part, made, answers):
    images, given = answers
    answer = {name: rows[0] for name, rows in given.items()} | change
    with pytest.raises(ParityError, match=part) as refusal:
        failures(made, images[0], {name: value for name, value in answer.items() if value is not None})
    assert len(str(refusal.value).splitlines()) == 1


@torch.no_grad()
def test_another_graph_is_refused(made, answers):
    """Frozen routing, and layers whose weights are 2 % too large: by the static graph, as if it had been converted."""
    _, prepared = made
    images, _ = answers
    x, names = normalize(images), []
    frozen = copy.deepcopy(prepared.graph)
    freeze_routing(frozen, prepared)
    spoilt = {"routing": frozen}
    for name in ("rpn.deltas", "box_head.deltas", "box_head.classes", "mask_head.masks"):
        spoilt[name] = copy.deepcopy(prepared.graph)
        spoilt[name].get_submodule(name).weight.mul_(1.02)
    for name, graph in {"": prepared.graph, **spoilt}.items():
        given = dict(zip(OUTPUTS, (each.numpy() for each in graph(x[1:])), strict=True))
        names += [name] if failures(made, images[1], given) else []
    assert names == list(spoilt)


# Wrong packages ---------------------------------------------------------------


def golden_mask(folder):
    golden = read_golden(folder / "golden.safetensors")
    row = int(np.flatnonzero(golden.expected[0].decided)[0])
    golden.expected[0].objects.masks[row] = 1 - golden.expected[0].objects.masks[row]
    write_golden(folder / "golden.safetensors", golden)


def golden_box(folder):
    golden = read_golden(folder / "golden.safetensors")
    golden.expected[0].objects.boxes[int(np.flatnonzero(golden.expected[0].decided)[0])] += 8
    write_golden(folder / "golden.safetensors", golden)


def edit_onnx(name, factor):
    def edit(folder):
        model = onnx.load(folder / "model.onnx")
        (tensor,) = [each for each in model.graph.initializer if each.name == name]
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), name))
        onnx.save(model, folder / "model.onnx")

    return edit


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda _: None, None),
        (golden_box, "1 are missing"),
        (golden_mask, "a mask has an overlap of"),
        (edit_onnx("box_head.classes.weight", 1.02), "a score is off"),
        (edit_onnx("mask_head.masks.weight", -1), "a mask has an overlap of"),
    ],
    ids=["a copy", "a golden box", "a golden mask", "scores", "masks"],
)
def test_a_package_is_proven_again(change, part, made, tmp_path, capfd):
    folder = tmp_path / NAME
    shutil.copytree(made[0].path, folder)
    change(folder)
    write_manifest(folder, replace(read_manifest(folder), files=hash_files(folder)))
    capfd.readouterr()
    code, error = export.verify.cli.main([str(folder), "--quiet"]), capfd.readouterr().err
    assert (code, error) == (0, "") if part is None else code == 4 and part in error
    assert len(error.splitlines()) == (part is not None)


def test_a_forecast(tmp_path, capsys):
    argv = [*NANO, "--dry-run", "--quiet", "--out", str(tmp_path / "out")]
    assert export.cli.main(argv) == 0
    said = capsys.readouterr().out
    assert f"would write {tmp_path / 'out' / NAME}" in said and "ONNX Runtime on the CPU refuses nothing" in said
    assert export.cli.main([*argv, "--json"]) == 0
    (plan,) = json.loads(capsys.readouterr().out)
    assert (plan["model"], plan["format"], plan["falls_off"]) == ("mask_rcnn_dmf_nano", "onnx", [])
    assert not (tmp_path / "out").exists()
