"""What `make bench` measures, and that its files hold what was measured."""

import dataclasses
import json
from collections import Counter

import numpy as np
import pytest

from benchmarks import latency_vs_accuracy, run
from benchmarks.peers import PEERS
from runtime.commandline import Progress
from runtime.measure import Subject

QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The results' folder of dmf_nano against its twin, and against the twin in the guise of a peer."""
    folder = tmp_path_factory.mktemp("bench")
    packages = run.Packages("dmf_nano", folder / "packages", QUIET)
    nano, twin = packages.get("onnx"), packages.get("onnx", lowering=run.TWIN)
    peer = dataclasses.replace(Subject.of(twin), name="mobilenet_v3_large", model="mobilenet_v3_large")
    pairs = {"lowerings.json": [(nano, twin, 1)], "latency.json": [(nano, twin, 2), (nano, peer, 1)]}
    run.measure([nano], pairs, folder / "results", 3, QUIET)
    return folder / "results"


def test_rows_hold_the_samples_and_what_follows_from_them(measured):
    (lowering,), (two_threads, beside_peer) = (
        json.loads((measured / name).read_text()) for name in ("lowerings.json", "latency.json")
    )
    assert (lowering["against"], lowering["threads"]) == ("dmf_nano-onnx-twin_twin", 1)
    assert (two_threads["against"], two_threads["threads"]) == ("dmf_nano-onnx-twin_twin", 2)
    assert (beside_peer["against"], beside_peer["threads"]) == ("mobilenet_v3_large", 1)
    for row in (lowering, two_threads, beside_peer):
        what = row["model"], row["converter"], row["lowering"], row["batch"]
        assert what == ("dmf_nano", "torch-onnx", "conv/conv", 1)
        assert len(row["samples_ms"]) == len(row["against_samples_ms"]) == 3
        p50_ms, against_ms = np.median(row["samples_ms"]), np.median(row["against_samples_ms"])
        assert p50_ms == pytest.approx(row["p50_ms"], abs=1e-4)
        assert against_ms == pytest.approx(row["against_p50_ms"], abs=1e-4)
        assert row["ratio"] == pytest.approx(p50_ms / against_ms, rel=1e-2)
        assert row["peak_memory_bytes"] > row["baseline_memory_bytes"] > 2**20
        assert row["conditions"]["measured_at"] and row["runtime"]["name"] == "onnxruntime"


def test_the_export_has_no_path_of_this_machine(measured):
    (entry,) = json.loads((measured / "export.json").read_text())
    assert entry["p50_ms"] > 0
    assert "package" not in entry
    assert str(measured.parent) not in json.dumps(entry)


def test_a_plot_is_drawn_of_what_was_measured_beside_peers(measured, tmp_path, monkeypatch):
    p50_ms = latency_vs_accuracy.latencies(json.loads((measured / "latency.json").read_text()))
    assert p50_ms.keys() == {"dmf_nano", "mobilenet_v3_large"}
    monkeypatch.setitem(latency_vs_accuracy.NAMES, "dmf_nano", "DMF-nano")
    monkeypatch.setitem(latency_vs_accuracy.TOP1, "dmf_nano", 50.0)
    latency_vs_accuracy.draw(p50_ms, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_packages_that_are_there_are_taken(measured, monkeypatch):
    monkeypatch.setattr(run, "write_package", lambda *_: pytest.fail("converted again"))
    packages = run.Packages("dmf_nano", measured.parent / "packages", QUIET)
    assert packages.get("onnx").manifest.name == "dmf_nano-onnx"


class Named:
    """Packages that are names of what was asked for."""

    def __init__(self, model, folder, progress):
        self._model = model

    def get(self, format, converter=None, lowering=None, batch=1):
        return " ".join(filter(None, (self._model, format, converter, lowering or "default", f"batch {batch}")))


def test_what_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "Packages", Named)
    monkeypatch.setattr(run, "open_peer", lambda name, folder: name)
    exported, pairs = run.convert(["xxs", "s"], list(PEERS), tmp_path, QUIET)
    assert [package.split()[1] for package in exported] == ["onnx", "coreml", "tflite"]
    assert len(pairs["lowerings.json"]) == 12
    assert all(twin.endswith("twin/twin batch 1") for _, twin, _ in pairs["lowerings.json"])
    pairs = pairs["latency.json"]
    assert ("xxs tflite default batch 1", "xxs tflite conv/conv batch 1", 1) in pairs
    assert ("xxs onnx matmul/conv batch 1", "xxs onnx conv/conv batch 1", 1) in pairs
    assert ("xxs tflite onnx2tf default batch 1", "xxs tflite default batch 1", 1) in pairs
    for model in ("xxs", "s"):
        for peer in PEERS:
            assert (f"{model} tflite default batch 1", peer, 1) in pairs
        for format, batch, threads in (("tflite", 1, 2), ("onnx", 1, 2), ("onnx", 4, 1)):
            names = (f"{model} {format} {lowering} batch {batch}" for lowering in ("default", "twin/twin"))
            assert (*names, threads) in pairs
    assert max(Counter(pairs).values()) == 1


@pytest.mark.full
def test_the_whole_benchmark_on_dmf_nano(tmp_path):
    exported, pairs = run.convert(["dmf_nano"], list(PEERS), tmp_path / "packages", QUIET)
    run.measure(exported, pairs, tmp_path / "results", 2, QUIET)
    rows = json.loads((tmp_path / "results" / "latency.json").read_text())
    assert latency_vs_accuracy.latencies(rows).keys() == {"dmf_nano", *PEERS}
    assert {(row["batch"], row["threads"]) for row in rows} == {(1, 1), (1, 2), (4, 1)}
