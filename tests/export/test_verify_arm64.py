"""``dmf-verify --on arm64``: the aarch64 builds of the runtimes, on every CPU that is emulated."""

import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import dmf
from export.pipeline import prepare, write_package
from export.plan import make_plan
from export.precision import PRECISIONS
from export.provenance import Origin
from export.verify.cli import main
from runtime.arm64.setup import CPUS
from runtime.manifest import hash_files, open_package, write_manifest


def nano():
    """Trained: of random weights int8 leaves little, and a proof must allow for that."""
    return dmf.load_checkpoint(dmf.pretrained("dmf_nano"), "dmf_nano")


EMULATED = [(format, precision) for format in ("onnx", "tflite") for precision in PRECISIONS]


@pytest.fixture(scope="module")
def prepared():
    return prepare(nano(), Origin(path=dmf.pretrained("dmf_nano")))


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    return tmp_path_factory.mktemp("build")


@pytest.fixture(scope="module", params=EMULATED, ids="-".join)
def package(request, prepared, build, arm64):
    format, precision = request.param
    return write_package(make_plan(prepared.model, format, precision=precision), prepared, build, overwrite=False)


def test_it_is_proven_on_every_cpu(package, capsys):
    assert main([str(package.path), "--on", "arm64"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    for line, cpu in zip(lines, CPUS, strict=True):
        assert line.startswith(f"{package.path}: proven on 6 inputs, max error ")
        assert " from the host's, by " in line
        assert line.endswith(f" on ARM64 {cpu}, emulated by qemu 10")
    assert [line.split(":")[0] for line in err.splitlines()] == [
        f"verify {package.manifest.name}",
        *(f"verify {package.manifest.name} on {cpu}" for cpu in CPUS),
    ]


def test_the_figures_of_each_cpu(package, capsys):
    cpus = ["cortex-a53", "max"]
    assert main([str(package.path), "--on", "arm64", "--cpu", *cpus, "--json", "--quiet"]) == 0
    out, err = capsys.readouterr()
    figures = json.loads(out)[str(package.path)]
    assert list(figures) == cpus
    for cpu in cpus:
        (output,) = figures[cpu]["parity"]["outputs"]
        assert figures[cpu]["failures"] == []
        assert len(output["per_input"]) == len(package.manifest.parity.inputs) == 6
        assert all(each["max_abs_error"] <= each["budget_abs_error"] for each in output["per_input"])
        assert 0 <= figures[cpu]["max_difference_from_host"] < 2 * output["budget_max_abs_error"]
    if package.manifest.precision == "fp32":  # other kernels, other rounding; int8 products are exact everywhere
        errors = [figures[cpu]["parity"]["outputs"][0]["max_abs_error"] for cpu in cpus]
        assert errors[0] != errors[1]
        assert min(figures[cpu]["max_difference_from_host"] for cpu in cpus) > 0
    assert err == ""


def test_a_damaged_constant_is_found(package, prepared, capsys, tmp_path):
    """One number of one constant: the bias of one class, by half the largest logit."""
    folder = shutil.copytree(package.path, tmp_path / "damaged")
    artifact = folder / package.manifest.artifact
    bias, unit = last_bias(artifact, prepared.graph.fc2.bias.detach().numpy())
    damaged = bias.copy()
    damaged[3] += np.asarray(np.abs(prepared.reference.outputs[0].values).max() / 2 / unit).astype(bias.dtype)
    content = artifact.read_bytes()
    assert content.count(bias.tobytes()) == 1
    artifact.write_bytes(content.replace(bias.tobytes(), damaged.tobytes()))
    write_manifest(folder, replace(package.manifest, files=hash_files(folder, labels=package.manifest.labels)))

    assert main([str(folder), "--on", "arm64", "--cpu", "cortex-a53", "--quiet"]) == 4
    out, err = capsys.readouterr()
    assert "FAILED on 6 inputs" in out
    (line,) = err.splitlines()
    assert line.startswith(f"dmf-verify: error: {folder} on cortex-a53: logits of ")
    assert "exceeds the budget" in line


def last_bias(artifact, bias):
    """As the artifact has it, and the unit of class 3: ONNX's, of a layer of int8, is one of int32."""
    if artifact.read_bytes().count(bias.tobytes()):
        return bias, 1
    constants = {each.name: numpy_helper.to_array(each) for each in onnx.load(artifact).graph.initializer}
    stored, scale = (constants[f"fc2.bias_quantized{suffix}"] for suffix in ("", "_scale"))
    np.testing.assert_allclose(stored * scale, bias, atol=scale.max())
    return stored, scale[3]


def test_what_does_not_go_together(package, capsys, tmp_path):
    assert main([str(package.path), "--cpu", "max"]) == 2
    assert "--cpu is for an emulated CPU, not for host; give --on arm64" in capsys.readouterr().err

    folder = shutil.copytree(package.path, tmp_path / "apple")
    write_manifest(folder, replace(package.manifest, format="coreml"))
    assert open_package(folder).manifest.format == "coreml"
    assert main([str(package.path), str(folder), "--on", "arm64"]) == 2  # before anything is run
    out, err = capsys.readouterr()
    assert out == ""
    assert "not for coreml; Core ML runs on Apple devices only" in err
    assert len(err.splitlines()) == 1


def test_where_there_is_no_emulation(package, capsys, monkeypatch):
    monkeypatch.setenv("DMF_CACHE", "/dev/null/cache")
    assert main([str(package.path), "--on", "arm64", "--quiet"]) == 5
    out, err = capsys.readouterr()
    assert out == ""
    assert "/dev/null/cache/arm64: what emulates ARM64 can't be kept there" in err
    assert len(err.splitlines()) == 1
