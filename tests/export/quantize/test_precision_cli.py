"""`dmf-export --precision`, `--keep-fp32`, `--sensitivity` and budgets: what is said, written and recorded."""

import contextlib
import copy
import hashlib
import io
import json
import re
import shutil
from math import log10
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from PIL import Image
from torch import nn

import export.cli
import export.pipeline
from dmf.training.augment import eval_crop
from dmf.training.config import read
from dmf.training.data import load
from export.convert import FORMATS, Converter
from export.plan import make_plan
from export.precision import PRECISIONS
from export.verify.inputs import normalize
from runtime.manifest import Calibration, Quantization, Stored, open_package

NANO = ["--model", "dmf_nano", "--seed", "0"]
DIGITS = "scikit-learn's digits, 200 of the training split"


@pytest.fixture(scope="module")
def prepared():
    return export.cli.prepare(*export.cli.load_model("dmf_nano", None, 0, None))


@pytest.fixture(scope="module")
def run(prepared, tmp_path_factory):
    """`dmf-export` to ONNX: its exit code, what it prints, and its folder. Nothing is computed or converted twice."""
    known, converted, sensitivities = {}, tmp_path_factory.mktemp("converted") / "model.onnx", {}
    real, real_sensitivities = Converter.load, export.pipeline.sensitivities

    def convert(converter):
        def once(graph, example, path, options):  # to the same file for every precision but fp32
            if not converted.exists():
                real(converter)(graph, example, converted, options)
            shutil.copy(converted, path)

        return once

    def remembered(plan, prepared, precision, progress):
        if precision not in sensitivities:
            sensitivities[precision] = real_sensitivities(plan, prepared, precision, progress)
        return sensitivities[precision]

    def call(*argv):
        if argv not in known:
            out, printed, said = tmp_path_factory.mktemp("out"), io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
                code = export.cli.main([*NANO, "--format", "onnx", *argv, "--out", str(out)])
            known[argv] = code, printed.getvalue(), said.getvalue(), out
        return known[argv]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.cli.prepare", lambda *_: prepared)
        patch.setattr("export.cli.measure", lambda *_, **__: None)
        patch.setattr("export.pipeline.sensitivities", remembered)
        patch.setattr(Converter, "load", convert)
        yield call


@pytest.fixture(scope="module")
def package(run):
    """The one package that an export by these arguments writes."""

    def made(*argv):
        code, _, said, out = run(*argv)
        assert code == 0, said
        (folder,) = out.iterdir()
        return open_package(folder)

    return made


@pytest.fixture(scope="module")
def digits():
    """The 200 pictures of digits (200, 64, 64, 3), read without `export`."""
    train = load(read("dmf_nano_digits").data).train
    return np.stack([np.asarray(eval_crop(train.picture(i), 64)) for i in evenly(len(train), 200)])


def evenly(length, count):
    return [i * (length - 1) // (count - 1) for i in range(count)]


def constants(package):
    """The artifact's constants in order of size: a hash of the values of each, with their number type."""
    tensors = onnx.load(package.artifact).graph.initializer
    return {(tensor.dtype, values_hash(tensor)) for tensor in map(numpy_helper.to_array, tensors)}


def values_hash(values):
    return hashlib.sha256(np.sort(values, axis=None).tobytes()).hexdigest()


def held_in(package, weight):
    """The number types in which the artifact holds exactly these weights: float32, or rounded to fp16."""
    held = constants(package)
    wanted = {"fp32": weight.astype(np.float32), "fp16": weight.astype(np.float16)}
    return {name for name, values in wanted.items() if (values.dtype, values_hash(values)) in held}


def plain_linears(model):
    """Linear layers whose weights an artifact holds as they are: no norm is folded into them, they aren't equalised."""
    return {
        name: module.weight.detach().numpy()
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.endswith(("head.fc1", "head.fc2", "mlp.fc2", "proj"))
    }


def psnr_of(package, model, images):
    """Of the artifact's logits against eager PyTorch in float64, by ONNX Runtime itself."""
    session = onnxruntime.InferenceSession(package.artifact)
    x = normalize(images)
    logits = np.concatenate([session.run(None, {"image": each.numpy()})[0] for each in x.split(1)])
    with torch.no_grad():
        expected = copy.deepcopy(model).double()(normalize(images, torch.float64)).numpy()
    return 10 * log10(np.abs(expected).max() ** 2 / np.mean((logits - expected) ** 2))


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_has_every_precision(prepared, format):
    plans = [make_plan(prepared.model, format, precision=precision) for precision in PRECISIONS]
    assert [plan.precision for plan in plans] == ["fp32", "fp16", "w8", "w8a8"]
    default = "fp16" if format == "coreml" else "fp32"
    assert make_plan(prepared.model, format).precision == default
    names = [f"dmf_nano-{format}" + f"-{precision}" * (precision != default) for precision in PRECISIONS]
    assert [plan.name for plan in plans] == names
    assert [plan.in_half for plan in plans] == [False, *[format == "coreml"] * 3]


def test_the_gpu_of_litert_has_fp16(prepared):
    plan = make_plan(prepared.model, "tflite", target="litert-gpu", precision="fp16")
    assert (plan.precision, plan.in_half) == ("fp16", True)


def test_a_manifest_says_how_weights_became_smaller(package):
    half, int8 = package("--precision", "fp16").manifest, package("--precision", "w8").manifest
    assert (half.name, half.precision, half.keep_fp32) == ("dmf_nano-onnx-fp16", "fp16", ())
    assert (int8.name, int8.precision, int8.keep_fp32) == ("dmf_nano-onnx-w8", "w8", ())
    assert half.quantization == int8.quantization == Quantization(budget=None, calibration=None, stored=())
    assert int8.parity.outputs[0].max_abs_error > 3 * half.parity.outputs[0].max_abs_error


def test_a_manifest_says_what_showed_the_ranges(package, digits):
    recorded = package("--precision", "w8a8").manifest.quantization
    assert recorded.calibration == Calibration(DIGITS, 200, hashlib.sha256(digits.tobytes()).hexdigest())
    assert recorded.budget is None
    other = hashlib.sha256(digits[::-1].tobytes()).hexdigest()
    assert recorded.calibration.sha256 != other
    assert {each.precision for each in recorded.stored} == {"w8"}  # the convolutions, and what generates kernels
    assert any("end_conv" in each.modules for each in recorded.stored)
    assert not any("head.fc1" in each.modules for each in recorded.stored)


def test_what_is_kept_in_fp32_is(package, run, prepared):
    kept, others = package("--precision", "w8", "--keep-fp32", "head"), package("--precision", "w8")
    half = package("--precision", "fp16")
    assert kept.manifest.name == "dmf_nano-onnx-w8-mixed"
    assert kept.manifest.keep_fp32 == ("head",)
    assert kept.manifest.quantization.stored == (Stored("fp32", "asked for by --keep-fp32", ("head",)),)
    weights = plain_linears(prepared.model)
    assert {name for name in weights if name.startswith("head.")} == {"head.fc1", "head.fc2"}
    for name, weight in weights.items():
        assert held_in(kept, weight) == ({"fp32"} if name.startswith("head.") else set()), name
        assert held_in(others, weight) == set(), name
        assert held_in(half, weight) == {"fp16"}, name
    _, printed, _, _ = run("--precision", "w8", "--keep-fp32", "head")
    assert "dmf_nano-onnx-w8-mixed: 1 modules in fp32 (head): asked for by --keep-fp32" in printed


def test_a_sensitivity_is_what_rounding_one_layer_does(run, prepared, digits):
    """Against the eager model with that layer's weights rounded here, on eight of the digits."""
    code, printed, _, out = run("--sensitivity", "--json")
    assert code == 0
    damages = {each["module"]: each for each in json.loads(printed)}
    assert [path.name for path in out.iterdir()] == ["dmf_nano-onnx-w8-sensitivity.png"]
    images, others = normalize(digits[evenly(200, 8)]), normalize(prepared.reference.inputs.images)
    for name in ("head.fc1", "head.fc2", "end_former.mlp.fc2"):
        change, peak = change_by_rounding(prepared.model, name, images)
        assert damages[name]["mean_square"] == pytest.approx(change, rel=0.01)
        assert damages[name]["psnr_db"] == pytest.approx(10 * log10(peak**2 / change), abs=0.1)
        assert damages[name]["weights"] == prepared.model.get_submodule(name).weight.numel()
        assert damages[name]["mean_square"] != pytest.approx(
            change_by_rounding(prepared.model, name, others)[0], rel=0.1
        )


@torch.no_grad()
def change_by_rounding(model, name, images):
    """The mean square of what int8 weights of one linear layer do to the logits, and the logits' peak."""
    changed = copy.deepcopy(model)
    weight = changed.get_submodule(name).weight
    scale = weight.abs().amax(1, keepdim=True) / 127
    weight.copy_((weight / scale).round() * scale)
    logits = model(images)
    return float((changed(images) - logits).double().square().mean()), float(logits.abs().max())


def test_sensitivities_are_a_table_and_a_plot(run, prepared):
    code, printed, _, out = run("--sensitivity")
    assert code == 0
    header, *rows, plot = printed.splitlines()
    assert header.split() == ["module", "weights", "saved", "kB", "rms", "/", "peak", "PSNR", "dB"]
    figures = [float(row.split()[-1]) for row in rows]
    assert figures == sorted(figures)  # worst first
    assert figures != figures[::-1]
    modules = [row.split()[0] for row in rows]
    assert len(set(modules)) == len(modules)
    assert set(modules) <= {name for name, _ in prepared.model.named_modules()}
    assert {"head.fc1", "head.fc2", "end_conv", "stem.conv"} <= set(modules)
    by_json = json.loads(run("--sensitivity", "--json")[1])
    assert [each["module"] for each in by_json] == modules
    picture = out / "dmf_nano-onnx-w8-sensitivity.png"
    assert plot == f"plot: {picture}"
    assert list(out.iterdir()) == [picture]  # and no package
    with Image.open(picture) as image:
        assert image.size == (1200, 700)
        assert len(image.getcolors(1 << 20)) > 100


def test_sensitivity_to_another_precision(run):
    code, printed, _, out = run("--sensitivity", "--precision", "fp16", "--json")
    assert code == 0
    assert [path.name for path in out.iterdir()] == ["dmf_nano-onnx-fp16-sensitivity.png"]
    halves = {each["module"]: each["mean_square"] for each in json.loads(printed)}
    int8 = {each["module"]: each["mean_square"] for each in json.loads(run("--sensitivity", "--json")[1])}
    assert halves.keys() == int8.keys()
    assert sum(halves.values()) < sum(int8.values()) / 100


def test_a_budget_of_bytes_is_held_and_used(package, prepared):
    made = package("--budget-mb", "1.2")
    assert 1.15e6 < made.artifact.stat().st_size <= 1.2e6
    assert package("--precision", "w8").artifact.stat().st_size < 1e6  # there was something to choose
    assert made.manifest.name == "dmf_nano-onnx-w8-1.2mb"
    recorded = made.manifest.quantization
    assert recorded.budget == "1.2mb"
    assert {each.reason for each in recorded.stored} == {"chosen within 1.2mb"}
    chosen = {module: each.precision for each in recorded.stored for module in each.modules}
    assert set(chosen.values()) <= {"fp16", "fp32"}
    assert len(chosen) > 10
    linears = plain_linears(prepared.model)
    assert set(linears) & set(chosen)  # or nothing would be checked below
    for name, weight in linears.items():
        assert held_in(made, weight) == ({chosen[name]} if name in chosen else set()), name


def test_the_smallest_size_is_said(run, package):
    """What int8 everywhere takes; nothing is written."""
    code, printed, said, out = run("--budget-mb", "0.1")
    assert (code, printed, list(out.iterdir())) == (2, "", [])
    error = said.splitlines()[-1]
    assert error.startswith("dmf-export: error: a budget of 0.1 MB is too small: ")
    smallest = float(re.search(r"it takes ([\d.]+) MB; give that or more", error)[1]) * 1e6
    assert smallest == pytest.approx(package("--precision", "w8").artifact.stat().st_size, abs=1e4)
    assert smallest != pytest.approx(package("--precision", "fp16").artifact.stat().st_size, rel=0.05)


def test_a_module_without_weights_of_its_own_can_not_be_kept(run):
    """A norm is folded into what follows it."""
    code, printed, said, out = run("--precision", "w8", "--keep-fp32", "blocks.1.norm")
    assert (code, printed) == (2, "")
    assert said.splitlines()[-1] == (
        "dmf-export: error: --keep-fp32 blocks.1.norm: it is folded into others, or has no weights; name one that has"
    )
    assert list(out.iterdir()) == []


def test_a_budget_of_accuracy_is_held(package, prepared, digits):
    """On the eight digits that modules were chosen by."""
    few = digits[evenly(200, 8)]
    made, half = package("--budget-db", "50"), package("--precision", "fp16")
    assert made.manifest.name == "dmf_nano-onnx-w8-50db"
    assert made.manifest.quantization.budget == "50db"
    assert made.manifest.quantization.calibration.images == 200
    assert psnr_of(made, prepared.model, few) >= 50
    assert made.artifact.stat().st_size < half.artifact.stat().st_size
    assert psnr_of(package("--precision", "w8"), prepared.model, few) < 50  # so it had to be chosen


@pytest.fixture
def pictures(tmp_path):
    """Make a folder of so many pictures of noise."""

    def make(count):
        (tmp_path / "pictures").mkdir()
        random = np.random.default_rng(0)
        for i in range(count):
            image = random.integers(0, 256, (64, 64, 3), np.uint8)
            Image.fromarray(image).save(tmp_path / "pictures" / f"{i}.png")
        return tmp_path / "pictures"

    return make


def dry_run(folder: Path, out: Path, *argv):
    return export.cli.main([*NANO, "--dry-run", "--calibration", str(folder), "--out", str(out), *argv])


def test_few_pictures_are_warned_of_once(pictures, tmp_path, capsys):
    folder = pictures(99)
    assert dry_run(folder, tmp_path / "out", "--format", "all", "--precision", "w8a8") == 0
    said = capsys.readouterr().err
    assert said.count("only 99 calibration pictures, from folder pictures: give 100 or more for good ranges\n") == 1
    assert dry_run(folder, tmp_path / "out", "--format", "onnx", "--precision", "w8a8", "--json") == 0
    printed, said = capsys.readouterr()
    assert "only 99 calibration pictures" in said
    assert json.loads(printed)
    assert dry_run(folder, tmp_path / "out", "--format", "onnx", "--precision", "w8a8", "--quiet") == 0
    assert capsys.readouterr().err == ""


def test_enough_pictures_are_not_warned_of(pictures, tmp_path, capsys):
    folder = pictures(100)
    assert dry_run(folder, tmp_path / "out", "--format", "onnx", "--precision", "w8a8") == 0
    assert "calibration pictures" not in capsys.readouterr().err


def test_a_budget_needs_few_pictures_only(pictures, tmp_path, capsys):
    """It has no int8 activations, so there are no ranges to be good."""
    folder = pictures(3)
    assert dry_run(folder, tmp_path / "out", "--format", "onnx", "--budget-db", "40") == 0
    assert "calibration pictures" not in capsys.readouterr().err
