"""Core ML packages measured on iPhones, and on this Mac, by way of Apple's ``xcrun``.

On a phone the demo app measures: ``devicectl`` copies the package into the app's container, starts the app with
arguments, and copies its result back, a document of the schema ``latency-v3``. On a Mac the command-line benchmark of
``ios_demo`` does the same, with no app. Every compute unit is measured in a process of its own.
"""

import json
import re
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from runtime.errors import RunnerError, UsageError
from runtime.latency import ComputeUnits, LatencyReport
from runtime.logs import keep_log
from runtime.manifest import Package
from runtime.result import read_result

APP = "org.dmf.demo"
TOOL = "dmf-bench-coreml"
CALL_S = 120.0  # of one call of xcrun; the slowest is the copy of a package
POLL_S = 2.0

Say = Callable[[str], None]

COMPLAINTS = (  # what Apple's tools say -> what to do
    (r"unable to find utility|is not a developer tool|invalid active developer path|requires Xcode", "install Xcode "
     "15 or later, start it once, and select it: sudo xcode-select -s /Applications/Xcode.app"),
    (r"could not be, unlocked|device is locked|passcode protected", "the phone is locked: unlock it, and leave it so"),
    (r"explicitly trusted by the user", "the app's developer is not trusted: on the phone, Settings, General, VPN & "
     "Device Management"),
    (r"not been paired|is not paired|Trust This Computer|pairing", "the phone does not trust this Mac: plug it in, "
     "unlock it and confirm"),
    (r"Developer Mode", "developer mode is off: on the phone, Settings, Privacy & Security, Developer Mode"),
    (r"code signature|No code signature|provisioning profile|integrity could not be verified", "the app is not signed "
     "for this phone: choose your team in Xcode and run it once from there"),
    (r"requires a (newer|later) version of iOS|minimum.*OS", "the phone's iOS is older than the app needs: 16"),
    (r"No space|not enough (free )?space|disk full", "the phone is full: make room"),
    (r"not connected|device was disconnected|connection was (lost|interrupted)|No such device|was not found",
     "the phone is gone: plug it in and run this again"),
)  # fmt: skip


@dataclass(frozen=True)
class Measurement:
    """How packages are measured."""

    warmup: int = 10
    repeats: int = 100
    compute_units: tuple[ComputeUnits, ...] = ("all",)
    app: Path | None = None  # a built and signed .app, to be installed first
    timeout_s: float = 600.0
    post_processing: bool = False  # time how a detector's objects are chosen, where its graph does not choose them

    def check(self, package: Package) -> None:
        """UsageError where ``package`` can't be measured so."""
        manifest = package.manifest
        if manifest.format != "coreml":
            raise UsageError(f"{manifest.name}: {manifest.format} is not for Apple devices; give a coreml package")
        if self.app is not None and not self.app.is_dir():
            raise UsageError(f"{self.app}: no such app; build it in Xcode")


@dataclass(frozen=True)
class Phone:
    """One that devicectl lists; ``state`` is None where it can be used, else why it can't."""

    identifier: str
    udid: str
    name: str
    state: str | None


def measure_on_phone(
    packages: Sequence[Package], select: str | None, measurement: Measurement, say: Say = lambda line: None
) -> tuple[list[LatencyReport], list[RunnerError]]:
    """Measure every package on the phone with this UDID or name, or on the only one there is.

    What was measured, and what went wrong with the others: an app that can't be started or fails, a result that does
    not come or makes no sense. UsageError: a package that can't be measured so. RunnerError: no Xcode, no such phone,
    one that can't be used. Each says what to do.
    """
    for package in packages:
        measurement.check(package)
    phone = choose(phones(), select)
    if measurement.app is not None:
        say(f"{phone.name}: install {measurement.app.name}")
        _devicectl("install the app", "device", "install", "app", "--device", phone.identifier, str(measurement.app))
    apps = _devicectl("list apps", "device", "info", "apps", "--device", phone.identifier, "--bundle-id", APP)
    if not _list(apps, "apps"):
        raise RunnerError(
            f"{phone.name}: the app {APP} is not installed; run ios_demo/DMFDemo.xcodeproj on it from Xcode, "
            "or give --app FILE.app"
        )
    session = uuid.uuid4().hex[:8]  # in names that no person gave a package, and that no earlier session left
    folders = {path: f"pushed-{session}-{i}" for i, path in enumerate(dict.fromkeys(each.path for each in packages))}
    reports: list[LatencyReport] = []
    errors: list[RunnerError] = []
    try:
        for path, folder in folders.items():
            functions = [package for package in packages if package.path == path]
            try:
                say(f"{phone.name}: push {path.name}")
                _copy(phone, "to", str(path), f"Documents/packages/{folder}")
            except RunnerError as error:
                errors.append(error)
                continue
            for package, units in product(functions, measurement.compute_units):
                say(f"{phone.name}: measure {package.manifest.name} on {units}")
                try:
                    reports.append(_run_app(phone, package, folder, units, measurement))
                except RunnerError as error:
                    errors.append(error)
    finally:
        _clean_up(phone, list(folders.values()), say)
    return reports, errors


def measure_on_this_mac(
    packages: Sequence[Package], measurement: Measurement, say: Say = lambda line: None
) -> tuple[list[LatencyReport], list[RunnerError]]:
    """Measure every package by the command-line benchmark. Returns and raises what `measure_on_phone` does."""
    for package in packages:
        measurement.check(package)
    tool = _build_tool(say)
    reports: list[LatencyReport] = []
    errors: list[RunnerError] = []
    for package, units in product(packages, measurement.compute_units):
        say(f"measure {package.manifest.name} on {units}")
        try:
            reports.append(_run_tool(tool, package, units, measurement))
        except RunnerError as error:
            errors.append(error)
    return reports, errors


def _run_tool(tool: Path, package: Package, units: ComputeUnits, measurement: Measurement) -> LatencyReport:
    with tempfile.TemporaryDirectory(prefix="dmf-bench-") as folder:
        result = Path(folder) / "result.json"
        options = [*_options(measurement), "--json", str(result)]
        command = [str(tool), str(package.path), *_function(package), "--compute-units", units, *options]
        done = _call(command, measurement.timeout_s)
        if done.returncode or not result.exists():
            raise RunnerError(f"{package.manifest.name} on {units}: {TOOL} failed: {_last_words(done)}")
        return read_result(result.read_text(errors="replace"), package, units, "this Mac")


def phones() -> list[Phone]:
    """The phones that devicectl lists. RunnerError: no Xcode, or an answer that makes no sense."""
    devices = _list(_devicectl("list phones", "list", "devices"), "devices")
    try:
        found = [_phone(device) for device in devices]
    except (KeyError, AttributeError) as error:
        raise RunnerError(
            f"devicectl's list of phones makes no sense ({error}); update Xcode or this toolkit"
        ) from error
    return [phone for phone in found if phone is not None]


def _phone(device: dict[str, Any]) -> Phone | None:
    """None: it is no phone. KeyError, AttributeError: devicectl describes it in another way."""
    hardware, properties = device.get("hardwareProperties", {}), device.get("deviceProperties", {})
    connection = device.get("connectionProperties", {})
    if hardware.get("platform", "iOS") != "iOS":
        return None
    state = None
    if connection.get("pairingState") != "paired":
        state = "does not trust this Mac yet: plug it in, unlock it and confirm"
    elif connection.get("tunnelState") == "unavailable":
        state = "is not connected: plug it in and unlock it"
    elif properties.get("developerModeStatus", "enabled") != "enabled":
        state = "has developer mode off: Settings, Privacy & Security, Developer Mode"
    return Phone(device["identifier"], hardware.get("udid", ""), properties.get("name", "iPhone"), state)


def choose(found: Sequence[Phone], select: str | None) -> Phone:
    """The phone to use. RunnerError: none, several and none selected, a simulator, or one that can't be used."""
    names = ", ".join(f"{phone.name} ({phone.udid})" for phone in found)
    if select is not None:
        fitting = [phone for phone in found if select in (phone.udid, phone.identifier, phone.name)]
        if not fitting and select in _simulators():
            raise RunnerError(
                f"{select} is a simulator, and its time is not latency; measure on a phone, or --on macos"
            )
        if not fitting:
            raise RunnerError(f"there is no phone {select}; " + (f"there is {names}" if names else "plug it in"))
    else:
        fitting = [phone for phone in found if phone.state is None] or list(found)
        if not fitting:
            raise RunnerError("there is no phone: plug one in, unlock it, and trust this Mac on it")
        if len(fitting) > 1:
            raise RunnerError(f"there are {len(fitting)} phones: give --on ios:UDID ({names})")
    if fitting[0].state is not None:
        raise RunnerError(f"{fitting[0].name} {fitting[0].state}")
    return fitting[0]


def _simulators() -> set[str]:
    """UDIDs and names."""
    done = _call(["xcrun", "simctl", "list", "devices", "--json"], CALL_S)
    try:
        listed = json.loads(done.stdout)["devices"]
        return {device[key] for runtime in listed.values() for device in runtime for key in ("udid", "name")}
    except (ValueError, KeyError, TypeError, AttributeError):
        return set()  # none, as far as can be told


def _clean_up(phone: Phone, folders: Sequence[str], say: Say) -> None:
    """Have the app remove the packages and its results: devicectl can't delete. A launch that fails is only said."""
    launch = ("device", "process", "launch", "--device", phone.identifier, "--terminate-existing", APP)
    try:
        _devicectl("clean up", *launch, "--clean-up", ",".join(folders))
    except RunnerError as error:
        say(f"{phone.name}: {', '.join(folders)} stays in the app: {error}")


def _function(package: Package) -> list[str]:
    """The option that says which function is meant, where there are several."""
    function = package.manifest.inputs[0].function
    return [] if function is None else ["--function", function]


def _options(measurement: Measurement) -> list[str]:
    """What the app and the command-line benchmark both take."""
    options = ["--warmup", str(measurement.warmup), "--repeats", str(measurement.repeats)]
    return [*options, "--post-processing"] if measurement.post_processing else options


def _run_app(
    phone: Phone, package: Package, folder: str, units: ComputeUnits, measurement: Measurement
) -> LatencyReport:
    run, name = uuid.uuid4().hex, package.manifest.name
    arguments = ["--benchmark-run", run, "--package", folder, *_function(package), "--compute-units", units]
    arguments += _options(measurement)
    _devicectl(
        f"start the app for {name}",
        *("device", "process", "launch", "--device", phone.identifier, "--terminate-existing", APP, *arguments),
    )
    end = time.monotonic() + measurement.timeout_s
    with tempfile.TemporaryDirectory(prefix="dmf-bench-") as temporary:
        result = Path(temporary) / "result.json"
        while not result.exists():
            if time.monotonic() > end:
                raise RunnerError(
                    f"{phone.name}: no result in {measurement.timeout_s:.0f} s; see what the app shows on the phone; "
                    "give fewer --repeats or a larger --timeout"
                )
            time.sleep(POLL_S)
            try:
                _copy(phone, "from", f"Documents/runs/{run}.json", str(result))
            except _NoSuchFileError:
                continue
        return read_result(result.read_text(errors="replace"), package, units, phone.name)


class _NoSuchFileError(RunnerError):
    """Not yet."""


def _copy(phone: Phone, direction: str, source: str, destination: str) -> None:
    domain = ("--domain-type", "appDataContainer", "--domain-identifier", APP)
    way = ("device", "copy", direction, "--device", phone.identifier, *domain)
    _devicectl(f"copy {Path(source).name}", *way, "--source", source, "--destination", destination)


def _devicectl(what: str, *arguments: str) -> dict[str, Any]:
    """The result that devicectl writes as JSON. RunnerError: it failed, what it complains of and what to do."""
    if shutil.which("xcrun") is None:
        raise RunnerError("there is no xcrun: iPhones are measured from a Mac with Xcode 15 or later")
    with tempfile.TemporaryDirectory(prefix="dmf-devicectl-") as folder:
        output = Path(folder) / "output.json"
        head, tail = (arguments[:1], arguments[1:])
        done = _call(["xcrun", "devicectl", *head, *_with_json(tail, output)], CALL_S)
        text = output.read_text(errors="replace") if output.exists() else ""
    words = f"{done.stderr}\n{text}"
    if done.returncode:
        for pattern, remedy in COMPLAINTS:
            if re.search(pattern, words, re.IGNORECASE):
                raise RunnerError(f"can't {what}: {remedy}")
        if re.search(r"No such file|does not exist|couldn.t be opened", words):
            raise _NoSuchFileError(f"can't {what}: {_last_words(done)}")
        raise RunnerError(f"can't {what}: {_last_words(done)}")
    try:
        result = json.loads(text)["result"]
        if not isinstance(result, dict):
            raise TypeError(f"result is {result!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise RunnerError(
            f"can't {what}: devicectl's answer makes no sense ({error}); it is kept in {keep_log('devicectl', words)}"
        ) from error
    return result


def _with_json(arguments: Sequence[str], output: Path) -> list[str]:
    """With the option that has devicectl write JSON, before what is meant for an app that it starts."""
    option = ["--json-output", str(output)]
    if APP in arguments and "launch" in arguments:
        index = list(arguments).index(APP)
        return [*arguments[:index], *option, *arguments[index:]]
    return [*arguments, *option]


def _list(result: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = result.get(key)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise RunnerError(f"devicectl's answer makes no sense: {key} is {found!r:.100}; update Xcode or this toolkit")
    return found


def _build_tool(say: Say) -> Path:
    folder = Path(__file__).resolve().parents[1] / "ios_demo"
    if shutil.which("xcrun") is None or not folder.is_dir():
        raise RunnerError(f"no {TOOL} here: it is built on a Mac with Xcode 15, from a clone of this project")
    say(f"build {TOOL}")
    done = _call(["xcrun", "swift", "build", "-c", "release", "--package-path", str(folder), "--product", TOOL], 600)
    if done.returncode:
        raise RunnerError(f"{TOOL} does not build: {_last_words(done)}")
    return folder / ".build" / "release" / TOOL


def _call(command: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RunnerError(f"{' '.join(command[:4])}: no answer in {timeout_s:.0f} s") from error
    except OSError as error:
        raise RunnerError(f"{command[0]} can't be run: {error.strerror or error}") from error


def _last_words(done: "subprocess.CompletedProcess[str]") -> str:
    text = " ".join((done.stderr.strip() or done.stdout.strip()).split())
    return text[-300:] or f"exit code {done.returncode}"
