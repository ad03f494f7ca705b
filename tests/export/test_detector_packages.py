"""`dmf-export` of a RetinaNet: packages of every form from the command line, and what they find in other pictures."""

import copy
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import export.cli
import export.verify.cli
from dmf.detection import DETECTORS, create_detector, load_detector
from dmf.detection.boxes import clip, decode, nms
from dmf.detection.data import Annotated
from dmf.detection.instances import Detections as Found
from dmf.detection.metrics import average_precision, found
from dmf.detection.seeded import seed_detector
from dmf.pretrained import pretrained
from dmf.training.config import read
from dmf.training.detection import load
from export.verify.coreml_pipeline import CoreMLPipeline
from export.verify.inputs import PHOTOGRAPHS, normalize, photograph
from export.verify.intermediates import PROGRAM
from export.verify.objects import expect_dense
from runtime.detections import Detections, Expected, match, read_detections
from runtime.golden import read_golden, write_golden
from runtime.manifest import hash_files, open_package, read_manifest, write_manifest
from runtime.sketch import sketch
from tests.export.test_negative_controls import freeze_routing

HEIGHT, WIDTH = SIZE = 64, 96  # not square: rows and columns can be confused
ANCHORS = 9 * (8 * 12 + 4 * 6 + 2 * 3 + 1 * 2 + 1 * 1)  # strides 8 to 128, rounded up
NANO = ["--model", "retinanet_dmf_nano", "--seed", "2", "--image-size", "64x96"]  # which finds some in every picture
CLASSES = [f"digit {i}" for i in range(10)]


@dataclass(frozen=True)
class Case:
    options: tuple[str, ...]
    name: str
    form: str
    outputs: dict  # shape and type of each, -1 for what depends on the picture


CASES = {
    "dense": Case(
        ("onnx",),
        "retinanet_dmf_nano-onnx",
        "dense",
        {"scores": ([1, ANCHORS, 10], "float32"), "boxes": ([1, ANCHORS, 4], "float32")},
    ),
    "onnx": Case(
        ("onnx", "--nms"),
        "retinanet_dmf_nano-onnx-nms",
        "onnx_nms",
        {"boxes": ([-1, 4], "float32"), "scores": ([-1], "float32"), "labels": ([-1], "int64")},
    ),
    "tflite": Case(
        ("tflite", "--nms"),
        "retinanet_dmf_nano-tflite-nms",
        "tflite_detection_postprocess",
        {
            "boxes": ([1, 100, 4], "float32"),
            "labels": ([1, 100], "float32"),
            "scores": ([1, 100], "float32"),
            "count": ([1], "float32"),
        },
    ),
    "coreml": Case(
        ("coreml", "--nms", "--image-input", "--precision", "fp32"),
        "retinanet_dmf_nano-coreml-fp32-image-nms",
        "coreml_nms",
        {"confidence": ([-1, 10], "float32"), "coordinates": ([-1, 4], "float32")},
    ),
}


@dataclass(frozen=True)
class Made:
    """What `dmf-export` wrote and, with --json, said."""

    case: Case
    folder: object
    said: dict
    prepared: object

    @property
    def package(self):
        return open_package(self.folder)  # as anyone would read it, files checked


def command(main, argv):
    """Exit code, and what is written to file descriptor 1, as converters' words are that are to go to their logs."""
    with tempfile.TemporaryFile("w+") as out, os.fdopen(1, "w", closefd=False) as stdout:
        sys.stdout.flush()
        before = os.dup(1)
        os.dup2(out.fileno(), 1)
        try:
            with redirect_stdout(stdout):
                code = main([*map(str, argv), "--quiet"])
                stdout.flush()
        finally:
            os.dup2(before, 1)
            os.close(before)
        out.seek(0)
        return code, out.read()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Makes a package once."""
    out, cache = tmp_path_factory.mktemp("out"), {}
    labels = out / "names.txt"
    labels.write_text("".join(f"{name}\n" for name in CLASSES))

    def make(name):
        if name not in cache:
            case, held = CASES[name], []
            extra = ["--labels", labels] if name == "coreml" else []
            with pytest.MonkeyPatch.context() as patch:
                real = export.cli.prepare
                patch.setattr("export.cli.prepare", lambda *each: held.append(real(*each)) or held[0])
                argv = [*NANO, "--format", *case.options, *extra, "--out", out, "--json"]
                code, said = command(export.cli.main, argv)
            assert code == 0
            (only,) = json.loads(said)
            cache[name] = Made(case, out / case.name, only, held[0])
        return cache[name]

    return make


@pytest.fixture(scope="module")
def oracle():
    """The eager model in float64."""
    return seed_detector(create_detector("retinanet_dmf_nano", image_size=SIZE), 2).double()


@torch.no_grad()
def dense_outputs(model, image):
    """Scores (A, K) and boxes (A, 4) of one image (1, H, W, 3), float64."""
    logits, deltas = model(normalize(image, torch.float64))
    boxes = clip(decode(deltas, torch.cat(model.anchors(*SIZE))), *SIZE)
    return logits.sigmoid()[0].numpy(), boxes[0].numpy()


def run_directly(made, image):
    """Outputs by name for one image (1, H, W, 3) by the runtime's own API, not by this project's runners."""
    path, format = made.package.artifact, made.package.manifest.format
    x = normalize(image).numpy()
    if format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        return dict(zip([each.name for each in session.get_outputs()], session.run(None, {"image": x}), strict=True))
    if format == "tflite":
        from ai_edge_litert.interpreter import Interpreter

        return Interpreter(str(path)).get_signature_runner()(image=np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    return CoreMLPipeline(path).run({"image": image.transpose(0, 3, 1, 2).astype(np.float32)})


UNSEEN = [photograph(name, *SIZE)[None] for name in PHOTOGRAPHS]
UNSEEN = [image[:, :, ::-1].copy() for image in UNSEEN] + [image[:, ::-1].copy() for image in UNSEEN]


# Packages ---------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_a_package_says_what_it_is(name, made):
    case, plain = CASES[name], json.loads((made(name).folder / "manifest.json").read_text())
    assert made(name).said["manifest"] == plain
    assert made(name).said["package"] == str(made(name).folder)
    assert (made(name).said["p50_ms"] is None) == (name == "coreml")
    (spec,) = plain["inputs"]
    assert (spec["fit"], spec["crop"], spec["resize"]) == ("pad", [64, 96], None)
    assert spec["shape"] == ([1, 64, 96, 3] if name == "tflite" else [1, 3, 64, 96])
    assert (spec["dtype"], spec["normalisation_in_graph"]) == (
        ("image", True) if name == "coreml" else ("float32", False)
    )
    assert plain["detection"] == {
        "form": case.form,
        "score_threshold": 0.05,
        "nms_iou": 0.5,
        "max_detections": 100,
        "candidates": 5000 if name == "dense" else None,
    }
    assert {each["name"]: (each["shape"], each["dtype"]) for each in plain["outputs"]} == case.outputs
    assert plain["model"]["variant"] == "retinanet_dmf_nano" and plain["model"]["config"]["image_size"] == [64, 96]
    parity = plain["parity"]
    assert parity["passed"] and parity["routing_not_frozen"] is True and parity["batch_consistent"] is None
    assert [each["name"] for each in parity["outputs"]] == ["scores", "boxes"]  # dense, before they were suppressed
    objects = parity["detections"]
    assert objects["matched"] == objects["found"] > 50 and objects["decided"] > objects["undecided"]
    assert objects["min_iou"] > 0.99 and objects["max_score_error"] < 1e-4
    assert plain["labels"] == ("labels.txt" if name == "coreml" else None)


@pytest.mark.parametrize("name", CASES)
def test_the_runtime_gives_what_the_manifest_says(name, made):
    given = run_directly(made(name), UNSEEN[0])
    assert set(given) == set(CASES[name].outputs)
    for output, (shape, dtype) in CASES[name].outputs.items():
        assert given[output].dtype == dtype
        assert [-1 if wanted == -1 else size for wanted, size in zip(shape, given[output].shape, strict=True)] == shape
    counts = {run_directly(made(name), image)[next(iter(CASES[name].outputs))].shape for image in UNSEEN}
    assert (len(counts) > 1) == (name in ("onnx", "coreml"))  # whose number of rows is that of the objects


def test_core_ml_knows_the_names_of_the_classes(made):
    from coremltools.models.utils import load_spec

    spec = load_spec(str(made("coreml").package.artifact))
    assert list(spec.pipeline.models[-1].nonMaximumSuppression.stringClassLabels.vector) == CLASSES
    assert (made("coreml").folder / "labels.txt").read_text().splitlines() == CLASSES
    (image,) = spec.description.input
    assert (image.type.imageType.height, image.type.imageType.width) == SIZE


@pytest.mark.parametrize("name", CASES)
def test_golden_vectors_are_the_eager_models(name, made, oracle):
    manifest, golden = made(name).package.manifest, read_golden(made(name).folder / "golden.safetensors")
    assert golden.images.shape == (6, *SIZE, 3) and golden.names == manifest.parity.inputs
    figures = manifest.parity.detections
    assert sum(int(each.decided.sum()) for each in golden.expected) == figures.decided
    assert sum(len(each.decided) for each in golden.expected) == figures.decided + figures.undecided
    outputs = [dense_outputs(oracle, image[None]) for image in golden.images]
    for (scores, boxes), expected in zip(outputs, golden.expected, strict=True):
        objects = expected.objects
        for box, score, label in zip(objects.boxes, objects.scores, objects.labels, strict=True):
            off = np.abs(boxes - box).max(1) + np.abs(scores[:, label] - score)
            assert off.min() < 1e-9 < np.abs(scores[off.argmin(), (label + 1) % 10] - score)
    if name != "dense":
        assert golden.outputs == () and golden.taps is None
        return
    assert golden.outputs == ("scores", "boxes") and len(golden.taps.modules) > 20
    for i, image in enumerate(outputs):
        for sketches, values in zip(golden.sketches, image, strict=True):
            exact, other = sketch(values), sketch(outputs[i - 1][0] if values is image[0] else outputs[i - 1][1])
            assert np.abs(sketches[i] - exact).max() < 1e-6 * np.abs(exact).max() < np.abs(sketches[i] - other).max()


@pytest.mark.parametrize("name", CASES)
def test_it_is_proven_again(name, made):
    folder = made(name).folder
    code, said = command(export.verify.cli.main, [folder, "--json"])
    figures = json.loads(said)[str(folder)]
    assert code == 0 and figures["failures"] == [] and figures["parity"]["passed"]
    recorded = made(name).package.manifest.parity.detections
    assert figures["parity"]["detections"]["found"] == recorded.found
    assert [each["name"] for each in figures["parity"]["outputs"]] == (["scores", "boxes"] if name == "dense" else [])


@torch.no_grad()
def eagerly(oracle, image, form):
    """What the eager model detects; of Core ML's rule, each anchor as its best class only, its suppression."""
    if form != "coreml_nms":
        (one,) = oracle.detect(normalize(image, torch.float64))
        return Detections(one.boxes.numpy(), one.scores.numpy(), one.labels.numpy())
    scores, boxes = map(torch.from_numpy, dense_outputs(oracle, image))
    best, labels = scores.max(1)
    sure = (best > 0.05).nonzero()[:, 0]
    kept = sure[nms(boxes[sure], best[sure], labels[sure], 0.5, 100)]
    return Detections(boxes[kept].numpy(), best[kept].numpy(), labels[kept].numpy())


@pytest.mark.parametrize("name", CASES)
def test_it_finds_in_other_pictures_what_the_eager_model_finds(name, made, oracle):
    manifest = made(name).package.manifest
    detection, decided, every = manifest.detection, 0, []
    for image in UNSEEN:
        assert not any((image == golden).all() for golden in read_golden(made(name).package.golden).images)
        expected = expect_dense(*dense_outputs(oracle, image), 1e-4, 1e-2, detection)
        theirs = eagerly(oracle, image, detection.form)
        assert match(theirs, expected, 0.9999).is_complete
        sure = list(
            zip(expected.objects.labels[expected.decided], expected.objects.scores[expected.decided], strict=True)
        )
        pairs = zip(theirs.labels, theirs.scores, strict=True)
        among = [any(label == other and abs(score - near) < 1e-9 for other, near in sure) for label, score in pairs]
        wanted = Expected(theirs, np.array(among, bool))
        ours = read_detections(run_directly(made(name), image), detection, SIZE)
        matched = match(ours, wanted, 0.99)
        assert matched.missed == 0 and matched.score_errors.max() < 1e-4
        assert match(ours, expected, 0.99).is_complete
        every.append((ours, wanted))
        decided += int(wanted.decided.sum())
    assert decided > 40
    for (ours, wanted), (_, other) in pairwise(every):
        swapped = Detections(ours.boxes[:, [1, 0, 3, 2]], ours.scores, ours.labels)
        turned = Detections(ours.boxes, ours.scores, (ours.labels + 1) % 10)
        assert match(ours, other, 0.99).missed and match(swapped, wanted, 0.99).missed
        assert match(turned, wanted, 0.99).missed


# The trained detector ---------------------------------------------------------


@torch.no_grad()
def test_the_trained_detector_loses_no_precision(tmp_path):
    """Its artifact, over 60 scenes of digits that it was not trained on, by default: no seed, no size, no labels."""
    argv = ["--model", "retinanet_dmf_nano", "--format", "onnx", "--out", tmp_path, "--json"]
    code, said = command(export.cli.main, argv)
    package = open_package(tmp_path / "retinanet_dmf_nano-onnx")
    assert code == 0 and json.loads(said)[0]["manifest"]["checkpoint"]["source"] == "file"
    assert (package.path / "labels.txt").read_text().split() == list("0123456789")
    import onnxruntime

    session, detection = onnxruntime.InferenceSession(package.artifact), package.manifest.detection
    scenes, detector = load(read("retinanet_dmf_nano_digits")).heldout, load_detector(pretrained("retinanet_dmf_nano"))
    results, truths = {"eager": {}, "artifact": {}, "other threshold": {}, "other overlap": {}}, {}
    for i in range(60):
        picture, target = scenes.example(i, torch.Generator())
        about, truths[i] = Annotated(target, i, picture.height, picture.width, 1.0, 1.0), scenes.truth(i)
        x = normalize(np.asarray(picture)[None])
        results["eager"][i] = found(detector.detect(x)[0], about)
        outputs = dict(zip(("scores", "boxes"), session.run(["scores", "boxes"], {"image": x.numpy()}), strict=True))
        for name, settings in {
            "artifact": detection,
            "other threshold": replace(detection, score_threshold=0.5),
            "other overlap": replace(detection, nms_iou=0.05),
        }.items():
            one = read_detections(outputs, settings, (128, 128))
            results[name][i] = found(Found(*map(torch.from_numpy, (one.boxes, one.scores, one.labels))), about)
    ap50 = {name: average_precision(each, truths, 10).ap50 for name, each in results.items()}
    assert ap50["eager"] > 0.8
    assert abs(ap50["artifact"] - ap50["eager"]) < 1e-3
    assert abs(ap50["other threshold"] - ap50["eager"]) > 1e-3 < abs(ap50["other overlap"] - ap50["eager"])


# Wrong artifacts --------------------------------------------------------------


@pytest.fixture
def altered(made, tmp_path):
    """A copy of a package that a function of its folder changes, its manifest written again; what `dmf-verify` says."""

    def alter(name, change, capfd):
        folder = tmp_path / "altered"
        shutil.copytree(made(name).folder, folder)
        change(folder)
        recorded = read_manifest(folder)
        write_manifest(folder, replace(recorded, files=hash_files(folder, labels=recorded.labels)))
        capfd.readouterr()
        code, _ = command(export.verify.cli.main, [folder])
        return code, capfd.readouterr().err

    return alter


def edit_onnx(name, change):
    """Of a folder's ONNX: the constant of this name goes through `change`."""

    def edit(folder):
        model = onnx.load(folder / "model.onnx")
        (tensor,) = [each for each in model.graph.initializer if each.name == name]
        value = np.asarray(change(numpy_helper.to_array(tensor)), numpy_helper.to_array(tensor).dtype)
        tensor.CopyFrom(numpy_helper.from_array(value, name))
        onnx.save(model, folder / "model.onnx")

    return edit


def edit_core_ml(**settings):
    def edit(folder):
        from coremltools.models.utils import load_spec

        (artifact,) = folder.glob("*.mlpackage")
        spec = load_spec(str(artifact))
        for name, value in settings.items():
            setattr(spec.pipeline.models[-1].nonMaximumSuppression, name, value)
        (artifact / PROGRAM).write_bytes(spec.SerializeToString())

    return edit


def edit_golden(**changes):
    """The surest decided object of the first picture: what is added to its box, score or label."""

    def edit(folder):
        golden = read_golden(folder / "golden.safetensors")
        first, *others = golden.expected
        row = int(np.flatnonzero(first.decided)[0])
        for field, change in changes.items():
            getattr(first.objects, field)[row] += change
        write_golden(folder / "golden.safetensors", replace(golden, expected=(first, *others)))

    return edit


WRONG = {
    "another overlap": ("onnx", edit_onnx("nms_iou", lambda _: 0.6), "are not the reference's"),
    "a smaller overlap": ("onnx", edit_onnx("nms_iou", lambda _: 0.4), "are missing"),
    "another threshold": ("onnx", edit_onnx("nms_threshold", lambda _: 0.06), "are missing"),
    "a lower threshold": ("onnx", edit_onnx("nms_threshold", lambda _: 0.04), "are not the reference's"),
    "fewer detections": ("onnx", edit_onnx("nms_most", lambda _: 5), "are missing"),
    "scores, suppressed": ("onnx", edit_onnx("network.class_output.weight", lambda w: 1.02 * w), "a score is off"),
    "scores": ("dense", edit_onnx("network.class_output.weight", lambda w: 1.02 * w), "scores of photograph"),
    "boxes": ("dense", edit_onnx("network.box_output.weight", lambda w: 1.02 * w), "boxes of photograph"),
    "Core ML's overlap": ("coreml", edit_core_ml(iouThreshold=0.6), "are not the reference's"),
    "Core ML's threshold": ("coreml", edit_core_ml(confidenceThreshold=0.06), "are missing"),
    "a golden box": ("dense", edit_golden(boxes=[8, 8, 8, 8]), "objects of photograph: astronaut: 1 are missing"),
    "a golden box, suppressed": ("onnx", edit_golden(boxes=[8, 8, 8, 8]), "astronaut: 1 are missing"),
    "a golden score": ("onnx", edit_golden(scores=0.01), "astronaut: a score is off by 0.01"),
    "a golden label": ("tflite", edit_golden(labels=1), "astronaut: 1 are missing"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_named(wrong, altered, capfd):
    name, change, part = WRONG[wrong]
    code, error = altered(name, change, capfd)
    assert code == 4
    assert len(error.splitlines()) == 1 and error.startswith("dmf-verify: error: ") and part in error


@pytest.mark.parametrize("name", CASES)
def test_a_copy_is_proven(name, altered, capfd):
    """It is the change that is found, not the copying: what is edited without a change passes."""
    change = {
        "dense": edit_onnx("network.class_output.weight", lambda w: w),
        "coreml": edit_core_ml(),
    }.get(name, edit_golden(boxes=0.0))
    assert altered(name, change, capfd) == (0, "")


def test_a_frozen_routing_is_refused(made, tmp_path, monkeypatch, capfd):
    prepared = made("dense").prepared
    graph = copy.deepcopy(prepared.graph)
    with torch.no_grad():
        freeze_routing(graph, prepared)
    monkeypatch.setattr("export.cli.prepare", lambda *_: replace(prepared, graph=graph))
    capfd.readouterr()
    assert command(export.cli.main, [*NANO, "--format", "onnx", "--out", tmp_path])[0] == 4
    (error,) = capfd.readouterr().err.splitlines()
    assert "retinanet_dmf_nano-onnx is not the model" in error and "routing seems frozen" in error
    assert [path.name for path in tmp_path.iterdir()] == ["rejected"]
    kept = tmp_path / "rejected" / "retinanet_dmf_nano-onnx"
    assert sorted(path.name for path in kept.iterdir()) == ["model.onnx", "report.txt"]


# What would be done -----------------------------------------------------------


def test_a_forecast(made, tmp_path):
    """Of what XNNPACK refuses, as many operations as the artifact then has; nothing is written."""
    argv = [*NANO, "--format", "tflite", "--nms", "--dry-run", "--json", "--out", tmp_path / "out"]
    code, said = command(export.cli.main, argv)
    (plan,) = json.loads(said)
    assert code == 0 and plan["package"] == str(tmp_path / "out" / "retinanet_dmf_nano-tflite-nms")
    assert (plan["model"], plan["precision"], plan["batch"]) == ("retinanet_dmf_nano", "fp32", 1)
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plainly = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(str(made("tflite").package.artifact), experimental_op_resolver_type=plainly)
    ops = Counter(each["op_name"] for each in interpreter._get_ops_details())
    refused = Counter()
    for row in plan["falls_off"]:
        refused[row["operation"]] += row["count"]
    assert refused == {"DEPTHWISE_CONV_2D": 10, "RESIZE_NEAREST_NEIGHBOR": ops["RESIZE_NEAREST_NEIGHBOR"]}
    assert ops["RESIZE_NEAREST_NEIGHBOR"] == 2 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [("all",), ("onnx", "--nms"), ("coreml", "--image-input")])
def test_a_forecast_in_words(options, tmp_path):
    code, said = command(export.cli.main, [*NANO, "--format", *options, "--dry-run", "--out", tmp_path / "out"])
    assert code == 0 and said.count("would write") == (3 if options == ("all",) else 1)
    assert "RESIZE_NEAREST_NEIGHBOR" in said or options != ("all",)
    assert said.count("retinanet_dmf_nano") > 1 and "refuses" in said and not (tmp_path / "out").exists()


def test_detectors_are_listed():
    code, said = command(export.cli.main, ["--list"])
    rows = {row.split()[1]: row for row in said.splitlines() if "dmf_" in row}
    assert code == 0 and set(DETECTORS) < set(rows)
    assert "800 x 1344" in rows["retinanet_dmf_s"] and "26,004,784" in rows["retinanet_dmf_s"]
