"""What precisions save and cost: that the figures are those of the artifacts, and the file's of one measurement."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import precision, readme, run
from benchmarks.heldout import Heldout
from dmf import VARIANTS
from export.precision import PRECISIONS
from export.quantize.calibration import read_calibration
from runtime.arm64.runner import Workload, count_instructions
from runtime.commandline import Progress
from runtime.measure import bench_input

QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """dmf_nano for ONNX Runtime, in float32 and with weights in int8."""
    made = run.Packages("dmf_nano", tmp_path_factory.mktemp("packages"), QUIET)
    return {("onnx", name): made.get("onnx", precision=name) for name in ("fp32", "w8")}


@pytest.fixture(scope="module")
def rows(packages, arm64):
    return precision.cost(packages, 20, QUIET)


def test_a_row_is_of_its_package_against_fp32(rows, packages):
    sizes = {key: package.artifact.stat().st_size for key, package in packages.items()}
    for row, (key, package) in zip(rows, packages.items(), strict=True):
        assert (row["format"], row["precision"]) == key
        assert row["size_bytes"] == sizes[key]
        assert row["size_share"] == sizes[key] / sizes["onnx", "fp32"]
        time = row["time"]
        assert (time["artifact_sha256"], time["threads"]) == (package.artifact_sha256, 1)
        assert time["against_artifact_sha256"] == packages["onnx", "fp32"].artifact_sha256
        assert len(time["samples_ms"]) == len(time["against_samples_ms"]) == 20
    assert rows[0]["size_share"] == rows[0]["instructions_ratio"] == 1
    assert rows[1]["size_share"] < 0.6


def test_instructions_are_of_the_same_emulated_cpu(rows, packages):
    workloads = [Workload("onnx", package.artifact, bench_input(package)[0]) for package in reversed(packages.values())]
    w8, fp32 = (each.instructions for each in count_instructions(workloads, "cortex-a76"))
    assert rows[1]["instructions"] == pytest.approx(w8, rel=1e-2)
    assert rows[1]["instructions_ratio"] == pytest.approx(w8 / fp32, rel=1e-2)
    assert rows[1]["instructions_ratio"] != pytest.approx(fp32 / w8, rel=1e-2)


def test_calibration_pictures_are_many_and_the_same_each_time(tmp_path):
    config = replace(VARIANTS["dmf_nano"], image_size=64)
    folders = [precision.make_pictures(tmp_path / name, count, 64) for name, count in (("a", 6), ("b", 6), ("c", 2))]
    first, again, fewer = (read_calibration(folder, config).images for folder in folders)
    assert (first == again).all()
    assert (first[:2] == fewer).all()
    distances = [np.abs(a - b.astype(float)).mean() for i, a in enumerate(first) for b in first[:i]]
    assert min(distances) > 10  # grey levels
    assert [image.std() > 20 for image in first] == [True] * 6


@pytest.fixture
def heldout():
    """Eight pictures of four classes, and the logits of an eager model that recognises them all."""
    labels = np.arange(8) % 4
    return Heldout(None, None, np.zeros((8, 2, 2, 3), np.uint8), labels, tuple("abcd"), {}), 5.0 * np.eye(4)[labels]


def test_psnr_is_the_peak_over_the_root_mean_square(heldout):
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (8, 4))
    found = [precision.against_eager(*heldout, heldout[1] + step * signs)["psnr_db"] for step in (0.05, 0.1)]
    assert found == pytest.approx([40, 40 - 20 * np.log10(2)], abs=1e-6)


def test_points_are_lost_by_predictions_that_got_worse(heldout):
    two_wrong = heldout[1].copy()
    two_wrong[:2] = two_wrong[:2, ::-1]
    row = precision.against_eager(*heldout, two_wrong, format="onnx")
    assert (row["format"], row["correct"], row["total"], row["lost_points"]) == ("onnx", 6, 8, 25)
    assert [each["index"] for each in row["differing"]] == [0, 1]
    assert precision.against_eager(*heldout, 0.5 * heldout[1])["lost_points"] == 0


@pytest.fixture
def stored():
    return json.loads((run.RESULTS / "precision.json").read_text())


def test_the_file_has_every_format_in_every_precision(stored):
    every = {(format, name) for format in precision.FORMATS for name in PRECISIONS}
    for part in ("cost", "fidelity"):
        assert {(row["format"], row["precision"]) for row in stored[part]} == every
        assert len(stored[part]) == len(every)
    sizes = {(row["format"], row["precision"]): row["size_bytes"] for row in stored["cost"]}
    for row in stored["cost"]:
        assert row["size_share"] == sizes[row["format"], row["precision"]] / sizes[row["format"], "fp32"]
        assert ("time" in row, "instructions" in row) == (row["format"] != "coreml",) * 2
        assert (row["calibration"] is not None) == (row["precision"] == "w8a8")
    assert {row["total"] for row in stored["fidelity"]} == {stored["conditions"]["images"]}


def test_tables_say_what_is_in_the_file(stored, monkeypatch):
    monkeypatch.setattr(readme, "results", lambda name: stored)
    row = next(each for each in stored["cost"] if (each["format"], each["precision"]) == ("coreml", "w8"))
    row["size_share"] = 0.3456
    (line,) = (line for line in readme.precision_cost_table().splitlines() if line.startswith("| w8, Core ML"))
    assert "| 0.346 | on Apple only |" in line
    row = next(each for each in stored["fidelity"] if (each["format"], each["precision"]) == ("tflite", "w8a8"))
    row["lost_points"], row["psnr_db"] = 12.345, 6.789
    (line,) = (line for line in readme.precision_fidelity_table().splitlines() if line.startswith("| w8a8, LiteRT"))
    assert line.startswith("| w8a8, LiteRT | 6.8 |")
    assert "| 12.35 |" in line
