"""What is fetched appears whole or not at all, and the command says what a step came to."""

import shutil
import subprocess
import sys

import pytest

from android_demo.host.process import ToolError
from ios_demo.host import build
from ios_demo.host import toolchain as module
from ios_demo.host.root import run_swift
from ios_demo.host.toolchain import SWIFTLINT, Toolchain, prepare
from runtime.errors import RunnerError


def test_the_tools_run(toolchain):
    assert "Swift version 6." in run_swift(toolchain, ["swift", "--version"], "swift")
    major, minor, _ = SWIFTLINT.split(".")
    assert run_swift(toolchain, ["/tmp/dmf/swiftlint", "version"], "swiftlint").startswith(f"{major}.{minor}.")
    assert (toolchain.types / "objc!CoreML.d.ts").exists()


def test_what_is_there_is_not_made_again(toolchain):
    said = []
    assert prepare(said.append) == toolchain
    assert said == []


def test_a_part_that_fails_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("DMF_CACHE", str(tmp_path))

    def fail(to):
        to.mkdir()
        (to / "half").touch()
        raise RunnerError("no more network")

    monkeypatch.setattr(module, "_fetch_root", fail)
    monkeypatch.setattr(module, "_check_machine", lambda: None)
    with pytest.raises(RunnerError, match="no more network"):
        prepare()
    assert [path.name for path in (tmp_path / "swift").iterdir()] == ["lock"]


def test_a_machine_without_npm_is_told_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("DMF_CACHE", str(tmp_path))
    found = shutil.which
    monkeypatch.setattr(shutil, "which", lambda command: None if command == "npm" else found(command))
    with pytest.raises(RunnerError, match=r"no npm; it takes Debian 12 or later with npm, util-linux and iproute2$"):
        prepare()


def test_the_command_says_in_one_line_why_it_can_t(tmp_path):
    (tmp_path / "swift").touch()  # a file, where the folder should be
    done = subprocess.run(
        [sys.executable, "-m", "ios_demo.host.toolchain"],
        env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "DMF_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 5
    assert done.stderr.count("\n") == 1
    assert "can't be kept there: " in done.stderr


@pytest.fixture
def no_tools(monkeypatch, tmp_path):
    monkeypatch.setattr(build, "prepare", lambda say: Toolchain(tmp_path))


def test_a_step_says_what_came_of_it(no_tools, monkeypatch, capsys):
    monkeypatch.setattr(build, "lint", lambda toolchain: 7)
    assert build.main(["lint"]) == 0
    assert capsys.readouterr() == ("7 files are as they should be\n", "")
    assert build.main(["project"]) == 0
    assert capsys.readouterr().out.startswith("2 targets with ")


def test_a_step_that_fails_shows_all_that_its_tool_said_and_one_line_more(no_tools, monkeypatch, capsys):
    def fail(toolchain):
        raise ToolError("SwiftLint complains: A.swift:1:2: first (and 1 more)", "first\nsecond\n")

    monkeypatch.setattr(build, "lint", fail)
    assert build.main(["lint"]) == 5
    told = "first\nsecond\n\nios_demo.host.build: error: SwiftLint complains: A.swift:1:2: first (and 1 more)\n"
    assert capsys.readouterr() == ("", told)


def test_wrong_arguments_are_told_before_any_work(no_tools, capsys, tmp_path):
    assert build.main(["test", "--report", str(tmp_path / "nowhere" / "latency.json")]) == 2
    assert "nowhere; make it, or name another" in capsys.readouterr().err
