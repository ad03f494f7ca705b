"""runtime/ios.py against a double: a fake ``xcrun`` on PATH, which answers as Apple's tools are documented to.

No Apple tool runs here. The double keeps what is copied to the phone, and plays the app: it puts down the result that a
test has prepared. Its hostile answers are in Apple's words as far as they are public.
"""

import dataclasses
import json
import os
import re
import shutil
import sys

import pytest

from runtime import documents, ios
from runtime.cli import main
from runtime.errors import RunnerError
from runtime.latency import ComputePlan, Device, DeviceState, GoldenCheck, PlannedOps, Results, read_results
from runtime.manifest import Function, hash_files, write_manifest
from runtime.measure import measure

STATE = DeviceState(0, None, 80, False, False, True, ())
XCRUN = """#!{python}
# DOUBLE of xcrun, told what to do by the file behaviour.json beside it
import json, os, pathlib, shutil, sys
here = pathlib.Path(__file__).parent
arguments = sys.argv[1:]
with (here / "calls").open("a") as calls:
    calls.write(json.dumps(arguments) + "\\n")
behaviour = json.loads((here / "behaviour.json").read_text())
step = next((name for name in ("simctl", "devices", "install", "apps", "launch", "to", "from")
             if name in arguments[:5]), None)
answer = behaviour.get(step, {{}})
container = here / "container"
if "stderr" in answer:
    sys.stderr.write(answer["stderr"])
if answer.get("code"):
    sys.exit(answer["code"])
def option(name):
    return arguments[arguments.index(name) + 1]
if step == "simctl":
    print(json.dumps({{"devices": {{"iOS 18": [{{"udid": "SIM-1", "name": "iPhone Simulator"}}]}}}}))
    sys.exit()
if step == "to":
    target = container / option("--destination")
    shutil.copytree(option("--source"), target, dirs_exist_ok=True)
if step == "launch" and "--clean-up" in arguments:
    for name in option("--clean-up").split(","):
        shutil.rmtree(container / "Documents/packages" / name)
    shutil.rmtree(container / "Documents/runs", ignore_errors=True)
elif step == "launch":
    run = option("--benchmark-run")
    units = option("--compute-units")
    assert (container / "Documents/packages" / option("--package") / "manifest.json").exists()
    if "result" in behaviour:
        path = container / "Documents/runs" / (run + ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        function = ":" + option("--function") if "--function" in arguments else ""
        path.write_text(behaviour["result"].replace("UNITS", units).replace("FUNCTION", function))
if step == "from":
    source = container / option("--source")
    if not source.exists():
        sys.stderr.write("ERROR: The file couldn't be opened because there is no such file. (NSCocoaErrorDomain 260)")
        sys.exit(1)
    shutil.copy(source, option("--destination"))
results = {{"devices": {{"devices": behaviour["phones"]}}, "apps": {{"apps": behaviour.get("installed", [{{}}])}}}}
pathlib.Path(option("--json-output")).write_text(answer.get("json", json.dumps({{"result": results.get(step, {{}})}})))
"""


def phone(udid="UDID-1", name="Ada's iPhone", **changes):
    listed = {
        "identifier": f"id-{udid}",
        "hardwareProperties": {"udid": udid, "platform": "iOS"},
        "deviceProperties": {"name": name, "developerModeStatus": "enabled"},
        "connectionProperties": {"pairingState": "paired", "tunnelState": "connected"},
    }
    for key, value in changes.items():
        section = "deviceProperties" if key == "developerModeStatus" else "connectionProperties"
        listed[section][key] = value
    return listed


class Xcrun:
    def __init__(self, folder):
        self.folder = folder
        self.behaviour = {"phones": [phone()]}
        (folder / "xcrun").write_text(XCRUN.format(python=sys.executable))
        (folder / "xcrun").chmod(0o755)
        self.set()

    def set(self, **changes):
        self.behaviour |= changes
        (self.folder / "behaviour.json").write_text(json.dumps(self.behaviour))

    def calls(self):
        return [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]


@pytest.fixture
def xcrun(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DMF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ios, "POLL_S", 0.05)
    return Xcrun(folder)


@pytest.fixture
def coreml(own_package, rehash):
    """A package that says it is for Core ML; nothing here runs it."""
    return rehash(own_package.path, dataclasses.replace(own_package.manifest, format="coreml", target="coreml-ane"))


@pytest.fixture
def report(coreml, onnx_package):
    """What the app would write, with the words UNITS for the compute units and FUNCTION for a function of several."""
    report = measure(onnx_package, warmup=0, repeats=40)
    device = Device("Apple", "iPhone16,2", None, 18, "org.dmf.demo 0.1.0", STATE, STATE)
    unknown = {"python": None, "governor": None, "load_average_before": None, "load_average_after": None}
    return dataclasses.replace(
        report,
        package=f"{coreml.manifest.name}FUNCTION",
        artifact_sha256=coreml.artifact_sha256,
        format="coreml",
        on="ios",
        accelerator="all",
        golden=GoldenCheck(True, 1e-6, 1e-3, "noise 0"),
        compute_plan=ComputePlan(2, 0, 40, (PlannedOps("ios17.conv", "stem.conv", 0, 0, 1),)),
        conditions=dataclasses.replace(report.conditions, device=device, **unknown),
    )


def document(report, accelerator="UNITS"):
    content = documents.to_json(Results(reports=(report,)))
    content["reports"][0]["accelerator"] = accelerator
    return json.dumps(content)


def test_a_package_is_copied_measured_on_each_unit_and_its_result_read(xcrun, coreml, report, tmp_path, capsys):
    xcrun.set(result=document(report))
    path = tmp_path / "out.json"
    units = ["--compute-units", "cpu_only", "cpu_and_neural_engine"]
    assert main([str(coreml.path), "--on", "ios:UDID-1", *units, "--repeats", "40", "--json", str(path)]) == 0
    assert read_results(path).reports == tuple(
        dataclasses.replace(report, package=coreml.manifest.name, accelerator=each)
        for each in ("cpu_only", "cpu_and_neural_engine")
    )
    *launches, clean_up = [call for call in xcrun.calls() if "launch" in call]
    pushed = launches[0][launches[0].index("--package") + 1]
    assert re.fullmatch(r"pushed-[0-9a-f]{8}-0", pushed)
    assert [call[call.index("org.dmf.demo") :][3:] for call in launches] == [
        ["--package", pushed, "--compute-units", each, "--warmup", "10", "--repeats", "40"]
        for each in ("cpu_only", "cpu_and_neural_engine")
    ]
    assert clean_up[clean_up.index("org.dmf.demo") :][1:3] == ["--clean-up", pushed]
    assert [file for file in (xcrun.folder / "container").rglob("*") if file.is_file()] == []
    assert all("--terminate-existing" in call and "id-UDID-1" in call for call in launches)  # a fresh process
    out = capsys.readouterr().out
    assert "iPhone16,2 cpu_only" in out
    assert "Core ML plans 2 operations on the CPU, 0 on the GPU, 40 on the Neural Engine" in out


@pytest.fixture
def functions(own_package, coreml):
    """The same package, whose artifact is said to have two functions."""
    (spec,), parity = coreml.manifest.inputs, coreml.manifest.parity
    (coreml.path / "small-golden.safetensors").write_bytes(coreml.golden.read_bytes())
    manifest = dataclasses.replace(
        coreml.manifest,
        inputs=(dataclasses.replace(spec, function="main"),),
        functions=(Function(dataclasses.replace(spec, function="small"), parity, "small-golden.safetensors"),),
        files=hash_files(coreml.path, labels="labels.txt", golden=("golden.safetensors", "small-golden.safetensors")),
    )
    write_manifest(coreml.path, manifest)
    return coreml.path


def test_every_function_of_a_package_is_measured(xcrun, functions, report, tool, tmp_path):
    """The package is pushed once."""
    xcrun.set(result=document(report))
    name, path = report.package.removesuffix("FUNCTION"), tmp_path / "out.json"
    assert main([str(functions), "--on", "ios", "--json", str(path), "--quiet"]) == 0
    assert [each.package for each in read_results(path).reports] == [f"{name}:main", f"{name}:small"]
    *launches, _ = [call for call in xcrun.calls() if "launch" in call]
    assert [call[call.index("--package") + 2 :][:2] for call in launches] == [
        ["--function", each] for each in ("main", "small")
    ]
    assert len({call[call.index("--package") + 1] for call in launches}) == 1
    assert len([call for call in xcrun.calls() if "to" in call[:5]]) == 1
    tool.write_text(document(dataclasses.replace(report, on="macos")))
    assert main([str(functions), "--on", "macos", "--json", str(path), "--quiet"]) == 0
    assert [each.package for each in read_results(path).reports] == [f"{name}:main", f"{name}:small"]


@pytest.mark.parametrize("asked", [False, True])
def test_choosing_a_detectors_objects_is_timed_if_asked(xcrun, coreml, report, tool, monkeypatch, asked):
    xcrun.set(result=document(report))
    measurement = ios.Measurement(warmup=3, repeats=40, post_processing=asked)
    assert ios.measure_on_phone([coreml], None, measurement)[1] == []
    launched = next(call for call in xcrun.calls() if "launch" in call)
    options = ["--warmup", "3", "--repeats", "40", *["--post-processing"] * asked]
    assert launched[launched.index("--warmup") :] == options
    called, call = [], ios._call
    monkeypatch.setattr(ios, "_call", lambda command, timeout_s: called.append(command) or call(command, timeout_s))
    tool.write_text(document(dataclasses.replace(report, on="macos")))
    assert ios.measure_on_this_mac([coreml], measurement)[1] == []
    ((*words, flag, _),) = called
    assert flag == "--json"
    assert words[words.index("--warmup") :] == options


def test_a_result_of_another_function_is_refused(xcrun, functions, report, capsys):
    xcrun.set(result=document(report).replace("FUNCTION", ":main"))
    assert main([str(functions), "--on", "ios", "--quiet"]) == 5
    assert "makes no sense (it is of ('own-onnx-fp32:main'" in capsys.readouterr().err


def test_an_app_is_installed_first_if_one_is_given(xcrun, coreml, report, tmp_path):
    xcrun.set(result=document(report))
    (tmp_path / "DMFDemo.app").mkdir()
    assert main([str(coreml.path), "--on", "ios", "--app", str(tmp_path / "DMFDemo.app"), "--quiet"]) == 0
    steps = [next(name for name in ("install", "launch", "devices", "apps", "to", "from") if name in call[:5])
             for call in xcrun.calls()]  # fmt: skip
    assert steps.index("install") < steps.index("launch")


LOCKED = """ERROR: The application failed to launch. (com.apple.dt.CoreDeviceError error 10002 (0x2712))
NSLocalizedFailureReason = Unable to launch org.dmf.demo because the device was not, or could not be, unlocked."""
UNTRUSTED = """ERROR: The application failed to launch. Unable to launch org.dmf.demo because it has an invalid code
signature, inadequate entitlements or its profile has not been explicitly trusted by the user."""

UNSIGNED = """ERROR: Failed to install the app on the device. (com.apple.dt.CoreDeviceError error 3002 (0xBBA))
This app cannot be installed because its integrity could not be verified. No code signature found."""
OLD = """ERROR: Failed to install the app on the device.
The application DMFDemo requires a newer version of iOS: its MinimumOSVersion is 16.0, the device has 15.8."""


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ({"phones": []}, "there is no phone: plug one in, unlock it, and trust this Mac"),
        ({"phones": [phone(), phone("UDID-2", "Bo's")]}, r"2 phones: give --on ios:UDID \(Ada's iPhone \(UDID-1\), B"),
        ({"phones": [phone(pairingState="unpaired")]}, "Ada's iPhone does not trust this Mac yet"),
        ({"phones": [phone(tunnelState="unavailable")]}, "Ada's iPhone is not connected: plug it in"),
        ({"phones": [phone(developerModeStatus="disabled")]}, "developer mode off: Settings, Privacy"),
        ({"installed": []}, "the app org.dmf.demo is not installed; run ios_demo/DMFDemo.xcodeproj"),
        ({"launch": {"code": 1, "stderr": LOCKED}}, "can't start the app for .*: the phone is locked: unlock it"),
        ({"launch": {"code": 1, "stderr": UNTRUSTED}}, "developer is not trusted: on the phone, Settings, General"),
        ({"to": {"code": 1, "stderr": "ERROR: No space left on device"}}, "the phone is full: make room"),
        ({"to": {"code": 1, "stderr": "The device was disconnected."}}, "the phone is gone: plug it in and run"),
        ({"devices": {"code": 72, "stderr": "xcrun: error: unable to find utility \"devicectl\""}}, "install Xcode 15"),
        ({"devices": {"code": 1, "stderr": "something new\nof two lines"}}, "can't list phones: something new of two"),
        ({"devices": {"json": "no json"}}, "devicectl's answer makes no sense .* it is kept in "),
        ({"devices": {"json": '{"result": {"devices": 7}}'}}, "makes no sense: devices is 7"),
        ({"phones": [phone() | {"hardwareProperties": None}]}, "devicectl's list of phones makes no sense"),
        ({"phones": [phone() | {"deviceProperties": "Ada"}]}, "devicectl's list of phones makes no sense"),
        ({"phones": [{"hardwareProperties": {"platform": "iOS"}}]}, "phones makes no sense .*'identifier'"),
        ({"launch": {"code": 1, "stderr": UNSIGNED}}, "the app is not signed for this phone: choose your team in"),
        ({"launch": {"code": 1, "stderr": OLD}}, "the phone's iOS is older than the app needs: 16"),
        ({"apps": {"json": "[]"}}, "can't list apps: devicectl's answer makes no sense"),
        ({"result": '{"error": "the model does not fit the Neural Engine"}'}, "on all: the model does not fit"),
        ({"result": '{"schema_version": 2, "reports"'}, r"Ada's iPhone: the app's result makes no sense .* kept in"),
        ({}, r"no result in 1 s; see what the app shows"),
    ],
)  # fmt: skip
def test_what_may_go_wrong_is_one_line_and_5(xcrun, coreml, behaviour, message, capsys):
    xcrun.set(**behaviour)
    assert main([str(coreml.path), "--on", "ios", "--timeout", "1", "--quiet"]) == 5
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    with pytest.raises(RunnerError, match=message):
        raise RunnerError(err)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"artifact_sha256": "0" * 64}, r"it is of \('own-onnx-fp32', '0000"),
        ({"package": "other"}, r"it is of \('other'"),
        ({"p50_ms": -1.0}, r"p50_ms"),
        ({"threads": 0}, "threads"),
    ],
)
def test_a_result_of_something_else_is_refused(xcrun, coreml, report, wrong, message):
    xcrun.set(result=document(dataclasses.replace(report, **wrong)))
    reports, (error,) = ios.measure_on_phone([coreml], None, ios.Measurement())
    assert reports == []
    with pytest.raises(RunnerError, match=message):
        raise error


def test_a_result_of_other_units_is_refused(xcrun, coreml, report):
    xcrun.set(result=document(report, "cpu_only"))
    reports, errors = ios.measure_on_phone([coreml], None, ios.Measurement(compute_units=("all", "cpu_only")))
    assert [report.accelerator for report in reports] == ["cpu_only"]  # what was measured counts
    assert ["'cpu_only'" in str(error) for error in errors] == [True]
    assert [file for file in (xcrun.folder / "container").rglob("*") if file.is_file()] == []  # cleaned up all the same


def test_what_cannot_be_cleaned_up_is_said(xcrun, coreml, report):
    """The measurement counts; here the app's folder has gone meanwhile."""
    said, run_app = [], ios._run_app

    def run_and_lose(*arguments):
        found = run_app(*arguments)
        (pushed,) = (xcrun.folder / "container" / "Documents" / "packages").iterdir()
        pushed.rename(xcrun.folder / "gone")
        return found

    xcrun.set(result=document(report))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ios, "_run_app", run_and_lose)
        reports, errors = ios.measure_on_phone([coreml], None, ios.Measurement(), said.append)
    assert (len(reports), errors) == (1, [])
    assert "-0 stays in the app: can't clean up" in said[-1]


def test_two_packages_of_one_name_are_two(xcrun, coreml, report, tmp_path):
    """Each is pushed and measured; one launch cleans up both."""
    other = tmp_path / "other" / coreml.path.name
    shutil.copytree(coreml.path, other)
    xcrun.set(result=document(report))
    assert main([str(coreml.path), str(other), "--on", "ios", "--quiet"]) == 0
    *launches, clean_up = [call for call in xcrun.calls() if "launch" in call]
    pushed = [call[call.index("--package") + 1] for call in launches]
    assert [name[-2:] for name in pushed] == ["-0", "-1"]
    assert clean_up[clean_up.index("--clean-up") + 1] == ",".join(pushed)


def test_an_xcrun_that_hangs(xcrun, coreml, monkeypatch, capsys):
    (xcrun.folder / "xcrun").write_text("#!/bin/sh\nsleep 60\n")
    monkeypatch.setattr(ios, "CALL_S", 0.2)
    assert main([str(coreml.path), "--on", "ios", "--quiet"]) == 5
    assert "xcrun devicectl list devices: no answer in 0 s" in capsys.readouterr().err


def test_a_simulator_is_not_measured(xcrun, coreml, capsys):
    assert main([str(coreml.path), "--on", "ios:SIM-1", "--quiet"]) == 5
    assert "SIM-1 is a simulator, and its time is not latency" in capsys.readouterr().err
    assert main([str(coreml.path), "--on", "ios:NONE", "--quiet"]) == 5
    assert "there is no phone NONE; there is Ada's iPhone (UDID-1)" in capsys.readouterr().err


def test_one_of_several_phones(xcrun, coreml, report):
    xcrun.set(phones=[phone(), phone("UDID-2", "Bo's")], result=document(report))
    for name in ("UDID-2", "Bo's"):
        reports, errors = ios.measure_on_phone([coreml], name, ios.Measurement())
        assert (len(reports), errors) == (1, [])
    assert all("id-UDID-2" in call for call in xcrun.calls() if "launch" in call)


def test_without_a_mac(coreml, onnx_package, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([str(coreml.path), "--on", "ios", "--quiet"]) == 5
    assert "there is no xcrun: iPhones are measured from a Mac with Xcode 15" in capsys.readouterr().err
    assert main([str(coreml.path), "--on", "macos", "--quiet"]) == 5
    assert "no dmf-bench-coreml here: it is built on a Mac" in capsys.readouterr().err
    assert main([str(onnx_package.path), "--on", "ios", "--quiet"]) == 2
    assert "onnx is not for Apple devices" in capsys.readouterr().err
    assert main([str(coreml.path), "--on", "macos", "--app", "x.app", "--quiet"]) == 2
    assert "--app is for ios, not for macos" in capsys.readouterr().err
    assert main([str(coreml.path), "--on", "ios", "--app", str(tmp_path / "x.app"), "--quiet"]) == 2
    assert "x.app: no such app" in capsys.readouterr().err


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """A double of the benchmark for macOS: it writes what a test has prepared, or fails."""
    path = tmp_path / "dmf-bench-coreml"
    path.write_text(
        "#!/bin/sh\n"
        f'[ -e {tmp_path}/result ] || {{ echo "dmf-bench-coreml: error: no such model" >&2; exit 5; }}\n'
        'function=; [ "$2" = --function ] && { function=":$3"; shift 2; }\n'
        f'for last; do :; done; sed "s/UNITS/$3/; s/FUNCTION/$function/" {tmp_path}/result >"$last"\n'
    )
    path.chmod(0o755)
    monkeypatch.setattr(ios, "_build_tool", lambda say: path)
    return tmp_path / "result"


def test_on_this_mac(tool, coreml, report, capsys):
    reports, (error,) = ios.measure_on_this_mac([coreml], ios.Measurement())
    assert reports == []
    assert "dmf-bench-coreml failed: dmf-bench-coreml: error: no such model" in str(error)
    tool.write_text(document(dataclasses.replace(report, on="macos")))
    assert main([str(coreml.path), "--on", "macos", "--compute-units", "cpu_and_gpu", "all"]) == 0
    assert "iPhone16,2 cpu_and_gpu" in capsys.readouterr().out
