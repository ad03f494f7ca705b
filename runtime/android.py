"""Packages measured on Android phones: pushed, run by the demo app or by LiteRT's ``benchmark_model``, and cleaned up.

The app measures in a process of its own per accelerator, in an activity in front, and writes a document of the schema
``latency-v3``; ``benchmark_model`` runs from a shell and prints a summary (``runtime/benchmark_model.py``).
"""

import hashlib
import re
import shlex
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeVar

from runtime import benchmark_model
from runtime.adb import OutOfSpace, Phone, Unplugged, phones
from runtime.detections import where_chosen
from runtime.errors import RunnerError, UsageError
from runtime.latency import Accelerator, LatencyReport
from runtime.logs import keep_log
from runtime.manifest import MANIFEST_NAME, Package
from runtime.result import read_result

APP = "org.dmf.demo"
FOLDER = PurePosixPath("/data/local/tmp/dmf")  # a shell may write there, and since Android 8 an app may read
RESULTS = PurePosixPath(f"/sdcard/Android/data/{APP}/files/runs")
ACCELERATORS: dict[str, tuple[Accelerator, ...]] = {"tflite": ("cpu", "gpu", "nnapi"), "onnx": ("cpu", "nnapi")}
EMULATORS = ("goldfish", "ranchu", "cutf", "qemu", "vbox86")
TOOL = "benchmark_model"
POLL_S = 2.0
REPLUG_S = 60.0
RESUMED = "what has been pushed will not be again"
MOST_THREADS, MOST_RUNS = 64, 10_000  # that the app takes
T = TypeVar("T")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Measurement:
    """What is measured, and how; ``benchmark_model`` replaces the app.

    With ``post_processing`` the app's choice among a dense detector's boxes counts, too.
    """

    threads: int = 1
    warmup: int = 10
    repeats: int = 100
    accelerators: tuple[Accelerator, ...] = ("cpu",)
    benchmark_model: Path | None = None
    timeout_s: float = 600.0
    post_processing: bool = False

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
        for name, value, most in (
            ("threads", self.threads, MOST_THREADS),
            ("warmup", self.warmup, MOST_RUNS),
            ("repeats", self.repeats, MOST_RUNS),
        ):
            if value > most:
                raise UsageError(f"--{name} is {value}; on a phone it is at most {most}")
        if self.benchmark_model and self.repeats < 2:
            raise UsageError("--repeats 1 has no median; give benchmark_model 2 or more")
        if self.benchmark_model and manifest.format != "tflite":
            raise UsageError(f"{manifest.name}: benchmark_model runs tflite, not {manifest.format}; use the app")
        if self.benchmark_model and where_chosen(manifest.detection, self.post_processing) == "runner":
            raise UsageError(f"{manifest.name}: benchmark_model runs the network alone; use the app")
        if self.benchmark_model and not self.benchmark_model.is_file():
            raise UsageError(f"{self.benchmark_model}: no such file; build LiteRT's benchmark_model or download it")


def measure_on_phones(
    packages: Sequence[Package], select: str | None, measurement: Measurement, say: Say = lambda line: None
) -> tuple[list[LatencyReport], list[RunnerError]]:
    """Measure every package on the phones that ``select`` names (see ``adb.phones``), all phones at once.

    Returns the reports, one per package and accelerator, and an error for whatever could not be measured. UsageError: a
    package that can't be measured so. RunnerError: there is no phone to use.
    """
    for package in packages:
        measurement.check(package)
    sessions = [_Session(phone, measurement, say) for phone in _each_once(phones(select), say)]
    pool = ThreadPoolExecutor(len(sessions))
    try:
        list(pool.map(lambda session: session.measure(packages), sessions))
    except KeyboardInterrupt:
        for session in sessions:
            session.phone.close()
        for session in sessions:
            session.clean_up_after_all()
        raise
    finally:
        pool.shutdown(wait=False)
    reports = [report for session in sessions for report in session.reports]
    return reports, [error for session in sessions for error in session.errors]


def _each_once(found: Sequence[Phone], say: Say) -> list[Phone]:
    """Without those that are plugged in and connected over Wi-Fi, too."""
    phones_by_number: dict[str, Phone] = {}
    for phone in found:
        number = phone.serial
        if len(found) > 1 and phone.problem is None:
            with suppress(RunnerError):
                number = phone.properties().get("ro.serialno") or number
        if number in phones_by_number:
            say(f"{phone.serial} is {phones_by_number[number].serial} once more")
        phones_by_number.setdefault(number, phone)
    return list(phones_by_number.values())


class _Session:
    """The measurements on one phone: what they gave, and what went wrong."""

    def __init__(self, phone: Phone, measurement: Measurement, say: Say) -> None:
        self.phone = phone
        self.reports: list[LatencyReport] = []
        self.errors: list[RunnerError] = []
        self._measurement, self._say = measurement, say
        self._folders: list[PurePosixPath] = []
        self._retries = 1

    def measure(self, packages: Sequence[Package]) -> None:
        """Everything that can be; an accelerator that fails does not keep the next one from being measured."""
        try:
            if self.phone.problem is not None:
                raise RunnerError(self.phone.problem)
            properties = self._retried(self.phone.properties)
            refuse_emulator(self.phone.serial, properties)
            if self._measurement.benchmark_model is None:
                self._retried(partial(_check_app, self.phone))
            for package in packages:
                self._measure(package, properties)
        except RunnerError as error:
            self.errors.append(error)
        except (UsageError, OSError) as error:  # this machine's disk, say
            self.errors.append(RunnerError(f"{self.phone.serial}: {error}"))

    def _measure(self, package: Package, properties: dict[str, str]) -> None:
        folder = FOLDER / f"{package.manifest.name}-{_manifest_sha256(package)[:12]}"
        self._folders.append(folder)
        try:
            for accelerator in self._measurement.accelerators:
                try:
                    self.reports.append(self._retried(partial(self._run, package, folder, accelerator, properties)))
                except (_Gone, OutOfSpace):
                    raise
                except RunnerError as error:
                    self.errors.append(error)
        except _Gone:  # what has been pushed stays for the next try
            raise
        except RunnerError:
            _remove(self.phone, folder)
            raise
        _remove(self.phone, folder)

    def _run(
        self, package: Package, folder: PurePosixPath, accelerator: Accelerator, properties: dict[str, str]
    ) -> LatencyReport:
        phone, measurement, name = self.phone, self._measurement, package.manifest.name
        self._say(f"{phone.serial}: push {name}, measure it on {accelerator}")
        push_package(phone, package, folder)
        if measurement.benchmark_model is None:
            return _run_app(phone, package, folder, accelerator, measurement)
        return _run_tool(phone, package, folder, accelerator, measurement, properties)

    def _retried(self, step: Callable[[], T]) -> T:
        """What ``step`` gives; once, a step during which the phone is unplugged is begun anew."""
        while True:
            try:
                return step()
            except Unplugged as error:
                if self._retries == 0:
                    raise _Gone(f"{error}; it was retried once; {RESUMED}") from error
                self._retries -= 1
                self._say(f"{self.phone.serial} was unplugged; waiting {REPLUG_S:.0f} s for it")
                if not self.phone.wait(REPLUG_S):
                    raise _Gone(
                        f"{self.phone.serial} was unplugged and did not come back; plug it in and run this again: "
                        f"{RESUMED}"
                    ) from error

    def clean_up_after_all(self) -> None:
        """After Ctrl-C, as far as the phone is there."""
        with suppress(RunnerError):
            folders = shlex.join(map(str, self._folders))
            self.phone.reopened().shell(
                f"am force-stop {APP}; pkill {TOOL}; rm -rf {folders} {FOLDER}/{TOOL}; rmdir {FOLDER}", timeout_s=5
            )


class _Gone(RunnerError):
    """Unplugged, and not to be retried."""


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
        listing = phone.shell(f"df -k {FOLDER}").stdout
        free = re.search(r"\s(\d+)\s+\d+%", listing)  # available, before use in percent
        free_text = f"{int(free[1]) * 1024 / 1e6:.0f} MB are free" if free else "less is free"
        raise OutOfSpace(
            f"{phone.serial}: no space for {package.manifest.name}: it takes {size_mb:.0f} MB, and "
            f"{free_text} in {FOLDER.parent}; make room on the phone"
        ) from error
    opened = f"chmod a+rx {FOLDER} && chmod -R a+rX {shlex.quote(str(folder))}"
    phone.check(opened, f"can't open {folder} to the app")


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
    extras += ["--ez", "post_processing", str(measurement.post_processing).lower()]
    phone.shell(f"am force-stop {APP}; input keyevent KEYCODE_WAKEUP")  # a fresh process: cold load and peak memory
    started = phone.shell(f"am start -W -n {APP}/.BenchmarkActivity {shlex.join(extras)}")
    if started.code or "Error" in started.stdout + started.stderr:
        raise RunnerError(f"{phone.serial}: the app can't be started: {started.last_words}; install it again")
    try:
        _await(phone, result, measurement.timeout_s)
        text = phone.check(f"cat {result}", f"can't read {result}")
        return read_result(text, package, accelerator, phone.serial)
    finally:
        with suppress(RunnerError):  # none that would hide what went wrong
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


def _run_tool(
    phone: Phone,
    package: Package,
    folder: PurePosixPath,
    accelerator: Accelerator,
    measurement: Measurement,
    properties: dict[str, str],
) -> LatencyReport:
    assert measurement.benchmark_model is not None
    tool = FOLDER / TOOL
    phone.push(measurement.benchmark_model, tool)
    command = benchmark_model.command(
        tool,
        folder / package.manifest.artifact,
        accelerator,
        measurement.threads,
        measurement.warmup,
        measurement.repeats,
        half=package.manifest.precision == "fp16",
    )
    before = benchmark_model.device_state(phone)
    try:  # one of an earlier run, which lost its connection, may be running still
        answer = phone.shell(f"pkill {TOOL}; chmod 755 {tool} && {command} 2>&1", timeout_s=measurement.timeout_s)
    finally:
        with suppress(RunnerError):
            phone.shell(f"pkill {TOOL}; rm -f {tool}")
    after = benchmark_model.device_state(phone)
    try:
        if answer.code:
            raise ValueError(f"it ended with {answer.code}")
        summary = benchmark_model.parse(answer.stdout, accelerator, measurement.repeats)
        return benchmark_model.report(
            package, summary, measurement.threads, measurement.warmup, properties, before, after
        )
    except ValueError as error:
        raise RunnerError(
            f"{phone.serial}: benchmark_model on {accelerator}: {error}; its output is kept in "
            f"{keep_log(phone.serial, answer.stdout)}"
        ) from error


def _manifest_sha256(package: Package) -> str:
    return hashlib.sha256((package.path / MANIFEST_NAME).read_bytes()).hexdigest()
