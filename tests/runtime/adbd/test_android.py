"""runtime/android.py on the emulated device: files and shell are real, the app and the framework are doubles."""

import dataclasses
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from runtime import android, benchmark_model, documents
from runtime.adb import Phone, phones
from runtime.android import FOLDER, Measurement, measure_on_phones
from runtime.cli import main
from runtime.errors import RunnerError, UsageError
from runtime.golden import read_golden
from runtime.latency import Device, DeviceState, GoldenCheck, Results, read_results
from runtime.manifest import Detection
from runtime.measure import measure
from runtime.preprocess import to_input

STATE = DeviceState(0, 31.2, 80, False, False, True, (1_800_000, None))
SUMMARY = """\
INFO: Explicitly applied {applied}
INFO: Initialized session in 12.5ms.
INFO: count=2 first=9000 curr=8000 min=8000 max=9000 avg=8500 std=500 p5=8000 median=9000 p95=9000
INFO: count=40 first=7001 curr=7003 min=6954 max=7126 avg=7018.5 std=33 p5=6968 median=7015 p95=7087
INFO: Inference timings in us: Init: 12500, First inference: 9000, Warmup (avg): 8500, Inference (avg): 7018.5
INFO: Overall peak memory footprint (MB) via periodic monitoring: 93.25
"""
WHOLLY = "{} delegate, and the model graph will be completely executed by the delegate."
XNNPACK = WHOLLY.format("XNNPACK")
PARTLY = "GPU delegate, and the model graph will be partially executed by the delegate w/ 3 delegate kernels."


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch, tmp_path):
    monkeypatch.setattr(android, "POLL_S", 0.1)
    monkeypatch.setattr(android, "REPLUG_S", 20.0)
    monkeypatch.setenv("DMF_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def app_report(tflite_package):
    """What the app would write, with the word ACCELERATOR where its own is."""
    report = measure(tflite_package, warmup=0, repeats=40)
    conditions = dataclasses.replace(
        report.conditions,
        python=None,
        load_average_before=None,
        load_average_after=None,
        device=Device("nobody", "Double", None, 34, "org.dmf.demo 0.1.0", STATE, STATE),
    )
    golden = GoldenCheck(True, 1e-6, 1e-3, "noise 0")
    return dataclasses.replace(report, on="android", golden=golden, conditions=conditions)


@pytest.fixture
def app(device, app_report):
    """The device with the app installed, and what it will do: a word that doubles/am knows, or a document."""

    def behave(what):
        if isinstance(what, str):
            (device.root / "doubles" / "behaviour").write_text(what)
        else:
            document = documents.to_json(Results(reports=(what,)))
            document["reports"][0]["accelerator"] = "ACCELERATOR"
            (device.root / "doubles" / "result.json").write_text(json.dumps(document))

    behave(app_report)
    return behave


def starts(device):
    return (device.root / "data" / "starts").read_text().splitlines()


def test_a_package_is_pushed_measured_and_removed(app, device, tflite_package, app_report):
    said = []
    measurement = Measurement(threads=2, warmup=3, repeats=40, accelerators=("cpu", "gpu"))
    reports, errors = measure_on_phones([tflite_package], None, measurement, said.append)
    assert errors == []
    assert reports == [dataclasses.replace(app_report, accelerator=name) for name in ("cpu", "gpu")]
    first, second = (line.split() for line in starts(device))
    assert first[0].startswith(f"{FOLDER}/{tflite_package.manifest.name}-")
    assert (first[1:], second[1:]) == (["cpu", "2", "3", "40", "false"], ["gpu", "2", "3", "40", "false"])
    assert device.files() == []
    assert list((device.root / "data" / "sdcard").rglob("*.json")) == []
    assert any("on gpu" in line for line in said)


def test_the_app_is_told_whether_choosing_boxes_counts(app, device, tflite_package):
    reports, errors = measure_on_phones([tflite_package], None, Measurement(post_processing=True))
    assert (len(reports), errors) == (1, [])
    assert [line.split()[-1] for line in starts(device)] == ["true"]


def test_an_accelerator_that_fails_leaves_the_others(app, device, tflite_package, capsys, tmp_path):
    app("gpu-error")
    path = tmp_path / "out.json"
    argv = [str(tflite_package.path), "--on", "android", "--accelerators", "cpu", "gpu", "nnapi", "--json", str(path)]
    assert main([*argv, "--quiet"]) == 5
    assert [report.accelerator for report in read_results(path).reports] == ["cpu", "nnapi"]
    assert capsys.readouterr().err == "dmf-bench: error: 127.0.0.1:5555: tiny-tflite-fp32 on gpu: no GPU here\n"
    assert device.files() == []


def test_the_command_prints_a_table_and_writes_json(app, capsys, tflite_package, app_report, tmp_path):
    app(dataclasses.replace(app_report, invalid_because=("throttled",)))
    path = tmp_path / "out.json"
    argv = [str(tflite_package.path), "--on", "android:127.0.0.1:5555", "--repeats", "40", "--json", str(path)]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "Double cpu" in out
    assert f"{app_report.p50_ms:.3f}" in out
    assert "not valid: " in out and "too hot" in out
    (report,) = read_results(path).reports
    assert report.invalid_because == ("throttled",)
    assert "127.0.0.1" not in path.read_text()  # no serial number leaves the desk


def test_without_the_app(device, capsys, tflite_package):
    assert main([str(tflite_package.path), "--on", "android", "--quiet"]) == 5
    error = capsys.readouterr().err
    assert error.startswith("dmf-bench: error: 127.0.0.1:5555: the app org.dmf.demo is not installed")
    assert len(error.splitlines()) == 1
    assert device.files() == []


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("absent", "the app can't be started: .*does not exist"),
        ("crash", "org.dmf.demo crashed before it had a result; its log is "),
        ("error", "tiny-tflite-fp32 on cpu: the GPU delegate cannot run this model"),
        ("garbage", "the app's result makes no sense .* it is kept in "),
        ("hang", "no result in 2 s; give fewer --repeats or a larger --timeout"),
    ],
)
def test_what_an_app_may_do_wrong(app, device, tflite_package, tmp_path, behaviour, message):
    app(behaviour)
    reports, (error,) = measure_on_phones([tflite_package], None, Measurement(timeout_s=2))
    assert reports == []
    with pytest.raises(RunnerError, match=message):
        raise error
    assert device.files() == []
    kept = {path.read_text() for path in (tmp_path / "cache" / "logs").glob("*.log")}
    assert kept == {
        "crash": {"E AndroidRuntime: FATAL EXCEPTION: main\n"},
        "garbage": {'{"schema_version": 3, "reports"\n'},
    }.get(behaviour, set())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"artifact_sha256": "0" * 64}, r"it is of \('\S+', '0000"),
        ({"package": "other"}, r"it is of \('other', "),
        ({"p50_ms": -1.0}, r"\$\.reports\[0\]\.p50_ms"),
        ({"threads": 0}, r"\$\.reports\[0\]\.threads"),
    ],
)
def test_a_result_of_something_else_is_refused(app, app_report, tflite_package, wrong, message):
    app(dataclasses.replace(app_report, **wrong))
    _, (error,) = measure_on_phones([tflite_package], None, Measurement())
    with pytest.raises(RunnerError, match=message):
        raise error


@pytest.mark.parametrize("line", ["[ro.hardware]: [ranchu]", "[ro.boot.qemu]: [1]", "[ro.kernel.qemu]: [1]"])
def test_an_emulator_is_not_measured(app, device, capsys, tflite_package, line):
    with (device.root / "doubles" / "properties").open("a") as properties:
        properties.write(f"{line}\n")
    assert main([str(tflite_package.path), "--on", "android", "--quiet"]) == 5
    out, err = capsys.readouterr()
    assert out == ""
    assert "is an emulator" in err and "its time is not latency" in err
    assert not (device.root / "data" / "starts").exists()


def unplug_when(device, happened, again_after_s):
    """Pull the plug once ``happened()``, and plug it in again, or not."""

    def pull():
        while not happened():
            time.sleep(0.01)
        device.unplug()
        if again_after_s is not None:
            time.sleep(again_after_s)
            device.plug()

    thread = threading.Thread(target=pull)
    thread.start()
    return thread


def test_unplugged_in_the_middle_of_a_run_it_is_measured_anew(app, device, tflite_package, app_report):
    app("hang")
    said = []

    def started():
        running = (device.root / "data" / "starts").exists()
        if running:
            (device.root / "doubles" / "behaviour").unlink()  # the next run will end well
        return running

    thread = unplug_when(device, started, 1)
    reports, errors = measure_on_phones([tflite_package], None, Measurement(), said.append)
    thread.join()
    assert errors == []
    assert reports == [app_report]
    assert len(starts(device)) == 2
    assert said.count("127.0.0.1:5555 was unplugged; waiting 20 s for it") == 1


def test_unplugged_for_good(app, device, tflite_package, monkeypatch):
    monkeypatch.setattr(android, "REPLUG_S", 1.0)
    app("hang")
    thread = unplug_when(device, lambda: (device.root / "data" / "starts").exists(), None)
    _, (error,) = measure_on_phones([tflite_package], None, Measurement())
    thread.join()
    device.plug()
    assert "did not come back; plug it in and run this again" in str(error)
    assert device.files() != []  # for then


def test_unplugged_twice(app, device, tflite_package, monkeypatch):
    append, timers = Phone._append, []

    def unplugging(self, local, start, there):
        device.unplug()
        timers.append(threading.Timer(0.5, device.plug))
        timers[-1].start()
        return append(self, local, start, there)

    monkeypatch.setattr(Phone, "_append", unplugging)
    _, (error,) = measure_on_phones([tflite_package], None, Measurement())
    for timer in timers:
        timer.join()
    assert len(timers) == 2
    assert "the connection was lost" in str(error) and "it was retried once" in str(error)


def test_a_full_phone(app, device, tflite_package):
    device.room("8K")
    _, (error,) = measure_on_phones([tflite_package], None, Measurement())
    assert "no space for" in str(error)
    assert "MB are free in /data/local/tmp; make room on the phone" in str(error)
    assert device.files() == []


def test_ctrl_c_stops_the_app_and_cleans_up(app, device, tflite_package):
    app("hang")
    command = [sys.executable, "-m", "runtime.cli", str(tflite_package.path), "--on", "android", "--quiet"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background job ignores
    try:
        bench = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    while not (device.root / "data" / "app.pid").exists():
        time.sleep(0.05)
    start = time.monotonic()
    bench.send_signal(signal.SIGINT)
    assert bench.communicate(timeout=30)[1] == "dmf-bench: interrupted\n"
    assert bench.returncode == 130
    assert time.monotonic() - start < 15
    assert not (device.root / "data" / "app.pid").exists()
    assert device.files() == []


def test_each_of_several_phones_is_reported(app, device, tflite_package, app_report, monkeypatch, capsys):
    """The second was unplugged after it was listed."""
    monkeypatch.setattr(android, "REPLUG_S", 0.5)
    (phone,) = phones()
    absent = Phone("adb", "0123456789")
    untrusting = Phone("adb", "ABC", "ABC does not trust this computer yet")
    monkeypatch.setattr(android, "phones", lambda select: [absent, untrusting, phone])
    assert main([str(tflite_package.path), "--on", "android:all", "--quiet"]) == 5
    out, err = capsys.readouterr()
    assert "Double cpu" in out
    assert "0123456789 was unplugged" in err and "ABC does not trust" in err and "127.0.0.1" not in err


def test_what_does_not_go_together(capsys, onnx_package, own_package, tflite_package, tmp_path):
    def refused(argv, message):
        assert main([str(each) for each in argv]) == 2
        assert message in capsys.readouterr().err

    path = tflite_package.path
    refused([path, "--on", "android", "--against", path], "--against is for host, not for android")
    refused([path, "--accelerators", "gpu"], "--accelerators is for android, not for host")
    refused([path, "--benchmark-model", "x"], "--benchmark-model is for android")
    refused([path, "--on", "android", "--cpu", "max"], "--cpu is for arm64, not for android")
    refused([path, "--on", "android:"], "android:SERIAL")
    refused([path, "--on", "iso"], "'iso' is not one of host, android, ios, macos, arm64")
    refused([onnx_package.path, "--on", "android", "--accelerators", "gpu"], "no gpu for onnx; choose from cpu, nnapi")
    refused(
        [onnx_package.path, "--on", "android", "--benchmark-model", __file__], "benchmark_model runs tflite, not onnx"
    )
    refused([path, "--on", "android", "--benchmark-model", tmp_path / "none"], "none: no such file")
    refused([path, "--on", "android", "--repeats", 20_000], "--repeats is 20000; on a phone it is at most 10000")
    refused([path, "--on", "android", "--repeats", 1, "--benchmark-model", __file__], "--repeats 1 has no median")
    detection = Detection("dense", 0.05, 0.5, 100, 1000)
    dense = dataclasses.replace(own_package, manifest=dataclasses.replace(own_package.manifest, format="tflite"))
    dense = dataclasses.replace(dense, manifest=dataclasses.replace(dense.manifest, detection=detection))
    tool = Measurement(benchmark_model=Path(__file__), post_processing=True)
    with pytest.raises(UsageError, match="benchmark_model runs the network alone; use the app"):
        tool.check(dense)
    suppressing = dataclasses.replace(detection, form="tflite_detection_postprocess", candidates=None)
    for allowed in (None, suppressing):  # nothing, or nothing more, is to be chosen
        tool.check(dataclasses.replace(dense, manifest=dataclasses.replace(dense.manifest, detection=allowed)))
    coreml = dataclasses.replace(own_package, manifest=dataclasses.replace(own_package.manifest, format="coreml"))
    with pytest.raises(UsageError, match="coreml does not run on Android"):
        measure_on_phones([coreml], None, Measurement())


# LiteRT itself, on the device


RUN = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
graph, x, y = sys.argv[1:]
runner = Interpreter(graph).get_signature_runner()
np.save(y, runner(**{list(runner.get_input_details())[0]: np.load(x)})["output_0"])
"""


def test_the_aarch64_litert_runs_what_was_pushed(device, tflite_package, expected, tmp_path):
    (phone,) = phones()
    folder = FOLDER / "package"
    android.push_package(phone, tflite_package, folder)
    names = ["manifest.json", *(file.path for file in tflite_package.manifest.files)]
    assert device.files() == sorted(f"dmf/package/{name}" for name in names)
    x = to_input(read_golden(tflite_package.golden).images[:1], tflite_package.manifest.inputs[0])
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "run.py").write_text(RUN)
    for name in ("x.npy", "run.py"):
        phone.push(tmp_path / name, FOLDER / name)
    phone.check(f"cd {FOLDER} && python3 run.py package/model.tflite x.npy y.npy", "LiteRT failed")
    phone.pull(FOLDER / "y.npy", tmp_path / "y.npy")
    logits, _ = expected(x)
    found = np.load(tmp_path / "y.npy")
    np.testing.assert_allclose(found, logits, rtol=1e-5, atol=1e-4)
    assert not np.allclose(expected(x[:, ::-1])[0], found, rtol=1e-5, atol=1e-4)  # another picture has other logits


TOOL = """#!/bin/sh
# DOUBLE of benchmark_model: LiteRT runs the graph once, and the figures are made up
for option; do case $option in --graph=*) graph=${option#--graph=} ;; esac; done
echo "$@" >/data/starts
python3 -c "import sys; from ai_edge_litert.interpreter import Interpreter as I; i = I(sys.argv[1])
i.allocate_tensors(); i.invoke()" $graph || exit 3
cat <<END
SUMMARYEND
"""


def tool(tmp_path, applied):
    path = tmp_path / "benchmark_model"
    path.write_text(TOOL.replace("SUMMARY", SUMMARY.format(applied=applied)))
    return path


def test_benchmark_model(device, tflite_package, tmp_path, capsys):
    path = tmp_path / "out.json"
    argv = [
        str(tflite_package.path),
        "--on",
        "android",
        "--benchmark-model",
        str(tool(tmp_path, XNNPACK)),
        "--warmup",
        "2",
    ]
    assert main([*argv, "--repeats", "40", "--threads", "4", "--json", str(path)]) == 0
    (report,) = read_results(path).reports
    assert (report.p50_ms, report.mean_ms, report.min_ms, report.cold_load_ms) == (7.015, 7.0185, 6.954, 12.5)
    assert (report.samples_ms, report.p90_ms, report.p99_ms) == (None, None, None)
    assert report.peak_memory_bytes == round(93.25 * 2**20)
    assert report.runtime.delegate_partitions == 1
    assert report.invalid_because == ("throttled", "not_foreground")  # dumpsys says 1: light throttling
    state = report.conditions.device.after
    assert (state.thermal_status, state.battery_temperature_c, state.battery_percent) == (1, 31.2, 80)
    assert (state.charging, state.battery_saver, state.screen_on) == (True, False, True)
    assert report.conditions.os == "Android 14 (API 34)"
    out = capsys.readouterr().out
    assert "7.015" in out and "not measured by an app in front" in out
    options = (device.root / "data" / "starts").read_text().split()
    assert {"--num_threads=4", "--num_runs=40", "--warmup_runs=2", "--min_secs=0", "--use_xnnpack=true"} <= set(options)
    assert {"--use_gpu=false", "--use_nnapi=false"} <= set(options)
    assert device.files() == []


@pytest.mark.parametrize(
    ("applied", "accelerator", "partitions"),
    [(XNNPACK, "cpu", 1), (PARTLY, "gpu", 3), (WHOLLY.format("GPU"), "gpu", 1)],
)
def test_what_benchmark_model_says(applied, accelerator, partitions):
    summary = benchmark_model.parse(SUMMARY.format(applied=applied), accelerator, 40)
    assert (summary.partitions, summary.median_ms, summary.load_ms) == (partitions, 7.015, 12.5)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (SUMMARY.format(applied=XNNPACK), "the GPU delegate was not applied"),  # it went on on the CPU
        (SUMMARY.format(applied=WHOLLY.format("GPU")).replace("count=40", "count=39"), "no statistics of 40 runs"),
        (SUMMARY.format(applied=WHOLLY.format("GPU")).replace("median", "p50"), "use one of LiteRT 1.0 or later"),
        ("", "the GPU delegate was not applied"),
    ],
)
def test_what_benchmark_model_does_not_say(output, message):
    with pytest.raises(ValueError, match=message):
        benchmark_model.parse(output, "gpu", 40)


def test_benchmark_model_on_the_cpu_by_itself(device, tflite_package, tmp_path):
    """As a delegate that can't be had: the tool goes on without it, and without a word."""
    measurement = Measurement(accelerators=("gpu",), repeats=40, benchmark_model=tool(tmp_path, XNNPACK), timeout_s=60)
    reports, (error,) = measure_on_phones([tflite_package], None, measurement)
    assert reports == []
    assert "benchmark_model on gpu: the GPU delegate was not applied; its output is kept in" in str(error)
    assert device.files() == []


def test_a_graph_that_litert_refuses(device, own_tflite, tmp_path):
    _, (error,) = measure_on_phones(
        [own_tflite], None, Measurement(repeats=40, benchmark_model=tool(tmp_path, XNNPACK))
    )
    assert "benchmark_model on cpu: it ended with 3" in str(error)


@pytest.fixture
def own_tflite(tflite_package, rehash, tmp_path):
    """A package whose artifact is no model."""
    import shutil

    folder = tmp_path / "broken"
    shutil.copytree(tflite_package.path, folder)
    (folder / "model.tflite").write_bytes(b"no model")
    return rehash(folder, tflite_package.manifest)
