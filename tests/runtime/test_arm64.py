"""ARM64, emulated: it computes what numpy computes, by kernels that differ with the CPU, and counts exactly."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtime import documents
from runtime.arm64 import runner, setup
from runtime.arm64.runner import Workload, count_instructions, open_emulated
from runtime.arm64.setup import CPUS, prepare
from runtime.cli import main
from runtime.errors import RunnerError, UsageError
from runtime.instructions import count, read_counts
from runtime.measure import bench_input
from runtime.preprocess import to_input

BATCH = 8


def write_onnx_product(path, constant):
    """A computed (8, n) times the constant (n, n)."""
    sides = [BATCH, len(constant)]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, sides)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, sides)],
        [numpy_helper.from_array(constant, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def write_tflite_product(path, constant):
    """The same, as one FULLY_CONNECTED."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([BATCH, len(constant)], tf.float32)])
    def product(x):
        return x @ constant

    functions = [product.get_concrete_function()]
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions(functions, tf.Module()).convert())


@pytest.fixture(scope="module")
def products(tmp_path_factory):
    """Workloads by format and side."""
    folder, workloads = tmp_path_factory.mktemp("products"), {}
    for side in (128, 256, 512):
        generator = np.random.default_rng(side)
        constant = generator.standard_normal((side, side)).astype(np.float32)
        x = generator.standard_normal((BATCH, side)).astype(np.float32)
        for format, write in (("onnx", write_onnx_product), ("tflite", write_tflite_product)):
            write(folder / f"{side}.{format}", constant)
            workloads[format, side] = Workload(format, folder / f"{side}.{format}", x)
    return workloads


def counted(workloads, cpu):
    return [each.instructions for each in count_instructions(workloads, cpu)]


@pytest.mark.parametrize("cpu", CPUS)
def test_it_computes_what_numpy_computes(arm64, onnx_package, tflite_package, golden_images, expected, cpu):
    for package in (onnx_package, tflite_package):
        x = to_input(golden_images, package.manifest.inputs[0])[:1]
        with open_emulated(package.manifest.format, package.artifact, cpu) as opened:
            for _ in range(2):
                logits, features, *_ = opened.run(x)
                for found, exact in zip((logits, features), expected(x), strict=True):
                    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-4)
        assert f"on ARM64 {cpu}, emulated by qemu 10" in opened.description
        assert opened.output_names[: len(opened.output_names)][0] in ("logits", "output_0")


def test_what_the_emulated_python_is(arm64):
    """Each CPU is another one to whoever asks: by its features, by its part number, and with one core."""
    script = "import ctypes; c = ctypes.CDLL(None); c.getauxval.restype = ctypes.c_ulong; print(c.getauxval(16))"
    features = {cpu: int(arm64.emulated(cpu, script)) for cpu in CPUS}
    half_precision, dot_product, sve = 1 << 10, 1 << 20, 1 << 22
    assert [bool(features["cortex-a53"] & bit) for bit in (half_precision, dot_product, sve)] == [False, False, False]
    assert [bool(features["cortex-a76"] & bit) for bit in (half_precision, dot_product, sve)] == [True, True, False]
    assert [bool(features["max"] & bit) for bit in (half_precision, dot_product, sve)] == [True, True, True]
    for cpu, part in zip(CPUS, ("0xd03", "0xd0b", "0x051"), strict=True):
        described = (arm64.cpus / cpu / "proc" / "cpuinfo").read_text()
        assert f"CPU part\t: {part}" in described
        assert described.count("processor\t:") == 1
        for marks in (None, Path(os.devnull)):  # by either qemu
            launch = arm64.launch(cpu, marks)
            code = "import platform; print(platform.machine(), open('/proc/cpuinfo').read())"
            done = subprocess.run([*launch.command, "-c", code], env=launch.environment, capture_output=True, text=True)
            assert done.stdout.startswith("aarch64 "), done.stderr
            assert f"CPU part\t: {part}" in done.stdout


def test_other_kernels_run_on_another_cpu(arm64, products):
    """XNNPACK has kernels for the Cortex-A53 by its name and for SME; they do the same with other instructions."""
    a53, a76, most = (counted([products["tflite", 512]], cpu)[0] for cpu in CPUS)
    assert a53 > 1.05 * a76
    assert most < 0.8 * a76


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_a_count_repeats_and_grows_with_the_work(arm64, products, format):
    sides = (128, 256, 512)
    workloads = [products[format, side] for side in sides]
    counts = counted(workloads, "cortex-a76")
    np.testing.assert_allclose(counted(workloads, "cortex-a76"), counts, rtol=1e-3)  # in another process
    backwards = counted([*reversed(workloads)], "cortex-a76")
    np.testing.assert_allclose(backwards[::-1], counts, rtol=0, atol=5_000)  # what Python takes to warm up
    for side, found in zip(sides, counts, strict=True):
        fused = BATCH * side * side / 4  # 4 multiply-adds an instruction, and little else
        assert fused < found < 2 * fused + 50_000
    small, middle, large = counts
    assert (large - middle) / (middle - small) == pytest.approx(4, rel=0.1)  # what does not grow cancels


def test_more_than_one_thread_is_not_counted(arm64, products, monkeypatch):
    monkeypatch.setattr(runner, "THREADS", 1)
    with pytest.raises(RunnerError, match="runs 2 threads; one can be counted"):
        counted([products["onnx", 128]], "max")


def test_the_command_counts_and_never_says_latency(arm64, onnx_package, tflite_package, capsys, tmp_path):
    path = tmp_path / "counts.json"
    packages = [str(onnx_package.path), str(tflite_package.path)]
    argv = [*packages, "--on", "arm64", "--count", "instructions", "--cpu", "cortex-a53", "max"]
    assert main([*argv, "--json", str(path)]) == 0
    out, err = capsys.readouterr()
    title, _, *rows = out.splitlines()
    assert title == "Instructions of one inference, one thread, on arm64, emulated by qemu 7.2. A count, not latency."
    assert [row.split()[0] for row in rows] == ["tiny-onnx-fp32", "tiny-tflite-fp32"] * 2
    assert [line.split(":")[0] for line in err.splitlines()] == [
        f"count tiny-onnx-fp32, tiny-tflite-fp32 on {cpu}" for cpu in ("cortex-a53", "max")
    ]
    assert "ms" not in json.loads(path.read_text())["reports"][0]
    reports = read_counts(path).reports
    assert [report.cpu for report in reports] == ["cortex-a53", "cortex-a53", "max", "max"]
    assert all(report.threads == 1 and report.input == "golden image 0: noise 0" for report in reports)
    assert [report.runtime.delegate_partitions for report in reports] == [None, 1, None, 1]

    assert main([*argv[:2], *argv[2:], "--json", "-", "--quiet"]) == 0
    out, err = capsys.readouterr()
    documents.validate(json.loads(out), "instructions-v1", "stdout")
    assert err == ""


def test_what_does_not_go_together(capsys, onnx_package):
    def refused(*options):
        assert main([str(onnx_package.path), *options]) == 2
        out, err = capsys.readouterr()
        assert out == "" and len(err.splitlines()) == 1
        return err

    assert "its time is not latency" in refused("--on", "arm64")
    assert "--count is for arm64, not for host" in refused("--count", "instructions")
    assert "--cpu is for arm64, not for host" in refused("--cpu", "max")
    counting = ("--on", "arm64", "--count", "instructions")
    for option in ("--threads", "--warmup", "--repeats"):
        assert f"{option} is for host" in refused(*counting, option, "3")
    assert "--against is for host" in refused(*counting, "--against", str(onnx_package.path))
    assert "not one of cortex-a53, cortex-a76, max" in refused(*counting, "--cpu", "cortex-a55")
    assert "did you mean 'instructions'?" in refused("--on", "arm64", "--count", "instruction")


def test_what_cannot_be_emulated(tmp_path, onnx_package):
    with pytest.raises(UsageError, match="not for coreml; Core ML runs on Apple devices only"):
        count_instructions([Workload("coreml", tmp_path, np.zeros(1, np.float32))], "max")
    with (
        pytest.raises(UsageError, match=r"'cortex-a5' is not one of .*; did you mean 'cortex-a53'"),
        open_emulated("onnx", onnx_package.artifact, "cortex-a5"),
    ):
        pass
    with pytest.raises(UsageError, match="no such artifact"), open_emulated("onnx", tmp_path / "none", "max"):
        pass


def test_a_corrupt_artifact_is_one_line(arm64, tmp_path):
    (tmp_path / "model.tflite").write_bytes(b"no model at all")
    with pytest.raises(RunnerError, match=r"model\.tflite: litert cannot open it") as refused:
        counted([Workload("tflite", tmp_path / "model.tflite", np.zeros(1, np.float32))], "max")
    assert "\n" not in str(refused.value)


def test_an_input_it_does_not_take_is_refused(arm64, tflite_package):
    with (
        open_emulated("tflite", tflite_package.artifact, "cortex-a53") as opened,
        pytest.raises(RunnerError, match="litert cannot run it"),
    ):
        opened.run(np.zeros((1, 3), np.float32))


def test_a_killed_emulator_is_one_line(arm64, tflite_package):
    x, _ = bench_input(tflite_package)
    with open_emulated("tflite", tflite_package.artifact, "cortex-a76") as opened:
        os.kill(opened.worker.pid, signal.SIGKILL)
        with pytest.raises(RunnerError, match="on cortex-a76: the worker was killed by SIGKILL") as died:
            opened.run(x)
    assert "\n" not in str(died.value)


def test_a_slow_emulator_is_given_up(arm64, tflite_package):
    overdue = r"no answer within 0\.1 s and was killed"
    with pytest.raises(RunnerError, match=overdue):
        count([tflite_package], "max", timeout_s=0.1)
    with (
        pytest.raises(RunnerError, match=overdue),
        open_emulated("tflite", tflite_package.artifact, "max", timeout_s=0.1),
    ):
        pass


def test_it_owes_nothing_to_this_process(arm64, tflite_package, monkeypatch):
    """Neither its environment nor its working directory."""
    x, _ = bench_input(tflite_package)
    for name in ("PYTHONHOME", "PYTHONPATH", "LD_LIBRARY_PATH", "PYTHONSTARTUP"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.chdir("/")
    with open_emulated("tflite", tflite_package.artifact, "cortex-a53") as opened:
        opened.run(x)


class TestSetup:
    """What fills the cache, with stand-ins for what is fetched."""

    @pytest.fixture
    def calls(self, monkeypatch, tmp_path):
        """What was asked for; nothing is fetched, and nothing is run but dpkg-like copies."""
        calls = []

        class Archive:
            def __init__(self, folder, suites):
                calls.append("lists")

            def unpack(self, suite, architecture, packages, into):
                calls.append(f"{suite} {architecture}")
                for part in ("usr/bin/qemu-aarch64", "usr/bin/qemu-mips", "usr/share/doc/x", "etc/y"):
                    (into / part).parent.mkdir(parents=True, exist_ok=True)
                    (into / part).write_text(part)

        def run(command, failure, folder=None):
            calls.append(command[0] if command[0] != sys.executable else "pip")
            if "--target" in command:
                Path(command[command.index("--target") + 1]).mkdir()
            if "-o" in command:
                Path(command[command.index("-o") + 1]).touch()
            return "processor : 0\n"

        monkeypatch.setattr(setup, "Archive", Archive)
        monkeypatch.setattr(setup, "run", run)
        monkeypatch.setattr(setup, "_check_machine", lambda: None)
        monkeypatch.setenv("DMF_CACHE", str(tmp_path / "cache"))
        return calls

    def test_only_what_is_missing_is_made(self, calls):
        said = []
        harness = prepare(said.append)
        assert calls[:4] == ["lists", "trixie amd64", "bookworm amd64", "bookworm arm64"]
        assert calls[4:] == ["pip", *[str(harness.emulator)] * len(CPUS), "gcc"]
        assert said[0].startswith("ARM64 emulation: making qemu-aarch64, counter, sysroot, site-numpy-")
        assert all("MB" in line for line in said[1:-1])
        assert not list(harness.folder.glob("filling-*"))
        assert [path.name for path in (harness.counter / "usr" / "bin").iterdir()] == ["qemu-aarch64"]
        assert (harness.cpus / "max" / "etc" / "y").read_text() == "etc/y"  # the sysroot's

        calls.clear()
        assert prepare(said.append) == harness
        assert calls == []
        shutil.rmtree(harness.packages)
        prepare()
        assert calls == ["pip"]

    def test_what_failed_leaves_no_part(self, calls, monkeypatch):
        failing = setup.run

        def run(command, failure, folder=None):
            if command[0] == "gcc":
                raise RunnerError(f"{failure}: no space")
            return failing(command, failure, folder)

        monkeypatch.setattr(setup, "run", run)
        with pytest.raises(RunnerError, match="the plugin for qemu can't be compiled: no space"):
            prepare()
        folder = setup.cache_folder() / "arm64"
        assert {path.name for path in folder.iterdir() if not path.name.startswith("site-")} == {
            "lock",
            "qemu-aarch64",
            "counter",
            "sysroot",
            "cpus",
        }
        monkeypatch.setattr(setup, "run", failing)
        calls.clear()
        prepare()
        assert calls == ["gcc"]

    def test_another_process_is_waited_for_and_what_a_killed_one_left_is_removed(self, calls):
        folder = setup.cache_folder() / "arm64"
        (folder / "filling-old" / "x").mkdir(parents=True)
        said = []
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            waiting = threading.Thread(target=prepare, args=[said.append])
            waiting.start()
            while not said:
                time.sleep(0.01)
            assert said == [f"waiting for another process, which is filling {folder}"]
            assert calls == []
        waiting.join(30)
        assert calls[0] == "lists"
        assert not list(folder.glob("filling-*"))

    def test_a_cache_that_cannot_be_written(self, calls, monkeypatch, onnx_package, capsys):
        monkeypatch.setenv("DMF_CACHE", "/dev/null/cache")
        assert main([str(onnx_package.path), "--on", "arm64", "--count", "instructions", "--quiet"]) == 5
        out, err = capsys.readouterr()
        assert out == ""
        (line,) = err.splitlines()
        assert line.startswith("dmf-bench: error: /dev/null/cache/arm64: what emulates ARM64 can't be kept there: ")
        assert line.endswith("name another folder in DMF_CACHE")


def test_where_it_cannot_be_had(monkeypatch, tmp_path):
    monkeypatch.setenv("DMF_CACHE", str(tmp_path))
    monkeypatch.setattr(setup.platform, "machine", lambda: "riscv64")
    with pytest.raises(RunnerError, match="on Linux on x86_64 only, and this is Linux on riscv64; use such a machine"):
        prepare()
    monkeypatch.setattr(setup.platform, "machine", lambda: "x86_64")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunnerError, match="no apt-get, dpkg, gcc; it takes Debian 12 or later with gcc installed"):
        prepare()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="no apt here")
def test_without_a_network_it_is_one_line(tmp_path):
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    nowhere = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "DMF_CACHE": str(tmp_path)}
    command = [sys.executable, "-m", "runtime.arm64.setup"]
    done = subprocess.run(command, env=environment | nowhere, capture_output=True, text=True, timeout=120)
    assert done.returncode == 5
    *said, last = done.stderr.splitlines()
    assert [line.split(":")[0] for line in said] == ["ARM64 emulation", "fetching Debian's package lists"]
    assert last.startswith("runtime.arm64.setup: error: Debian's package lists can't be fetched: E:")
    assert [path.name for path in (tmp_path / "arm64").iterdir()] == ["lock"]


def test_nothing_is_reported_to_the_makers_of_onnx_runtime(onnx_package, tmp_path):
    """From 1.29 on it does so by itself, unless told not to: then it keeps a data base in the user's cache folder."""
    code = f"from runtime.runners import open_runner; open_runner('onnx', {str(onnx_package.artifact)!r})"
    home = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    home.pop("ORT_DISABLE_TELEMETRY", None)
    subprocess.run([sys.executable, "-c", code], env=home, check=True)
    assert list(tmp_path.iterdir()) == []
