"""What is fetched is what the catalogue names, whole or not at all."""

import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from android_demo.host import toolchain as module
from android_demo.host.process import java, run
from android_demo.host.project import read_versions
from android_demo.host.toolchain import Toolchain, prepare
from runtime.errors import RunnerError


def test_the_tools_are_of_the_catalogue_s_versions(toolchain):
    """As each says itself, not as its folder is named."""
    versions = read_versions()
    compiler = "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"
    told = java(sorted(toolchain.kotlin.glob("*.jar")), compiler, ["-version"], "kotlinc")
    assert f"kotlinc-jvm {versions.kotlin} " in told
    library = (toolchain.onnxruntime_libraries / "libonnxruntime.so").read_bytes()
    assert re.findall(rb"\x00(1\.[2-9]\d\.\d+)\x00", library) == [versions.onnxruntime.encode()]
    assert "aapt) 2." in run([toolchain.aapt2, "version"], "aapt2")


def test_what_is_there_is_not_made_again(toolchain):
    said = []
    assert prepare(said.append) == toolchain
    assert said == []


def test_an_onnx_runtime_that_no_package_carries_is_refused(tmp_path):
    with pytest.raises(RunnerError, match=r"onnxruntime 0\.1\.0 of .*libs\.versions\.toml can't be had here, only 1\."):
        module._fetch_onnxruntime("0.1.0", tmp_path / "onnxruntime")


def test_a_part_that_fails_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("DMF_CACHE", str(tmp_path))

    def fail(to):
        to.mkdir()
        (to / "half").touch()
        raise RunnerError("no more network")

    monkeypatch.setattr(module, "_fetch_libraries", fail)
    monkeypatch.setattr(module, "_check_machine", lambda: None)
    with pytest.raises(RunnerError, match="no more network"):
        prepare()
    assert [path.name for path in (tmp_path / "android").iterdir()] == ["lock"]


def test_a_machine_without_java_is_told_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("DMF_CACHE", str(tmp_path))
    found = shutil.which
    monkeypatch.setattr(shutil, "which", lambda command: None if command.startswith("java") else found(command))
    with pytest.raises(RunnerError, match="no java, javac; it takes Debian 12 or later with openjdk-17-jdk-headless"):
        prepare()


def test_the_command_says_in_one_line_why_it_can_t(tmp_path):
    (tmp_path / "android").touch()  # a file, where the folder should be
    command = [sys.executable, "-m", "android_demo.host.toolchain"]
    done = subprocess.run(
        command, env={"PATH": "/usr/bin:/bin", "DMF_CACHE": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 5
    assert done.stderr.count("\n") == 1
    assert "can't be kept there: " in done.stderr


def test_another_version_lies_elsewhere(toolchain):
    """So that a clone of another commit, with another catalogue, does not disturb."""
    other = Toolchain(toolchain.folder, replace(toolchain.versions, kotlin="1.0", onnxruntime="1.0"))
    assert {other.kotlin, other.onnxruntime}.isdisjoint({toolchain.kotlin, toolchain.onnxruntime})
