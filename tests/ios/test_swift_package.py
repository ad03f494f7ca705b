"""The Swift package builds and passes its tests on Linux, and its latency results are what Python reads."""

import pytest

from android_demo.host.process import ToolError
from ios_demo.host import swift_package
from ios_demo.host.project import ROOT
from ios_demo.host.root import INSIDE, REPOSITORY, inside, run_swift
from ios_demo.host.swift_package import LOGIC_TESTS, TOOL, build, test_functions
from runtime.latency import read_results

test_functions.__test__ = False  # pytest, it is none


@pytest.fixture(scope="module")
def command(toolchain, built, tested):
    """Runs the command-line tool; ToolError has what it prints and its exit code."""
    tool = build(toolchain, built / "package")

    def run(*arguments: str) -> str:
        # the exit code is the last line
        script = '"$@"; echo "exit code $?"'
        return run_swift(
            toolchain, ["sh", "-c", script, "sh", tool, *arguments], TOOL, INSIDE, {built / "package": "built"}
        )

    return run


def test_every_test_function_runs_and_passes(tested):
    assert tested.package_count == test_functions(ROOT / "Tests") > 0
    assert tested.logic_count == test_functions(LOGIC_TESTS) > 0


def test_a_test_that_fails_is_an_error(toolchain, built, tested):
    """Here each that reads a fixture, for there is none: which comes first is up to the order of a folder's files."""
    shared = {built / "package": "built"}
    with pytest.raises(ToolError, match=r"^a test of Swift fails: \S+:\d+: error: \w+\.test\w+ : "):
        swift_package._test(toolchain, inside(ROOT), shared, {"DMF_FIXTURES": "/nowhere"})


def test_python_reads_the_latency_results_of_swift(tested):
    reports = read_results(tested.report).reports
    assert {report.runtime.name for report in reports} == {"coreml"}
    assert {report.on for report in reports} <= {"ios", "macos"}
    assert {report.post_processing for report in reports} == {None, "none", "graph", "runner"}


def test_the_command_says_what_it_takes(command):
    told = command("--help")
    assert told.startswith("usage: dmf-bench-coreml PACKAGE")
    assert told.endswith("exit code 0\n")


@pytest.mark.parametrize(
    ("arguments", "problem", "code"),
    [
        ([], "0 packages were given", 2),
        (["--repeats", "0", "p"], '--repeats: "0" is not a whole number >= 1', 2),
        (["--compute-units", "ane", "p"], 'compute units "ane" are not one of all, ', 2),
        (["p"], "Core ML runs on Apple devices, this is Linux", 5),
    ],
)
def test_the_command_ends_with_a_code_that_tells_why(command, arguments, problem, code):
    told, ended = command(*arguments).splitlines()
    assert told.startswith(f"{TOOL}: error: ")
    assert problem in told
    assert ended == f"exit code {code}"


def test_a_command_sees_the_repository_and_cannot_change_it(toolchain):
    inside_it = ["sh", "-c", f"ls {INSIDE}/repository; touch {INSIDE}/repository/new"]
    with pytest.raises(ToolError, match="Read-only file system") as told:
        run_swift(toolchain, inside_it, "touch")
    assert "pyproject.toml" in told.value.output
    assert not (REPOSITORY / "new").exists()


def test_a_command_has_no_network(toolchain):
    interfaces = run_swift(toolchain, ["cat", "/proc/net/dev"], "cat").splitlines()[2:]
    assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]
