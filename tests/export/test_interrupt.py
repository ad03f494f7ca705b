"""Ctrl-C at any stage: exit code 130, one line, and no half of a package. What was there before stays as it was."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import export.cli
import export.verify.cli
from export.convert import Converter

NAME = "dmf_nano-onnx"
ARGV = ["--model", "dmf_nano", "--seed", "0", "--format", "onnx", "--quiet", "--overwrite"]
CANCELLED = "dmf-export: interrupted\n"


@pytest.fixture(scope="module")
def prepared():
    """The nano model, its static graph and its reference, computed once."""
    return export.cli.prepare(*export.cli.load_model("dmf_nano", None, 0, None))


@pytest.fixture(scope="module")
def package(prepared, tmp_path_factory):
    """A package as the command writes it, by the real converter. Read-only."""
    out = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.cli.prepare", lambda *_: prepared)
        assert export.cli.main([*ARGV, "--out", str(out)]) == 0
    return out / NAME


@pytest.fixture
def older(tmp_path):
    """A package of the same name that was there before."""
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "model.onnx").write_bytes(b"an older one")
    (tmp_path / NAME / "manifest.json").write_bytes(b"of an older one")
    return tmp_path / NAME


@pytest.fixture(autouse=True)
def quick(monkeypatch, prepared, package):
    """Nothing is computed, converted or measured that is not the subject of the test."""
    monkeypatch.setattr("export.pipeline.verification_inputs", lambda _: prepared.reference.inputs)
    monkeypatch.setattr("export.pipeline.compute_reference", lambda *_: prepared.reference)
    monkeypatch.setattr("export.cli.measure", lambda *_, **__: None)
    monkeypatch.setattr(Converter, "load", lambda _: copy_artifact(package))


def copy_artifact(package):
    return lambda _graph, _example, path, _options: shutil.copy(package / "model.onnx", path)


def interrupt(*_, **__):
    raise KeyboardInterrupt


def convert_half(_graph, _example, path, _options):
    path.write_bytes(b"half an artifact")
    os.write(2, b"native code says\n")
    raise KeyboardInterrupt


def contents(folder):
    """Every file below `folder` and what is in it, and every folder."""
    return {path.relative_to(folder): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def is_proven(folder):
    return export.verify.cli.main([str(folder), "--quiet"]) == 0


STAGES = {
    "loading": "export.cli.load_model",
    "planning": "export.cli.make_plan",
    "reference": "export.pipeline.compute_reference",
    "inputs": "export.pipeline.verification_inputs",
    "reparameterize": "export.pipeline.static_graph",
    "folds": "export.pipeline.check_folds",
    "lower": "export.pipeline.lower",
    "verify": "export.pipeline.verify_artifact",
    "golden": "export.pipeline.write_golden",
    "hashes": "export.package.hash_files",
    "manifest": "export.pipeline.write_manifest",
}


@pytest.mark.parametrize("stage", STAGES)
def test_before_the_package_is_in_place(monkeypatch, capfd, tmp_path, older, stage):
    before = contents(tmp_path)
    monkeypatch.setattr(STAGES[stage], interrupt)
    assert export.cli.main([*ARGV, "--out", str(tmp_path)]) == 130
    assert capfd.readouterr() == ("", CANCELLED)
    assert contents(tmp_path) == before


def test_in_the_converter(monkeypatch, capfd, tmp_path, older):
    before = contents(tmp_path)
    monkeypatch.setattr(Converter, "load", lambda _: convert_half)
    assert export.cli.main([*ARGV, "--out", str(tmp_path)]) == 130
    assert capfd.readouterr() == ("", CANCELLED)
    assert contents(tmp_path) == before


def swallow(*_):
    with contextlib.suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def swallow_and_convert(_graph, _example, path, _options):
    swallow()
    path.write_bytes(b"no model")


def swallow_and_fail(_graph, _example, path, _options):
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt as error:
        raise RuntimeError("cancelled") from error


@pytest.fixture
def _sigint():
    """As in a terminal; a job in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler  # given back


@pytest.mark.usefixtures("_sigint")
@pytest.mark.parametrize("convert", [swallow_and_convert, swallow_and_fail])
def test_a_converter_that_swallows_it(monkeypatch, capfd, tmp_path, older, convert):
    """As callbacks from native code do."""
    before = contents(tmp_path)
    monkeypatch.setattr(Converter, "load", lambda _: convert)
    assert export.cli.main([*ARGV, "--out", str(tmp_path)]) == 130
    assert capfd.readouterr() == ("", CANCELLED)
    assert contents(tmp_path) == before


@pytest.mark.usefixtures("_sigint")
def test_a_runtime_that_swallows_it(monkeypatch, capfd, tmp_path, older):
    before = contents(tmp_path)
    monkeypatch.setattr("export.verify.artifact.verify", swallow)
    assert export.cli.main([*ARGV, "--out", str(tmp_path)]) == 130
    assert capfd.readouterr() == ("", CANCELLED)
    assert contents(tmp_path) == before


def test_in_the_converter_without_an_older_package(monkeypatch, tmp_path):
    monkeypatch.setattr(Converter, "load", lambda _: convert_half)
    assert export.cli.main([*ARGV, "--out", str(tmp_path / "new")]) == 130
    assert contents(tmp_path) in ({}, {Path("new"): None})


@pytest.mark.parametrize("moment", ["before the old one is away", "between", "just before", "just after"])
def test_in_the_final_rename(monkeypatch, capfd, tmp_path, older, package, moment):
    before, rename = contents(tmp_path), Path.replace

    def replace(path, destination):
        """Of two renames: the older package out of the way, then the new one in."""
        outward, inward = path == older, path.name == "package"
        if (outward and moment.startswith("before")) or (inward and moment == "just before"):
            raise KeyboardInterrupt
        done = rename(path, destination)
        if (outward and moment == "between") or (inward and moment == "just after"):
            raise KeyboardInterrupt
        return done

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        assert export.cli.main([*ARGV, "--out", str(tmp_path)]) == 130
    assert capfd.readouterr() == ("", CANCELLED)
    if moment == "just after":
        assert is_proven(older)
        assert [path.name for path in tmp_path.iterdir()] == [NAME]
    else:
        assert contents(tmp_path) == before


@pytest.mark.parametrize("stage", ["measure", "results_table"])
def test_after_the_package_is_in_place(monkeypatch, capfd, tmp_path, older, stage):
    monkeypatch.setattr(f"export.cli.{stage}", interrupt)
    assert export.cli.main([*ARGV, "--out", str(tmp_path)]) == 130
    assert capfd.readouterr() == ("", CANCELLED)
    assert is_proven(older)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_in_the_second_of_several_formats(monkeypatch, capfd, tmp_path, package):
    def convert(graph, example, path, options):
        (copy_artifact(package) if path.name == "model.onnx" else convert_half)(graph, example, path, options)

    monkeypatch.setattr(Converter, "load", lambda _: convert)
    argv = ["--model", "dmf_nano", "--seed", "0", "--format", "all", "--quiet", "--out", str(tmp_path)]
    assert export.cli.main(argv) == 130
    assert capfd.readouterr() == ("", CANCELLED)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert is_proven(tmp_path / NAME)


def test_verify(monkeypatch, capfd, package):
    before = contents(package)
    monkeypatch.setattr("export.verify.cli.verify_package", interrupt)
    assert export.verify.cli.main([str(package), "--quiet"]) == 130
    assert capfd.readouterr() == ("", "dmf-verify: interrupted\n")
    assert contents(package) == before


def test_a_real_signal_in_a_real_conversion(tmp_path, older):
    before = contents(tmp_path)
    code = (
        "import signal, sys; from export.cli import main; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "  # a job in the background ignores it
        f"sys.exit(main({[*ARGV, '--out', str(tmp_path)]!r}))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, text=True) as command:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob(".*/log/converter.log")):
            assert command.poll() is None, command.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(1.5)
        command.send_signal(signal.SIGINT)
        out, err = command.communicate(timeout=60)
    assert command.returncode == 130, err
    assert (out, err) == ("", CANCELLED)
    assert contents(tmp_path) == before
