"""What bad input gets: one line that says what to do, the right exit code, and nothing half-written."""

import errno
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import dmf
import export.cli
import export.verify.cli
from dmf.detection import DETECTORS
from export.captured import captured
from export.convert import CONVERTERS, FORMATS, Converter
from export.plan import make_plan
from runtime import manifest
from runtime.errors import RunnerError, UsageError

NAME = "dmf_nano-onnx"
NANO = ["--model", "dmf_nano", "--format"]
ONNX = [*NANO, "onnx"]
ANY_CPU = [*NANO, "coreml", "--target", "coreml-cpu"]
GPU = [*NANO, "tflite", "--target", "litert-gpu"]
RETINANET = ["--model", "retinanet_dmf_nano", "--format"]
DETECTOR = [*RETINANET, "onnx"]
MASK_RCNN = ["--model", "mask_rcnn_dmf_nano", "--format"]
TWO_STAGES = [*MASK_RCNN, "onnx"]
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture(scope="module")
def prepared():
    """The nano model, its static graph and its reference, computed once."""
    return export.cli.prepare(*export.cli.load_model("dmf_nano", None, 0, None))


@pytest.fixture(scope="module")
def package(prepared, tmp_path_factory):
    """A package as the command writes it, by the real converter. Read-only."""
    out = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.cli.prepare", lambda *_: prepared)
        assert export.cli.main([*ONNX, "--out", str(out), "--quiet"]) == 0
    assert [path.name for path in out.iterdir()] == [NAME]
    return out / NAME


@pytest.fixture(autouse=True)
def quick(monkeypatch, prepared):
    """Nothing is computed or measured again that is not the subject of the test."""
    monkeypatch.setattr("export.cli.prepare", lambda *_: prepared)
    monkeypatch.setattr("export.cli.measure", lambda *_, **__: None)


@pytest.fixture
def converter(monkeypatch):
    """Put a function of the artifact's path in the place of the converter."""

    def put(write):
        monkeypatch.setattr(Converter, "load", lambda _: lambda _graph, _example, path, _options: write(path))

    return put


@pytest.fixture
def good_converter(converter, package):
    converter(lambda path: shutil.copy(package / "model.onnx", path))


@pytest.fixture
def refused(capfd):
    """Run `dmf-export`; it ends with `code` and one line on stderr that holds `parts`. Returns the line."""

    def run(argv, code, *parts, main=export.cli.main):
        capfd.readouterr()
        assert main([*map(str, argv), "--quiet"]) == code
        out, err = capfd.readouterr()
        assert out == ""
        assert err.startswith(("dmf-export: error: ", "dmf-verify: error: "))
        assert len(err.splitlines()) == 1, err
        for part in parts:
            assert str(part) in err
        return err

    return run


def contents(folder):
    """Every file below `folder` and what is in it, and every folder."""
    return {path.relative_to(folder): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def write_other_network(path, classes=10, size=64):
    """A real ONNX model that computes something else."""
    weights = np.random.default_rng(0).standard_normal((3 * size * size, classes)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["image"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["logits"])],
        "other",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, classes])],
        [numpy_helper.from_array(weights, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        ([], ["--format is required", "onnx, coreml, tflite, all"]),
        (["--format", "onx"], ["'onx'", "onnx, coreml, tflite, all", "did you mean 'onnx'?"]),
        (["--format", "onnx", "--model", "dmf_nanno"], ["'dmf_nanno'", *dmf.VARIANTS, "did you mean 'dmf_nano'?"]),
        ([*ONNX, "--target", "onnxruntime"], ["'onnxruntime'", "litert-cpu", "did you mean 'onnxruntime-cpu'?"]),
        ([*ONNX, "--lowering", "matmul/tap"], ["'matmul/tap'", "conv/conv", "did you mean 'matmul/taps'?"]),
        ([*ONNX, "--precision", "fp61"], ["'fp61'", "fp32, fp16", "did you mean 'fp16'?"]),
        ([*ONNX, "--tflite-converter", "onnx2tff"], ["'onnx2tff'", "litert-torch, onnx2tf", "did you mean 'onnx2tf'?"]),
        ([*ONNX, "--input-layout", "NCWH"], ["'NCWH'", "NCHW, NHWC", "did you mean 'NCHW'?"]),
        ([*ONNX, "--modle", "x"], ["unknown argument '--modle'", "did you mean '--model'?", "see --help"]),
        ([*ONNX, "--over"], ["unknown argument '--over'", "did you mean '--overwrite'?"]),
        ([*ONNX, "--checkpoint"], ["--checkpoint", "expected one argument"]),
        ([*ONNX, "--batch", "0"], ["--batch", "'0'", "whole number >= 1"]),
        ([*ONNX, "--batch", "1.5"], ["--batch", "'1.5'", "whole number >= 1"]),
        ([*ONNX, "--batch", "1", "2"], ["batch sizes 1, 2", "coreml only, not for onnx", "--dynamic-batch takes any"]),
        (["--format", "tflite", "--batch", "1", "2"], ["batch sizes 1, 2", "not for tflite; give one"]),
        ([*NANO, "coreml", "--batch", "1", "2", "--image-size", "64", "96"], ["one artifact has one of the two"]),
        ([*NANO, "coreml", "--batch", "2", "4"], ["batch sizes 2, 4: 1 must be among them"]),
        ([*ANY_CPU, "--batch", "1", "2"], ["batch sizes 1, 2", "coreml-cpu fixes the batch", "take target coreml-ane"]),
        ([*NANO, "coreml", "--batch", "1", "2", "--image-input"], ["image input", "with batch 1 and NCHW only"]),
        ([*NANO, "coreml", "--batch", "1", "2", "--lowering", "matmul/conv"], ["unrolls the batch"]),
        ([*ONNX, "--seed", "-1"], ["--seed", "'-1'", "whole number >= 0"]),
        ([*ONNX, "--seed", str(2**64)], ["--seed", str(2**64), "below 2**64"]),
        ([*ONNX, "--image-size", "0"], ["--image-size", "'0'", "not a side in px, as 320"]),
        ([*ONNX, "--image-size", "65"], ["image_size is 65", "multiple of 32"]),
        ([*ONNX, "--image-size", "64", "96"], ["several input sizes", "coreml only; export onnx once for each"]),
        ([*NANO, "coreml", "--image-size", "64", "65"], ["input size 65 is not a positive multiple of 32"]),
        ([*NANO, "coreml", "--image-size", "64", "96", "--ios", "17"], ["functions", "which iOS 17 can't run"]),
        ([*NANO, "coreml", "--image-size", "64", "96", "--precision", "w8a8"], ["w8a8", "one input size", "take w8"]),
        ([*ONNX, "--target", "litert-cpu"], ["litert-cpu runs tflite, not onnx", "choose from onnxruntime-cpu"]),
        ([*ONNX, "--target", "nnapi", "--dry-run"], ["nnapi runs tflite, not onnx", "choose from onnxruntime-cpu"]),
        ([*GPU, "--precision", "w8"], ["litert-gpu can't run precision w8:", "one scale", "use fp16"]),
        ([*GPU, "--precision", "w8a8"], ["litert-gpu can't run precision w8a8:", "one scale", "use fp16"]),
        ([*GPU, "--budget-mb", "1"], ["litert-gpu can't run precision w8:", "one scale", "use fp16"]),
        ([*ONNX, "--precision", "fp16", "--budget-mb", "1"], ["w8, fp16 and fp32", "leave out --precision fp16"]),
        ([*ONNX, "--precision", "w8a8", "--budget-db", "40"], ["w8, fp16 and fp32", "leave out --precision w8a8"]),
        ([*NANO, "coreml", "--budget-mb", "1"], ["a budget is for onnx and tflite", "Core ML computes all in fp16"]),
        ([*NANO, "all", "--budget-db", "40"], ["a budget is for onnx and tflite", "Core ML computes all in fp16"]),
        ([*ONNX, "--budget-mb", "1", "--budget-db", "40"], ["--budget-mb and --budget-db", "give one"]),
        *(
            ([*ONNX, option, value], [option, repr(value), "not a number above 0"])
            for option in ("--budget-mb", "--budget-db")
            for value in ("0", "-1", "nan", "inf", "1MB")
        ),
        (
            [*ONNX, "--calibration", "photos"],
            ["--calibration photos is for w8a8 or a budget", "fp32 needs no pictures"],
        ),
        ([*ONNX, "--calibration", "photos", "--precision", "w8"], ["for w8a8 or a budget", "w8 needs no pictures"]),
        (
            ["--model", "dmf_xxs", "--format", "onnx", "--precision", "w8a8"],
            ["only dmf_nano", "give a folder of 100 or more pictures, 224 px or larger"],
        ),
        ([*ONNX, "--image-size", "96", "--precision", "w8a8"], ["only dmf_nano as it is shipped", "96 px or larger"]),
        ([*ONNX, "--keep-fp32", "head"], ["--keep-fp32 head is for the other precisions", "in fp32 every module"]),
        (
            [*ONNX, "--precision", "w8", "--keep-fp32", "heda"],
            ["the model has no module 'heda'", "did you mean 'head'?"],
        ),
        ([*NANO, "all", "--sensitivity"], ["--sensitivity is of one format's graph", "instead of --format all"]),
        ([*ONNX, "--sensitivity", "--precision", "fp32"], ["--sensitivity is of weights, not fp32", "fp16 or w8"]),
        ([*ONNX, "--sensitivity", "--precision", "w8a8"], ["--sensitivity is of weights, not w8a8", "fp16 or w8"]),
        ([*ONNX, "--sensitivity", "--budget-mb", "1"], ["--sensitivity is of one precision", "give one of the two"]),
        ([*ONNX, "--image-input"], ["image input", "coreml with batch 1 and NCHW only"]),
        ([*ONNX, "--seed", "1", "--checkpoint", "x.pth"], ["--seed 1", "--checkpoint x.pth", "give one"]),
        ([*ONNX, "--dynamic-batch", "--batch", "2"], ["--dynamic-batch", "--batch 2", "give one"]),
        (
            [*ONNX, "--dynamic-batch", "--lowering", "matmul/conv"],
            ["unrolls the batch", "use matmul/taps or"],
        ),
        (["--format", "tflite", "--dynamic-batch"], ["onnx only, not for tflite", "give a fixed batch"]),
        (["--format", "all", "--target", "litert-cpu"], ["--target", "one format", "--format all"]),
        (
            ["--format", "tflite", "--tflite-converter", "onnx2tf", "--lowering", "conv/conv"],
            ["onnx2tf can't convert the lowering conv/conv", "matmul|twin", "taps|bank|twin"],
        ),
    ],
)
def test_wrong_arguments(monkeypatch, refused, tmp_path, argv, parts):
    monkeypatch.setattr("export.cli.prepare", lambda *_: pytest.fail("refused too late"))
    refused([*argv, "--out", tmp_path / "out"], 2, *parts)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        *(
            ([*DETECTOR, "--image-size", size], ["--image-size", repr(size), "as 320, or HEIGHTxWIDTH, as 320x512"])
            for size in ("0", "0x64", "32x", "x64", "64x96x3", "64X96", "64 96", "-32", "abc", "1e3", "6.4e1")
        ),
        *(
            ([*model, "--image-size", size], [f"image_size is {read}; both must be multiples of 32"])
            for model in (DETECTOR, TWO_STAGES, [*DETECTOR, "--seed", "1"])
            for size, read in {"65x96": "65 x 96", "64x100": "64 x 100", "100": "100 x 100", "16": "16 x 16"}.items()
        ),
        ([*DETECTOR, "--image-size", "64", "96"], ["several input sizes", "export retinanet_dmf_nano once for each"]),
        ([*DETECTOR, "--image-size", "64", "64x96"], ["image size 64x96", "several sizes are for cl", "give one size"]),
        ([*RETINANET, "coreml", "--image-size", "64", "96"], ["export retinanet_dmf_nano once for each"]),
        ([*NANO, "coreml", "--image-size", "64", "64x96"], ["image size 64x96", "and square; give one size"]),
        ([*ONNX, "--image-size", "64x96"], ["images are 64 x 96; a classifier's are square: give one side"]),
        ([*ONNX, "--seed", "1", "--image-size", "64x96"], ["64 x 96; a classifier's are square: give one side"]),
        ([*DETECTOR, "--batch", "2"], ["retinanet_dmf_nano", "one picture at a time, not for batch 2; leave it out"]),
        ([*DETECTOR, "--batch", "1", "2"], ["one picture at a time, not for batch 1, 2; leave it out"]),
        ([*DETECTOR, "--dynamic-batch"], ["one picture at a time, not for batch of any size; leave it out"]),
        ([*TWO_STAGES, "--dynamic-batch"], ["mask_rcnn_dmf_nano", "one picture at a time", "leave it out"]),
        ([*DETECTOR, "--precision", "w8a8"], ["w8a8 is for classifiers", "takes --precision fp32, fp16 or w8"]),
        ([*RETINANET, "all", "--precision", "w8a8"], ["w8a8 is for classifiers", "takes --precision fp32, fp16 or w8"]),
        ([*DETECTOR, "--budget-mb", "1"], ["a budget is for classifiers", "takes --precision fp32, fp16 or w8"]),
        ([*DETECTOR, "--budget-db", "40", "--precision", "fp16"], ["a budget is for classifiers"]),
        ([*DETECTOR, "--calibration", "photos"], ["--calibration photos is for w8a8 or a budget"]),
        ([*DETECTOR, "--sensitivity"], ["--sensitivity is of logits", "is a detector; give a classifier"]),
        ([*TWO_STAGES, "--sensitivity"], ["--sensitivity is of logits", "is a detector; give a classifier"]),
        ([*RETINANET, "tflite", "--tflite-converter", "onnx2tf"], ["onnx2tf converts classifiers", "by litert-torch"]),
        ([*RETINANET, "all", "--tflite-converter", "onnx2tf"], ["onnx2tf converts classifiers", "by litert-torch"]),
        ([*DETECTOR, "--image-input"], ["image input", "coreml with batch 1 and NCHW only"]),
        ([*ONNX, "--nms"], ["--nms is of detectors; dmf_nano is a classifier: leave it out"]),
        *(
            ([*MASK_RCNN, *options], [f"mask_rcnn_dmf_nano is exported to onnx, not to {format}: its second stage"])
            for options, format in (
                (["tflite"], "tflite"),
                (["coreml"], "coreml"),
                (["coreml", "--nms"], "coreml"),
                (["all"], "coreml"),
                (["tflite", "--target", "nnapi", "--dry-run"], "tflite"),
            )
        ),
        ([*TWO_STAGES, "--nms"], ["mask_rcnn_dmf_nano always suppresses in the graph; leave out --nms"]),
        *(
            (
                [*TWO_STAGES, "--precision", given],
                [f"mask_rcnn_dmf_nano is exported in fp32, not in {given}; leave it out"],
            )
            for given in ("fp16", "w8", "w8a8")
        ),
        ([*TWO_STAGES, "--budget-mb", "1"], ["mask_rcnn_dmf_nano is exported in fp32, not in a budget; leave it out"]),
        ([*TWO_STAGES, "--lowering", "auto"], ["lowering that is named, not auto; name one or leave it out"]),
        (
            [*DETECTOR, "--checkpoint", dmf.pretrained("dmf_nano")],
            ["dmf_nano.safetensors: holds dmf_nano, not retinanet_dmf_nano; give --model dmf_nano"],
        ),
        (
            [*ONNX, "--checkpoint", dmf.pretrained("retinanet_dmf_nano")],
            ["holds retinanet_dmf_nano, not dmf_nano; give --model retinanet_dmf_nano"],
        ),
        (
            [*TWO_STAGES, "--checkpoint", dmf.pretrained("retinanet_dmf_nano")],
            ["holds retinanet_dmf_nano, not mask_rcnn_dmf_nano; give --model retinanet_dmf_nano"],
        ),
        ([*DETECTOR, "--checkpoint", "none.safetensors"], ["none.safetensors: no such checkpoint file"]),
        *(
            (
                ["--model", given, "--format", "onnx"],
                [repr(given), *dmf.VARIANTS, *DETECTORS, f"did you mean {meant!r}?"],
            )
            for given, meant in {
                "retinanet_dmf_nanno": "retinanet_dmf_nano",
                "retinanet_xs": "retinanet_dmf_xs",
                "mask_rcn_dmf_s": "mask_rcnn_dmf_s",
            }.items()
        ),
    ],
)
def test_wrong_arguments_for_a_detector(monkeypatch, refused, tmp_path, argv, parts):
    monkeypatch.setattr("export.cli.prepare", lambda *_: pytest.fail("refused too late"))
    refused([*argv, "--out", tmp_path / "out"], 2, *parts)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("argv", [DETECTOR, TWO_STAGES, [*RETINANET, "coreml", "--nms", "--image-input"]])
def test_wrong_labels_of_a_detector(refused, tmp_path, argv):
    path = tmp_path / "names.txt"
    path.write_text("one\ntwo\n")
    refused([*argv, "--labels", path, "--out", tmp_path / "out"], 2, "2 labels for 10 classes; give one for each")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("fault", ["empty", "truncated .safetensors", "code", "a list"])
def test_a_detectors_checkpoint_that_cannot_be_used(refused, tmp_path, checkpoint, fault):
    path = checkpoint(fault)
    refused([*DETECTOR, "--checkpoint", path, "--out", tmp_path / "out"], 2, path)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "executed").exists()


def test_two_classes_of_one_name(monkeypatch, refused, tmp_path):
    """A Core ML classifier can't answer with them; a detector's are a list."""
    path = tmp_path / "names.txt"
    path.write_text("same\n" * 10)
    options = ["coreml", "--image-input", "--labels", path, "--dry-run", "--out", tmp_path / "out"]
    refused([*NANO, *options], 2, "label 'same' stands for two classes")
    assert export.cli.main([*map(str, [*RETINANET, *options]), "--quiet"]) == 0


@pytest.mark.parametrize(
    ("choices", "parts"),
    [
        ({"format": "onx"}, ["unknown format 'onx'", "onnx, coreml, tflite", "did you mean 'onnx'?"]),
        ({"format": "onnx", "converter": "torch-onx"}, ["unknown converter", *CONVERTERS, "mean 'torch-onnx'?"]),
        ({"format": "onnx", "converter": "onnx2tf"}, ["onnx2tf writes tflite, not onnx"]),
        ({"format": "tflite", "target": "litert"}, ["unknown target 'litert'", "coreml-ane", "did you mean 'litert-"]),
        ({"format": "onnx", "precision": "fp23"}, ["unknown precision 'fp23'", "fp32, fp16", "did you mean 'fp32'?"]),
        ({"format": "onnx", "lowering": "bank/taps"}, ["unknown lowering 'bank/taps'", "matmul/taps"]),
        ({"format": "onnx", "input_layout": "NHCW"}, ["unknown input layout 'NHCW'", "NCHW, NHWC"]),
    ],
)
def test_wrong_choices_in_python(prepared, choices, parts):
    with pytest.raises(UsageError) as refusal:
        make_plan(prepared.model, **choices)
    assert all(part in str(refusal.value) for part in parts), refusal.value


@pytest.mark.parametrize("text", [None, b"\xff\xfe", b"one\ntwo\n"], ids=["missing", "binary", "too few"])
def test_wrong_labels(refused, tmp_path, text):
    path = tmp_path / "names.txt"
    if text is not None:
        path.write_bytes(text)
    part = "2 labels for 10 classes" if text == b"one\ntwo\n" else f"{path}: can't be read"
    refused([*ONNX, "--labels", path, "--out", tmp_path / "out"], 2, part)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def pictures(tmp_path):
    """Make a folder of pictures of these modes, sizes and colours; it is left alone."""

    def make(*each):
        (tmp_path / "pictures").mkdir()
        for i, (mode, size, colour) in enumerate(each):
            Image.new(mode, size, colour).save(tmp_path / "pictures" / f"{i}.png")
        return tmp_path / "pictures"

    return make


@pytest.mark.parametrize(
    ("faulty", "part"),
    [
        ([], "no pictures in it (.bmp, .jpeg, .jpg, .png, .webp); put 100 or more there"),
        ([("RGB", (63, 200), "red")], "0.png: 63 x 200 px; the network needs 64 x 64 or more; replace or remove it"),
        ([("L", (64, 64), 90)], "0.png: its mode is L; calibration needs RGB pictures; convert or remove it"),
        ([("RGBA", (64, 64), "red")], "0.png: its mode is RGBA; calibration needs RGB pictures"),
        ([("RGB", (64, 64), "black")] * 2, "every picture is of one colour only, which tells no ranges"),
    ],
    ids=["empty", "too small", "grey", "transparent", "black"],
)
def test_a_calibration_folder_that_cannot_be_used(monkeypatch, refused, tmp_path, pictures, faulty, part):
    monkeypatch.setattr("export.cli.prepare", lambda *_: pytest.fail("refused too late"))
    folder = pictures(*faulty)
    for precision in (["--precision", "w8a8"], ["--budget-db", "40"], ["--sensitivity"]):
        refused([*ONNX, *precision, "--calibration", folder, "--out", tmp_path / "out"], 2, folder, part)
    assert {path.name for path in tmp_path.iterdir()} == {"pictures"}


def test_a_calibration_folder_that_is_missing(refused, tmp_path):
    argv = [*ONNX, "--precision", "w8a8", "--calibration", tmp_path / "none", "--out", tmp_path / "out"]
    refused(argv, 2, f"{tmp_path / 'none'}: no such folder", "calibration takes a folder of pictures")
    assert contents(tmp_path) == {}


def test_a_budget_that_is_too_small(refused, tmp_path, good_converter):
    argv = [*ONNX, "--budget-mb", "0.1", "--out", tmp_path]
    refused(argv, 2, "a budget of 0.1 MB is too small", "with w8 everywhere it takes 1.", "or more")
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("name", CONVERTERS)
def test_an_extra_that_is_not_installed(monkeypatch, refused, tmp_path, name):
    missing = CONVERTERS[name].packages[0]
    monkeypatch.setattr("export.convert.find_spec", lambda package: None if package == missing else object())
    format = CONVERTERS[name].format
    argv = ["--model", "dmf_nano", "--format", format, "--out", tmp_path / "out"]
    argv += ["--tflite-converter", name] if format == "tflite" else []
    refused(argv, 2, name, f"needs {missing}", f"pip install 'dynamic-mobile-former[{CONVERTERS[name].extra}]'")
    assert contents(tmp_path) == {}


class Malicious:
    """A pickle that would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.fixture
def checkpoint(tmp_path, prepared):
    """A checkpoint of the given kind of fault."""

    def make(fault):
        kind = ".pth" if fault in ("truncated .pth", "code", "a list") else ".safetensors"
        path, model = tmp_path / f"weights{kind}", dmf.DMF(prepared.model.config)
        if fault == "another variant":
            model = dmf.create_model("dmf_xxs")
        if fault == "NaN":
            model.load_state_dict(prepared.model.state_dict())
            model.get_parameter("tokens").data.view(-1)[5] = float("nan")
        if kind == ".safetensors" and fault != "missing":
            dmf.save_checkpoint(model, path)
        elif kind == ".pth":
            odd = {"code": {"model": Malicious(tmp_path / "executed")}, "a list": [1]}
            torch.save(odd.get(fault, model.state_dict()), path)
        if fault == "empty":
            path.write_bytes(b"")
        if "truncated" in fault:
            truncated(path)
        return path

    return make


@pytest.mark.parametrize(
    ("fault", "parts"),
    [
        ("missing", ["no such checkpoint file"]),
        ("empty", ["damaged or not a checkpoint"]),
        ("truncated .safetensors", ["damaged or not a checkpoint"]),
        ("truncated .pth", ["damaged or not a checkpoint"]),
        ("code", ["would run code", "never done"]),
        ("a list", ["holds a list, not a state dict"]),
        ("another variant", ["holds dmf_xxs, not dmf_nano"]),
        ("NaN", ["not finite (NaN or infinite) tokens"]),
    ],
)
def test_a_checkpoint_that_cannot_be_used(refused, tmp_path, checkpoint, fault, parts):
    path = checkpoint(fault)
    refused([*ONNX, "--checkpoint", path, "--out", tmp_path / "out"], 2, path, *parts)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "executed").exists()


def test_the_size_of_a_checkpoints_images_must_fit_too(refused, tmp_path, checkpoint):
    argv = [*ONNX, "--checkpoint", checkpoint("none"), "--image-size", 100, "--out", tmp_path / "out"]
    refused(argv, 2, "image_size is 100", "multiple of 32")
    assert not (tmp_path / "out").exists()


def test_weights_that_are_not_finite_in_python(prepared):
    model = dmf.DMF(prepared.model.config)
    model.get_parameter("tokens").data.fill_(float("inf"))
    with pytest.raises(UsageError, match="not finite"):
        make_plan(model, "onnx")


def test_an_existing_package_is_left_alone(refused, tmp_path, package):
    shutil.copytree(package, tmp_path / NAME)
    refused([*ONNX, "--out", tmp_path], 2, tmp_path / NAME, "exists already", "--overwrite", "another --out")
    assert contents(tmp_path / NAME) == contents(package)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


@pytest.mark.parametrize("out", ["file", "file/below", "file/below/deeper"])
def test_an_output_folder_that_is_a_file(refused, tmp_path, out):
    (tmp_path / "file").write_text("precious")
    refused([*ONNX, "--out", tmp_path / out], 2, f"{tmp_path / 'file'} is a file, not a folder", "another --out")
    assert contents(tmp_path) == {Path("file"): b"precious"}


def test_only_a_package_is_overwritten(refused, tmp_path):
    place = tmp_path / NAME
    place.write_text("precious")
    refused([*ONNX, "--out", tmp_path, "--overwrite"], 2, f"{place} is not a package", "remove it")
    assert place.read_text() == "precious"
    place.unlink()
    place.mkdir()
    (place / "thesis.tex").write_text("precious")
    refused([*ONNX, "--out", tmp_path, "--overwrite"], 2, f"{place} is not a package", "remove it")
    assert (place / "thesis.tex").read_text() == "precious"


def test_an_output_folder_that_cannot_be_written(monkeypatch, refused):
    """Not even by root, whom os.access lets in."""
    monkeypatch.setattr("export.cli.prepare", lambda *_: pytest.fail("refused too late"))
    refused([*ONNX, "--out", "/proc/build"], 2, "/proc can't be written to", "another --out")


def test_a_converter_that_raises(monkeypatch, refused, tmp_path, converter):
    def fail(path):
        path.write_text("half an artifact")
        monkeypatch.setattr(sys, "stdout", os.fdopen(os.dup(1), "w"))  # pytest's own is not file descriptor 1
        print("python says")
        os.write(1, b"native code says\n")
        os.write(2, b"and complains\n")
        sys.stdout.flush()
        raise NotImplementedError("no such operator: aten::bessel\nsecond line")

    converter(fail)
    log = tmp_path / "rejected" / NAME / "converter.log"
    parts = ["torch-onnx failed", "NotImplementedError: no such operator: aten::bessel;", f"its log is {log}"]
    for _ in range(2):  # the second takes the place of the first
        refused([*ONNX, "--out", tmp_path], 3, *parts)
        kept = log.read_text()
        for said in ("python says", "native code says", "and complains", "Traceback", "aten::bessel\nsecond line"):
            assert kept.count(said) == 1
        assert set(contents(tmp_path)) == {Path("rejected"), Path("rejected", NAME), log.relative_to(tmp_path)}


def test_a_converter_that_raises_leaves_an_existing_package_alone(refused, tmp_path, package, converter):
    shutil.copytree(package, tmp_path / NAME)
    converter(lambda path: 1 / 0)
    refused([*ONNX, "--out", tmp_path, "--overwrite"], 3, "torch-onnx failed: ZeroDivisionError")
    assert contents(tmp_path / NAME) == contents(package)
    assert {path.name for path in tmp_path.iterdir()} == {NAME, "rejected"}


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "No such file", "flatc"), RuntimeError(), OSError()])
def test_any_error_of_a_converter_is_the_converters(refused, tmp_path, converter, error):
    def fail(path):
        raise error

    converter(fail)
    log = tmp_path / "rejected" / NAME / "converter.log"
    refused([*ONNX, "--out", tmp_path], 3, f"torch-onnx failed: {type(error).__name__}", log)
    assert type(error).__name__ in log.read_text()


def test_a_converter_that_writes_nothing(refused, tmp_path, converter):
    converter(lambda path: None)
    log = tmp_path / "rejected" / NAME / "converter.log"
    refused([*ONNX, "--out", tmp_path], 3, "torch-onnx failed", "wrote no model.onnx", log)
    assert log.is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["rejected"]


def test_a_failing_format_leaves_the_others_whole(refused, monkeypatch, tmp_path, package):
    def convert(graph, example, path, options):
        if path.name != "model.onnx":
            raise RuntimeError("not this one")
        shutil.copy(package / "model.onnx", path)

    monkeypatch.setattr(Converter, "load", lambda _: convert)
    second = list(FORMATS)[1]
    refused(["--model", "dmf_nano", "--format", "all", "--out", tmp_path], 3, second, "not this one")
    assert {path.name for path in tmp_path.iterdir()} == {NAME, "rejected"}
    assert export.verify.cli.main([str(tmp_path / NAME), "--quiet"]) == 0


def test_an_artifact_that_cannot_be_opened(refused, tmp_path, converter):
    converter(lambda path: path.write_bytes(b"no model"))
    kept = tmp_path / "rejected" / NAME
    refused([*ONNX, "--out", tmp_path], 5, f"{kept / 'model.onnx'}: onnxruntime cannot open it", f"kept in {kept}")
    assert (kept / "model.onnx").read_bytes() == b"no model"
    assert "cannot open it" in (kept / "report.txt").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["rejected"]


@pytest.mark.parametrize(
    ("network", "code", "part"),
    [
        ({}, 4, "exceeds the budget"),
        ({"classes": 7}, 4, "(6, 7)"),
        ({"size": 32}, 5, "cannot run it"),
    ],
    ids=["other weights", "other outputs", "other input"],
)
def test_an_artifact_that_is_not_the_model(refused, tmp_path, package, converter, network, code, part):
    shutil.copytree(package, tmp_path / NAME)
    converter(lambda path: write_other_network(path, **network))
    kept = tmp_path / "rejected" / NAME
    refused([*ONNX, "--out", tmp_path, "--overwrite"], code, NAME, part, f"kept in {kept}")
    onnx.load(kept / "model.onnx")
    assert part in (kept / "report.txt").read_text()
    assert {path.name for path in kept.iterdir()} == {"model.onnx", "report.txt"}
    assert contents(tmp_path / NAME) == contents(package)
    assert {path.name for path in tmp_path.iterdir()} == {NAME, "rejected"}


def test_a_runtime_that_fails_while_measuring_leaves_the_package_whole(
    monkeypatch, refused, tmp_path, package, good_converter
):
    def fail(*_, **__):
        raise RunnerError("the worker died")

    monkeypatch.setattr("export.cli.measure", fail)
    refused([*ONNX, "--out", tmp_path], 5, "the worker died")
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert export.verify.cli.main([str(tmp_path / NAME), "--quiet"]) == 0


def raise_full(*_, **__):
    raise OSError(*FULL.args)


def wrapped_full(path):
    try:
        raise_full()
    except OSError as error:
        raise RuntimeError("could not save the model") from error


def copied_full(path):
    raise shutil.Error([("/tmp/weight.bin", str(path), str(FULL))])  # as coremltools ends


def device_full(path):
    Path("/dev/full").write_bytes(b"x")


@pytest.mark.parametrize("write", [raise_full, wrapped_full, copied_full, device_full])
def test_a_disk_that_is_full_when_the_artifact_is_written(refused, tmp_path, package, converter, write):
    shutil.copytree(package, tmp_path / NAME)
    converter(write)
    refused([*ONNX, "--out", tmp_path, "--overwrite"], 2, f"disk full: {tmp_path}", "free some space", "another --out")
    assert contents(tmp_path / NAME) == contents(package)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


@pytest.mark.parametrize("stage", ["write_golden", "write_manifest", "put_in_place", "tempfile.TemporaryDirectory"])
def test_a_disk_that_is_full_later(monkeypatch, refused, tmp_path, package, good_converter, stage):
    shutil.copytree(package, tmp_path / NAME)
    if stage.startswith("tempfile"):
        monkeypatch.setattr("export.cli.check_destination", lambda *_: None)  # it would notice earlier
    module = "destination" if stage.startswith("tempfile") else "pipeline"
    monkeypatch.setattr(f"export.{module}.{stage}", raise_full)
    refused([*ONNX, "--out", tmp_path, "--overwrite"], 2, f"disk full: {tmp_path}", "free some space")
    assert contents(tmp_path / NAME) == contents(package)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


@pytest.mark.parametrize("which", ["log", "report.txt"])
def test_a_disk_that_is_full_when_a_failure_is_kept(monkeypatch, refused, tmp_path, converter, which):
    def fail(path):
        if which == "log":
            raise RuntimeError("no such operator")
        write_other_network(path)

    real = Path.open
    names = {"log": "converter.log", "report.txt": "report.txt"}

    def opened(path, mode="r", *rest, **options):
        if path.name == names[which] and "b" not in mode:
            raise_full()
        return real(path, mode, *rest, **options)

    converter(fail)
    monkeypatch.setattr(Path, "open", opened)
    refused([*ONNX, "--out", tmp_path], 2, f"disk full: {tmp_path}")
    assert contents(tmp_path) == {}


def test_the_terminal_is_given_back_when_the_log_cannot_be_written(monkeypatch, capfd):
    monkeypatch.setattr(sys, "stdout", os.fdopen(1, "w", closefd=False))  # pytest's own is not file descriptor 1
    with pytest.raises(OSError, match=FULL.strerror), captured(Path("/dev/full")):
        print("more than the disk holds")
    os.write(2, b"still here")
    assert capfd.readouterr().err == "still here"


FILL_THE_DISK = """
import pickle, sys
from pathlib import Path
import export.cli
from export.convert import Converter

prepared, out = pickle.loads(Path(sys.argv[1]).read_bytes()), sys.argv[2]
export.cli.prepare = lambda *_: prepared
Converter.load = lambda _: lambda _graph, _example, path, _options: path.write_bytes(bytes(8 << 20))
code = export.cli.main(["--model", "dmf_nano", "--format", "onnx", "--out", out, "--quiet"])
print(*Path(out).iterdir())
sys.exit(code)
"""


@pytest.mark.parametrize(("size", "part"), [("1m", "1.0 MB free, 2.3 MB needed"), ("4m", FULL.strerror)])
def test_a_disk_that_is_really_full(tmp_path, prepared, size, part):
    """Before the work, where the weights alone don't fit; in the middle of it otherwise."""
    disk, pickled = tmp_path / "disk", tmp_path / "prepared"
    disk.mkdir()
    pickled.write_bytes(pickle.dumps(prepared))
    mounted = f'mount -t tmpfs -o size={size} none "$0" && exec "$1" -c "$2" "$3" "$0"'
    script = ["sh", "-c", mounted, disk, sys.executable, FILL_THE_DISK, pickled]
    command = ["unshare", "--user", "--map-root-user", "--mount", *script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"dmf-export: error: disk full: {disk}")
    assert part in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == "\n"  # nothing is left


def verify(refused, paths, code, *parts):
    return refused(paths, code, *parts, main=export.verify.cli.main)


@pytest.fixture
def own_package(package, tmp_path):
    """A package that the test may alter, and the means to write its manifest again."""
    shutil.copytree(package, tmp_path / NAME)

    def rehash(**changes):
        recorded = manifest.read_manifest(tmp_path / NAME)
        hashed = manifest.hash_files(tmp_path / NAME)
        manifest.write_manifest(tmp_path / NAME, replace(recorded, files=hashed, **changes))

    return tmp_path / NAME, rehash


def test_verify_a_folder_that_is_no_package(refused, tmp_path):
    verify(refused, [tmp_path / "none"], 2, f"{tmp_path / 'none'}: no such folder", "dmf-export")
    verify(refused, [tmp_path], 2, f"{tmp_path}: no manifest.json", "dmf-export")
    verify(refused, [], 2, "PACKAGE")
    verify(refused, [tmp_path, "--jsn"], 2, "unknown argument '--jsn'", "did you mean '--json'?")


@pytest.mark.parametrize("name", ["model.onnx", "golden.safetensors"])
@pytest.mark.parametrize("change", ["altered", "missing"])
def test_verify_a_package_whose_files_changed(refused, own_package, name, change):
    folder, _ = own_package
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).unlink()
    if change == "altered":
        (folder / name).write_bytes(data)
    verify(refused, [folder], 2, f"{folder}: not as its manifest lists it", f"{name} ", change, "export it again")


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ('"format"', '"fromat"', "fromat"),
        ('"schema_version": 3', '"schema_version": 7', "$.schema_version: 7 is not 3"),
        ("{", "", "not valid JSON"),
    ],
)
def test_verify_an_altered_manifest(refused, own_package, old, new, part):
    path = own_package[0] / "manifest.json"
    path.write_text(path.read_text().replace(old, new, 1))
    verify(refused, [own_package[0]], 2, path, part)


@pytest.mark.parametrize(
    ("network", "code", "part"),
    [({}, 4, "exceeds the budget"), ({"classes": 7}, 4, "(6, 7)"), ({"size": 32}, 5, "cannot run it")],
    ids=["other weights", "other outputs", "other input"],
)
def test_verify_a_wrong_artifact_with_the_right_hash(capfd, own_package, network, code, part):
    folder, rehash = own_package
    write_other_network(folder / "model.onnx", **network)
    rehash()
    assert export.verify.cli.main([str(folder), "--quiet"]) == code
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("dmf-verify: error: ")
    assert str(folder) in line
    assert part in line


def test_verify_golden_vectors_of_another_model(capfd, own_package):
    from runtime.golden import read_golden, write_golden

    folder, rehash = own_package
    golden = read_golden(folder / "golden.safetensors")
    write_golden(folder / "golden.safetensors", replace(golden, logits=golden.logits[:, ::-1].copy()))
    rehash()
    assert export.verify.cli.main([str(folder), "--quiet"]) == 4
    assert "exceeds the budget" in capfd.readouterr().err


def test_verify_an_artifact_that_cannot_be_opened(refused, own_package):
    folder, rehash = own_package
    (folder / "model.onnx").write_bytes(b"no model")
    rehash()
    verify(refused, [folder], 5, folder / "model.onnx", "cannot open it")


def test_verify_two_packages_of_one_name(capfd, own_package, package):
    """The good one does not hide the bad one."""
    folder, rehash = own_package
    write_other_network(folder / "model.onnx")
    rehash()
    assert export.verify.cli.main([str(folder), str(package), "--quiet"]) == 4
    out, err = capfd.readouterr()
    assert f"{folder}: FAILED" in out
    assert f"{package}: proven" in out
    assert str(folder) in err


BLOCKED = {"jsonschema", *(package for converter in CONVERTERS.values() for package in converter.packages)}
# None in sys.modules: it can't be imported, nor found by those that look whether it is there
SITECUSTOMIZE = f"import sys; sys.modules.update(dict.fromkeys({BLOCKED}))"


def test_help_and_list_need_no_converter(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(SITECUSTOMIZE)
    code = (
        "import contextlib, export.cli, export.verify.cli\n"
        "assert export.cli.main(['--list']) == 0\n"
        "for main in (export.cli.main, export.verify.cli.main):\n"
        "    with contextlib.suppress(SystemExit): main(['--help'])\n"
        "try: import onnx\n"
        "except ImportError: print('blocked')\n"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "COLUMNS": "120"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("blocked\n")
    for parser in (export.cli.build_parser(), export.verify.cli.build_parser()):
        for flag in (flag for action in parser._actions for flag in action.option_strings):
            assert flag in done.stdout
    for named in (*dmf.VARIANTS, *DETECTORS, *CONVERTERS, *export.cli.target.TARGETS, *export.cli.lowering.NAMES):
        assert named in done.stdout
