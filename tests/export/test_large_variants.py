"""The published variants: DMF-XXS once per format as a user would, and (make test-full) all of them every way."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dmf
from export.pipeline import prepare, write_package
from export.plan import make_plan
from export.provenance import Origin
from export.verify.package import verify_package
from runtime.golden import read_golden

BIN = Path(sys.executable).parent


def run(*command, timeout=1200):
    return subprocess.run([BIN / command[0], *command[1:]], capture_output=True, text=True, timeout=timeout)


@pytest.mark.timeout(1800)
def test_what_make_export_does(tmp_path, request):
    out = tmp_path / "build"
    done = run("dmf-export", "--format", "all", "--out", str(out))
    assert done.returncode == 0, done.stderr
    names = ["dmf_xxs-coreml", "dmf_xxs-onnx", "dmf_xxs-tflite"]
    assert sorted(path.name for path in out.iterdir()) == names
    for name in names:
        assert name in done.stdout  # a row of the table
        manifest = json.loads((out / name / "manifest.json").read_text())
        output = manifest["parity"]["outputs"][0]
        assert manifest["model"]["parameters"] == 15_075_208
        assert output["max_abs_error"] <= output["budget_max_abs_error"]
        assert output["top1_agreement"] == 1
        assert sum(name.startswith("photograph") for name in manifest["parity"]["inputs"]) == 2
        golden = read_golden(out / name / "golden.safetensors")
        assert golden.images.shape == (6, 224, 224, 3)
        assert (out / name / "golden.safetensors").stat().st_size < 2 * 2**20
        assert len(np.unique(golden.logits.argmax(1))) > 1
    assert "seeded random weights (seed 0)" in done.stderr
    assert f"dmf-verify {out}/dmf_xxs-onnx" in done.stdout
    assert "Apple's Core ML runtime" in done.stdout

    (line,) = [line for line in done.stdout.splitlines() if "dmf-verify" in line and "unchecked" not in line]
    verified = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=600)  # as copied
    assert verified.returncode == 0, verified.stderr
    assert verified.stdout.count("proven on 6 inputs") == 3
    paths = [str(out / name) for name in names]
    benched = run("dmf-bench", paths[1], "--against", paths[2], "--repeats", "20", "--json", "-")
    assert benched.returncode == 0, benched.stderr
    assert json.loads(benched.stdout)["comparisons"][0]["latency_ratio"] > 0

    request.getfixturevalue("arm64")  # last, for it may skip
    emulated = run("dmf-verify", *paths[1:], "--on", "arm64", "--cpu", "cortex-a76")
    assert emulated.returncode == 0, emulated.stderr
    assert emulated.stdout.count("on ARM64 cortex-a76, emulated by qemu 10") == 2


@pytest.fixture(scope="module", params=["dmf_xxs", "dmf_xs", "dmf_s"])
def prepared(request):
    return prepare(dmf.seed_weights(dmf.create_model(request.param), 1), Origin(seed=1))


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("format", "choices"),
    [
        ("onnx", {}),
        ("onnx", {"lowering": "matmul/taps", "batch": -1}),
        ("coreml", {}),
        ("coreml", {"image_input": True}),
        ("tflite", {}),
        ("tflite", {"target": "litert-gpu"}),
        ("tflite", {"converter": "onnx2tf"}),
    ],
    ids=str,
)
def test_every_variant_in_every_format(format, choices, prepared, tmp_path):
    plan = make_plan(prepared.model, format, **choices)
    package = write_package(plan, prepared, tmp_path, overwrite=False)
    assert package.manifest.parity.passed
    assert package.manifest.parity.routing_not_frozen is True
    assert verify_package(package).failures == ()
