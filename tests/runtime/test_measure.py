"""Measurements: the arithmetic is exact, the samples are real, a dead worker is an error."""

import copy
import dataclasses
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from runtime import documents
from runtime.errors import RunnerError, UsageError
from runtime.latency import Results, percentiles_ms, read_results, write_results
from runtime.manifest import open_package
from runtime.measure import bench_input, compare, measure
from runtime.preprocess import to_input
from runtime.report import comparison_text, latency_text
from runtime.worker import Worker

FIXTURES = Path(__file__).parents[1] / "fixtures"


def test_percentiles_of_known_samples():
    found = percentiles_ms([4.0, 1.0, 3.0, 2.0, 5.0])
    exact = {"p50_ms": 3.0, "p90_ms": 4.6, "p99_ms": 4.96, "mean_ms": 3.0, "min_ms": 1.0}
    assert found == pytest.approx(exact)
    samples_ms = np.random.default_rng(0).exponential(size=101)
    found = percentiles_ms(samples_ms.tolist())
    assert [found["p50_ms"], found["p90_ms"]] == [sorted(samples_ms)[50], sorted(samples_ms)[90]]


@pytest.fixture(scope="module")
def report(onnx_package):
    return measure(onnx_package, threads=2, warmup=3, repeats=20)


def test_a_report_keeps_samples_and_conditions(onnx_package, report):
    assert len(report.samples_ms) == 20
    assert min(report.samples_ms) > 0
    assert report.p50_ms == np.median(report.samples_ms)
    assert (report.threads, report.warmup_count, report.on) == (2, 3, "host")
    assert report.artifact_sha256 == onnx_package.artifact_sha256
    assert report.input == "golden image 0: noise 0"
    assert report.cold_load_ms > 0
    assert report.runtime.name == "onnxruntime"
    # The worker has onnxruntime, and nothing of the test's process.
    assert 10e6 < report.baseline_memory_bytes < report.peak_memory_bytes < 300e6
    assert report.conditions.logical_cores == len(os.sched_getaffinity(0))


def test_tflite_is_measured_too(tflite_package):
    report = measure(tflite_package, warmup=1, repeats=3)
    assert report.runtime.name == "litert"
    assert report.runtime.delegate_partitions >= 1


def test_the_input_is_golden_image_0_else_seeded_noise(own_package, golden_images, rehash):
    x, name = bench_input(own_package)
    spec = own_package.manifest.inputs[0]
    np.testing.assert_array_equal(x, to_input(golden_images[:1], spec))
    assert name == "golden image 0: noise 0"
    fixed = dataclasses.replace(spec, shape=(3, *spec.shape[1:]))
    manifest = dataclasses.replace(own_package.manifest, inputs=(fixed,))
    x, _ = bench_input(rehash(own_package.path, manifest))
    np.testing.assert_array_equal(x, to_input(golden_images[[0, 0, 0]], spec))
    (own_package.path / "golden.safetensors").unlink()
    package = rehash(own_package.path, own_package.manifest)
    x, name = bench_input(package)
    assert (x.shape, name) == ((1, 3, 8, 8), "noise, seed 0")
    np.testing.assert_array_equal(x, bench_input(package)[0])
    assert measure(package, warmup=0, repeats=2).input == "noise, seed 0"


def test_compare_tells_heavy_from_light(onnx_package, heavy_package):
    heavier = compare(heavy_package, onnx_package, warmup=2, repeats=12, block=5)
    assert heavier.latency_ratio > 1.5
    assert compare(onnx_package, heavy_package, warmup=2, repeats=12, block=5).latency_ratio < 1 / 1.5
    assert len(heavier.round_ratios) == 3  # blocks of 5, 5 and 2
    assert len(heavier.package.samples_ms) == len(heavier.against.samples_ms) == 12
    assert heavier.latency_ratio == heavier.package.p50_ms / heavier.against.p50_ms
    q25, q75 = np.percentile(heavier.round_ratios, [25, 75])
    assert (heavier.ratio_q25, heavier.ratio_q75) == (q25, q75)
    assert heavier.ratio_min == min(heavier.round_ratios)
    assert heavier.ratio_max == max(heavier.round_ratios)
    first = [np.median(each.samples_ms[:5]) for each in (heavier.package, heavier.against)]
    assert heavier.round_ratios[0] == pytest.approx(first[0] / first[1])


def test_the_order_is_swapped_every_round(onnx_package, heavy_package, monkeypatch):
    order = []
    real = Worker.invoke

    def spy(self, count):
        order.append((self._name, count))
        return real(self, count)

    monkeypatch.setattr(Worker, "invoke", spy)
    compare(onnx_package, heavy_package, warmup=4, repeats=4, block=2)
    light, heavy = onnx_package.manifest.name, heavy_package.manifest.name
    assert order[:2] == [(light, 4), (heavy, 4)]
    assert [name for name, count in order[2:] if count == 2] == [light, heavy, heavy, light]
    assert [name for name, count in order[2:] if count == 1] == [light, heavy, heavy, light]


@pytest.mark.parametrize(("asked", "chosen"), [(False, "none"), (True, "runner")])
def test_a_detectors_objects_are_chosen_in_the_sample_if_asked(asked, chosen):
    detector, classifier = (open_package(FIXTURES / name) for name in ("package-detector", "package"))
    comparison = compare(detector, classifier, warmup=1, repeats=2, post_processing=asked)
    assert comparison.package.post_processing == chosen
    assert comparison.against.post_processing is None
    assert measure(detector, warmup=0, repeats=2, post_processing=asked).post_processing == chosen


@pytest.fixture
def unreadable(tmp_path, rehash):
    """A detector whose artifact answers with a classifier's logits; by how its outputs are said to be read."""

    def made(form):
        folder = tmp_path / form
        shutil.copytree(FIXTURES / "package-detector", folder)
        shutil.copyfile(FIXTURES / "package" / "model.onnx", folder / "model.onnx")
        manifest = open_package(FIXTURES / "package-detector").manifest
        return rehash(
            folder, dataclasses.replace(manifest, detection=dataclasses.replace(manifest.detection, form=form))
        )

    return made


def test_choosing_from_what_is_no_detectors_answer_fails(unreadable):
    """So the choice is really made; without it the network alone runs."""
    package = unreadable("dense")
    assert measure(package, warmup=1, repeats=2).post_processing == "none"
    for invokes in ({"warmup": 1, "repeats": 1}, {"warmup": 0, "repeats": 1}):
        with pytest.raises(RunnerError, match="the artifact has no output scores; a detector of form dense has it"):
            measure(package, post_processing=True, **invokes)


def test_nothing_is_chosen_behind_a_graph_that_does(unreadable):
    package = unreadable("onnx_nms")
    for asked in (False, True):
        assert measure(package, warmup=1, repeats=2, post_processing=asked).post_processing == "graph"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": 0}, "threads is 0, it must be >= 1"),
        ({"warmup": -1}, "warmup is -1, it must be >= 0"),
        ({"repeats": 0}, "repeats is 0, it must be >= 1"),
    ],
)
def test_numbers_out_of_range_are_refused(onnx_package, options, message):
    with pytest.raises(UsageError, match=message):
        measure(onnx_package, **options)
    with pytest.raises(UsageError, match=message):
        compare(onnx_package, onnx_package, **options)


def test_compare_refuses_an_empty_block(onnx_package):
    with pytest.raises(UsageError, match="block is 0"):
        compare(onnx_package, onnx_package, block=0)


def test_a_corrupt_artifact_is_the_workers_error(own_package, rehash):
    own_package.artifact.write_bytes(b"no model")
    package = rehash(own_package.path, own_package.manifest)
    with pytest.raises(RunnerError, match=r"model\.onnx: onnxruntime cannot open it"):
        measure(package)


def opened(package, timeout_s=60.0):
    worker = Worker(package.manifest.name, timeout_s=timeout_s)
    worker.open(package.manifest.format, package.artifact, bench_input(package)[0], 1)
    return worker


def test_a_killed_worker_is_an_error_that_names_it(onnx_package):
    with opened(onnx_package) as worker:
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(RunnerError, match="tiny-onnx-fp32: the worker was killed by SIGKILL"):
            worker.invoke(1)


def test_a_crashed_worker_gives_its_last_words(onnx_package):
    message = "exited with 1; its last words: TypeError: "
    with opened(onnx_package) as worker, pytest.raises(RunnerError, match=message):
        worker.invoke("many")


def test_a_hanging_worker_is_killed(onnx_package):
    with opened(onnx_package) as worker:
        os.kill(worker.pid, signal.SIGSTOP)
        worker._timeout_s = 0.2
        with pytest.raises(RunnerError, match=r"no answer within 0\.2 s and was killed"):
            worker.invoke(1)


def test_a_timeout_reaches_measure(heavy_package):
    with pytest.raises(RunnerError, match=r"no answer within 0\.01 s"):
        measure(heavy_package, timeout_s=0.01)


def test_an_interrupt_kills_the_worker(heavy_package):
    # A background job starts with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), opened(heavy_package) as worker:  # noqa: PT012 (started inside)
            alarm = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
            alarm.start()
            start = time.monotonic()
            worker.invoke(1_000_000)
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - start < 10
    with pytest.raises(ProcessLookupError):
        os.kill(worker.pid, 0)


def test_results_round_trip_and_mutilated_ones_are_refused(onnx_package, report, tmp_path):
    comparison = compare(onnx_package, onnx_package, warmup=0, repeats=2, block=1)
    results = Results(reports=(report,), comparisons=(comparison,))
    path = tmp_path / "out.json"
    write_results(path, results)
    assert read_results(path) == results
    assert json.loads(results.render()) == json.loads(path.read_text())
    assert [child.name for child in tmp_path.iterdir()] == ["out.json"]

    whole = json.loads(path.read_text())
    for where, mutilate in (
        (r"\$\.reports\[0\]: 'p50_ms' is a required", lambda d: d["reports"][0].pop("p50_ms")),
        (r"\$\.reports\[0\]\.samples_ms", lambda d: d["reports"][0]["samples_ms"].clear()),
        (r"\$\.reports\[0\]\.threads", lambda d: d["reports"][0].update(threads="2")),
        (r"\$\.reports\[0\]: Additional", lambda d: d["reports"][0].update(p50=1)),
        (r"\$\.comparisons\[0\]\.against", lambda d: d["comparisons"][0].update(against={})),
        (r"\$: 'comparisons' is a required", lambda d: d.pop("comparisons")),
        (r"schema_version: 1 is not 3", lambda d: d.update(schema_version=1)),
    ):
        document = copy.deepcopy(whole)
        mutilate(document)
        path.write_text(json.dumps(document))
        with pytest.raises(UsageError, match=where):
            read_results(path)


def test_a_failed_write_leaves_what_was_there(report, tmp_path):
    path = tmp_path / "out.json"
    path.write_text("before")
    wrong = Results(reports=(dataclasses.replace(report, p50_ms=-1.0),))
    with pytest.raises(UsageError, match=r"\$\.reports\[0\]\.p50_ms"):
        write_results(path, wrong)
    with pytest.raises(UsageError, match="not finite"):
        documents.write_json(path, wrong_document(report), "latency-v3")
    assert path.read_text() == "before"
    assert [child.name for child in tmp_path.iterdir()] == ["out.json"]


def wrong_document(report):
    document = documents.to_json(Results(reports=(report,)))
    document["reports"][0]["p50_ms"] = float("nan")
    return document


def test_tables(report, onnx_package, heavy_package):
    valid = dataclasses.replace(report, invalid_because=())
    lines = latency_text([valid, report]).splitlines()
    assert lines[0].split()[:3] == ["package", "on", "runtime"]
    assert f"{report.p50_ms:.3f}" in lines[1]
    assert len({line.index("onnxruntime") for line in lines[1:3]}) == 1
    assert lines[3:] == ["not valid: tiny-onnx-fp32 host: fewer than 30 samples: give more --repeats"]
    assert latency_text([valid]).count("\n") == 1
    comparison = compare(heavy_package, onnx_package, warmup=0, repeats=2, block=1)
    text = comparison_text(comparison)
    assert text.startswith("heavy-onnx-fp32 takes ")
    assert "the time of tiny-onnx-fp32" in text
    assert "\n" not in text
