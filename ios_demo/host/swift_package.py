"""The Swift package, and of the app what needs none of Apple's frameworks: built and tested on Linux."""

import re
from dataclasses import dataclass
from pathlib import Path

from android_demo.host.process import ToolError
from ios_demo.host.project import DEMO_MODULE, ROOT, swift_sources
from ios_demo.host.root import INSIDE, REPOSITORY, inside, run_swift
from ios_demo.host.toolchain import Toolchain

FIXTURES = REPOSITORY / "tests" / "fixtures"
LOGIC = ROOT / DEMO_MODULE / "Logic"
LOGIC_TESTS = ROOT / f"{DEMO_MODULE}Tests" / "Logic"
TOOL = "dmf-bench-coreml"
_SCRATCH = INSIDE / "built"
_LOGIC_PACKAGE = f"""// swift-tools-version:5.9
import PackageDescription

let package = Package(
    name: "Logic",
    platforms: [.iOS(.v16), .macOS(.v13)],
    dependencies: [.package(name: "DMF", path: "{inside(ROOT)}")],
    targets: [
        .target(name: "{DEMO_MODULE}", dependencies: [.product(name: "DMFClassifier", package: "DMF")]),
        .testTarget(name: "{DEMO_MODULE}Tests", dependencies: ["{DEMO_MODULE}"])
    ]
)
"""


@dataclass(frozen=True)
class Outcome:
    """How many tests ran, all of which passed, and what XCTest printed."""

    count: int
    output: str


def build(toolchain: Toolchain, built: Path) -> Path:
    """Build all into ``built`` and return the command-line tool, for `run_swift` with ``built`` shared as ``built``.

    ToolError: the first error.
    """
    run_swift(toolchain, _swift("build", inside(ROOT)), "the Swift package can't be built", INSIDE, {built: "built"})
    return _SCRATCH / "debug" / TOOL


def run_tests(toolchain: Toolchain, built: Path, report: Path) -> Outcome:
    """Test the package; a test writes latency results to ``report``, in a folder that is there.

    ToolError: a test failed, the first of which is named, or there is none.
    """
    environment = {"DMF_REPORT": str(INSIDE / "report" / report.name)}
    return _test(toolchain, inside(ROOT), {built: "built", report.parent: "report"}, environment)


def run_logic_tests(toolchain: Toolchain, built: Path, package: Path) -> Outcome:
    """The same for the app's ``Logic``, as a package that is made in ``package``, an empty folder."""
    (package / "Package.swift").write_text(_LOGIC_PACKAGE)
    for kind, name, folder in (("Sources", DEMO_MODULE, LOGIC), ("Tests", f"{DEMO_MODULE}Tests", LOGIC_TESTS)):
        (package / kind).mkdir()
        (package / kind / name).symlink_to(inside(folder))
    return _test(toolchain, INSIDE / "logic", {built: "built", package: "logic"}, {})


def test_functions(folder: Path) -> int:
    """How many tests the sources in ``folder`` have."""
    return sum(len(re.findall(r"^ +func test\w*\(", path.read_text(), re.MULTILINE)) for path in swift_sources(folder))


def _test(toolchain: Toolchain, package: Path, shared: dict[Path, str], environment: dict[str, str]) -> Outcome:
    command = [*_swift("test", package), "--disable-swift-testing"]
    environment = {"DMF_FIXTURES": str(inside(FIXTURES)), **environment}
    output = run_swift(toolchain, command, "a test of Swift fails", INSIDE, shared, environment)
    counts = re.findall(r"^\s*Executed (\d+) tests?, with 0 failures", output, re.MULTILINE)
    if not counts or counts[-1] == "0":
        raise ToolError("XCTest does not say that any test passed", output)
    return Outcome(int(counts[-1]), output)


def _swift(step: str, package: Path) -> list[str | Path]:
    return ["swift", step, "--package-path", package, "--scratch-path", _SCRATCH]
