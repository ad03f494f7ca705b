"""Packages measured on Android phones: pushed, run by the demo app or by LiteRT's ``benchmark_model``, and cleaned up.

The app measures in a process of its own per accelerator, in an activity in front, and writes a document of the schema
``latency-v2``; ``benchmark_model`` runs from a shell and prints a summary (``runtime/benchmark_model.py``).
"""

import hashlib
import json
import shlex
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from runtime import benchmark_model, documents
from runtime.adb import OutOfSpace, Phone, Unplugged, phones
from runtime.errors import RunnerError, UsageError
from runtime.latency import SCHEMA, Accelerator, LatencyReport, Results
from runtime.logs import keep_log
from runtime.manifest import MANIFEST_NAME, Package

APP = "org.dmf.demo"
FOLDER = PurePosixPath("/data/local/tmp/dmf")  # a shell may write there, and since Android 8 an app may read
RESULTS = PurePosixPath(f"/sdcard/Android/data/{APP}/files/runs")
ACCELERATORS: dict[str, tuple[Accelerator, ...]] = {"tflite": ("cpu", "gpu", "nnapi"), "onnx": ("cpu", "nnapi")}
EMULATORS = ("goldfish", "ranchu", "cutf", "qemu")
POLL_S = 2.0
REPLUG_S = 60.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Measurement:
    """What is measured, and how; ``benchmark_model`` replaces the app."""

    threads: int = 1
    warmup: int = 10
    repeats: int = 100
    accelerators: tuple[Accelerator, ...] = ("cpu",)
    benchmark_model: Path | None = None
    timeout_s: float = 600.0

    def check(self, package: Package) -> None:
        """UsageError where ``package`` can't be measured so."""
        manifest = package.manifest
        allowed = ACCELERATORS.get(manifest.format)
        if allowed is None:
            raise UsageError(
                f"{manifest.name}: {manifest.format} does not run on Android; give a tflite or onnx package"
            )
        for accelerator in self.accelerators:
            if accelerator not in allowed:
                raise UsageError(
                    f"{manifest.name}: no {accelerator} for {manifest.format}; choose from {', '.join(allowed)}"
                )
        if self.benchmark_model and manifest.format != "tflite":
            raise UsageError(f"{manifest.name}: benchmark_model runs tflite, not {manifest.format}; use the app")
        if self.benchmark_model and not self.benchmark_model.is_file():
            raise UsageError(f"{self.benchmark_model}: no such file; build LiteRT's benchmark_model or download it")


def measure_on_phones(
    packages: Sequence[Package], select: str | None, measurement: Measurement, say: Say = lambda line: None
) -> tuple[list[LatencyReport], list[RunnerError]]:
    """Measure every package on the phones that ``select`` names (see ``adb.phones``), all phones at once.

    Returns the reports, one per package and accelerator, and one error for each phone that failed. UsageError: a
    package that can't be measured so. RunnerError: there is no phone to use.
    """
    for package in packages:
        measurement.check(package)

    def measure_on(phone: Phone) -> list[LatencyReport] | RunnerError:
        try:
            return _retried(phone, packages, measurement, say)
        except RunnerError as error:
            return error

    found = phones(select)
    pool = ThreadPoolExecutor(len(found))
    try:
        outcomes = list(pool.map(measure_on, found))
    except KeyboardInterrupt:
        for phone in found:
            phone.close()
            phone.reopened().shell(f"am force-stop {APP}; rm -rf {FOLDER}", timeout_s=5)
        raise
    finally:
        pool.shutdown(wait=False)
    errors = [outcome for outcome in outcomes if isinstance(outcome, RunnerError)]
    return [report for outcome in outcomes if isinstance(outcome, list) for report in outcome], errors


def _retried(phone: Phone, packages: Sequence[Package], measurement: Measurement, say: Say) -> list[LatencyReport]:
    """All measurements on one phone; the one during which it is unplugged is begun anew, once."""
    retries = 1
    reports: list[LatencyReport] = []
    for package in packages:
        while True:
            try:
                reports += _measure(phone, package, measurement, say)
                break
            except Unplugged as error:
                if retries == 0:
                    raise RunnerError(
                        f"{error}; it was retried once; what has been pushed will not be again"
                    ) from error
                retries -= 1
                say(f"{phone.serial} was unplugged; waiting {REPLUG_S:.0f} s for it")
                if not phone.wait(REPLUG_S):
                    raise RunnerError(
                        f"{phone.serial} was unplugged while {package.manifest.name} was measured and did not come "
                        "back; plug it in and run this again: what has been pushed will not be again"
                    ) from error
    return reports


def _measure(phone: Phone, package: Package, measurement: Measurement, say: Say) -> list[LatencyReport]:
    properties = phone.properties()
    refuse_emulator(phone.serial, properties)
    if measurement.benchmark_model is None:
        _check_app(phone)
    folder = FOLDER / f"{package.manifest.name}-{_manifest_sha256(package)[:12]}"
    say(f"{phone.serial}: push {package.manifest.name}")
    try:
        push_package(phone, package, folder)
        reports = []
        for accelerator in measurement.accelerators:
            say(f"{phone.serial}: measure {package.manifest.name} on {accelerator}")
            if measurement.benchmark_model is None:
                reports.append(_run_app(phone, package, folder, accelerator, measurement))
            else:
                reports.append(_run_tool(phone, package, folder, accelerator, measurement, properties))
    except Unplugged:
        raise  # what has been pushed stays for the next try
    except RunnerError:
        _remove(phone, folder)
        raise
    _remove(phone, folder)
    return reports


def refuse_emulator(serial: str, properties: dict[str, str]) -> None:
    """RunnerError where the device is no phone: emulated time is not latency."""
    hardware = properties.get("ro.hardware", "")
    if hardware.startswith(EMULATORS) or "1" in (properties.get("ro.boot.qemu"), properties.get("ro.kernel.qemu")):
        raise RunnerError(
            f"{serial} is an emulator ({hardware}), and its time is not latency; "
            "measure on a phone, or count instructions: --on arm64 --count instructions"
        )


def push_package(phone: Phone, package: Package, folder: PurePosixPath) -> None:
    """Copy every file of ``package`` below ``folder``, where an app can read it; what is there already stays.

    OutOfSpace: with what it takes and what is free. Raises what ``Phone.push`` raises.
    """
    names = [MANIFEST_NAME, *(file.path for file in package.manifest.files)]
    folders = sorted({str((folder / name).parent) for name in names})
    phone.check(f"mkdir -p {shlex.join(folders)}", f"can't make {folder}")
    try:
        for name in names:
            phone.push(package.path / name, folder / name)
    except OutOfSpace as error:
        size_mb = sum(file.size_bytes for file in package.manifest.files) / 1e6
        free = phone.shell(f"df -k {FOLDER}").stdout.splitlines()
        free_mb = int(free[-1].split()[3]) * 1024 / 1e6 if free else 0.0
        raise OutOfSpace(
            f"{phone.serial}: no space for {package.manifest.name}: it takes {size_mb:.0f} MB, and "
            f"{free_mb:.0f} MB are free in {FOLDER.parent}; make room on the phone"
        ) from error
    phone.check(f"chmod -R a+rX {shlex.quote(str(folder))}", f"can't open {folder} to the app")


def _remove(phone: Phone, folder: PurePosixPath) -> None:
    phone.shell(f"rm -rf {shlex.quote(str(folder))}; rmdir {FOLDER}")


def _check_app(phone: Phone) -> None:
    if "package:" not in phone.shell(f"pm path {APP}").stdout:
        raise RunnerError(
            f"{phone.serial}: the app {APP} is not installed; adb install it (docs/measure-on-a-phone.md), "
            "or measure without it: --benchmark-model FILE"
        )


def _run_app(
    phone: Phone, package: Package, folder: PurePosixPath, accelerator: Accelerator, measurement: Measurement
) -> LatencyReport:
    run = uuid.uuid4().hex
    result = RESULTS / f"{run}.json"
    extras = ["--es", "run", run, "--es", "package", str(folder), "--es", "accelerators", accelerator]
    for name in ("threads", "warmup", "repeats"):
        extras += ["--ei", name, str(getattr(measurement, name))]
    phone.shell(f"am force-stop {APP}; input keyevent KEYCODE_WAKEUP")  # a fresh process: cold load and peak memory
    started = phone.shell(f"am start -W -n {APP}/.BenchmarkActivity {shlex.join(extras)}")
    if started.code or "Error" in started.stdout + started.stderr:
        raise RunnerError(f"{phone.serial}: the app can't be started: {started.last_words}; install it again")
    try:
        _await(phone, result, measurement.timeout_s)
        return _read(phone, package, accelerator, result)
    finally:
        if phone.is_there():
            phone.shell(f"am force-stop {APP}; rm -f {result}")


def _await(phone: Phone, result: PurePosixPath, timeout_s: float) -> None:
    """Until the app has written ``result``. RunnerError: it crashed, which is told with its log, or took too long."""
    end = time.monotonic() + timeout_s
    question = f"if [ -f {result} ]; then echo done; elif pidof {APP} >&2; then echo running; else echo gone; fi"
    gone = 0
    while time.monotonic() < end:
        state = phone.check(question, "can't look for the result").strip()
        if state == "done":
            return
        gone = gone + 1 if state == "gone" else 0
        if gone == 2:  # not merely starting
            log = keep_log(phone.serial, phone.shell("logcat -d -b crash,main -t 2000").stdout)
            raise RunnerError(f"{phone.serial}: {APP} crashed before it had a result; its log is {log}")
        time.sleep(POLL_S)
    raise RunnerError(
        f"{phone.serial}: no result in {timeout_s:.0f} s; give fewer --repeats or a larger --timeout, "
        "and see on the phone what the app shows"
    )


def _read(phone: Phone, package: Package, accelerator: Accelerator, result: PurePosixPath) -> LatencyReport:
    text = phone.check(f"cat {result}", f"can't read {result}")
    try:
        document = json.loads(text)
        if isinstance(document, dict) and isinstance(document.get("error"), str):
            raise RunnerError(f"{phone.serial}: {package.manifest.name} on {accelerator}: {document['error']}")
        documents.validate(document, SCHEMA, "the app's result")
        (report,) = documents.from_json(Results, document).reports
        measured = (report.artifact_sha256, report.accelerator)
        if measured != (package.artifact_sha256, accelerator):
            raise ValueError(f"it is of {measured}")
    except (ValueError, UsageError) as error:
        raise RunnerError(
            f"{phone.serial}: the app's result makes no sense ({error}); it is kept in {keep_log(phone.serial, text)}; "
            "install the app of this version"
        ) from error
    return report


def _run_tool(
    phone: Phone,
    package: Package,
    folder: PurePosixPath,
    accelerator: Accelerator,
    measurement: Measurement,
    properties: dict[str, str],
) -> LatencyReport:
    assert measurement.benchmark_model is not None
    tool = folder.with_name("benchmark_model")
    phone.push(measurement.benchmark_model, tool)
    command = benchmark_model.command(
        tool,
        folder / package.manifest.artifact,
        accelerator,
        measurement.threads,
        measurement.warmup,
        measurement.repeats,
    )
    before = benchmark_model.device_state(phone)
    answer = phone.shell(f"chmod 755 {tool} && {command} 2>&1", timeout_s=measurement.timeout_s)
    after = benchmark_model.device_state(phone)
    phone.shell(f"rm -f {tool}")
    try:
        if answer.code:
            raise ValueError(f"it ended with {answer.code}")
        summary = benchmark_model.parse(answer.stdout, accelerator, measurement.repeats)
    except ValueError as error:
        raise RunnerError(
            f"{phone.serial}: benchmark_model on {accelerator}: {error}; its output is kept in "
            f"{keep_log(phone.serial, answer.stdout)}"
        ) from error
    return benchmark_model.report(package, summary, measurement.threads, measurement.warmup, properties, before, after)


def _manifest_sha256(package: Package) -> str:
    return hashlib.sha256((package.path / MANIFEST_NAME).read_bytes()).hexdigest()
