"""``python -m ios_demo.host.build STEP``; exit code 5 where one fails."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from android_demo.host.process import ToolError
from ios_demo.host.lint import lint
from ios_demo.host.project import ROOT
from ios_demo.host.selectors import check_selectors
from ios_demo.host.swift_package import build, run_logic_tests, run_tests
from ios_demo.host.toolchain import Toolchain, prepare
from ios_demo.host.typecheck import typecheck
from ios_demo.host.xcode import check_project
from runtime.errors import CommandError, UsageError

BUILT = ROOT / ".build" / "linux"

Step = Callable[[argparse.Namespace, Path], str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one step and print what came of it."""
    options = _parser().parse_args(arguments)
    step: Step = options.step
    try:
        with tempfile.TemporaryDirectory(prefix="dmf-ios-") as work:
            print(step(options, Path(work)))
    except CommandError as error:
        if isinstance(error, ToolError):
            print(error.output, file=sys.stderr)
        print(f"ios_demo.host.build: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ios_demo.host.build", description=__doc__)
    steps = parser.add_subparsers(required=True, metavar="STEP")
    steps.add_parser("build", help="build the Swift package on Linux").set_defaults(step=_build)
    test = steps.add_parser("test", help="run its tests, and those of what the app does without Apple's frameworks")
    test.add_argument("--report", type=Path, metavar="FILE", help="where the tests leave latency results")
    test.set_defaults(step=_test)
    steps.add_parser("lint", help="check the style of all Swift").set_defaults(step=_lint)
    steps.add_parser("typecheck", help="type-check all Swift against stubs/").set_defaults(step=_typecheck)
    steps.add_parser("selectors", help="compare stubs/ with Apple's headers").set_defaults(step=_selectors)
    steps.add_parser("project", help="check the Xcode project").set_defaults(step=_project)
    return parser


def _toolchain() -> Toolchain:
    return prepare(lambda line: print(line, file=sys.stderr, flush=True))


def _built(name: str) -> Path:
    (BUILT / name).mkdir(parents=True, exist_ok=True)
    return BUILT / name


def _build(options: argparse.Namespace, work: Path) -> str:
    return f"built, {build(_toolchain(), _built('package')).name} among it"


def _test(options: argparse.Namespace, work: Path) -> str:
    report: Path = (options.report or work / "report" / "latency.json").absolute()
    if options.report is None:
        report.parent.mkdir()
    elif not report.parent.is_dir():
        raise UsageError(f"{options.report}: no folder {report.parent}; make it, or name another")
    (work / "logic").mkdir()
    toolchain = _toolchain()
    package = run_tests(toolchain, _built("package"), report)
    logic = run_logic_tests(toolchain, _built("logic"), work / "logic")
    return f"{package.count + logic.count} passed, 0 failed"


def _lint(options: argparse.Namespace, work: Path) -> str:
    return f"{lint(_toolchain())} files are as they should be"


def _typecheck(options: argparse.Namespace, work: Path) -> str:
    return f"{typecheck(_toolchain(), work)} files type-check"


def _selectors(options: argparse.Namespace, work: Path) -> str:
    outcome = check_selectors(_toolchain())
    return (
        f"{outcome.found} declarations agree with Apple's, {outcome.uncompared} of them not in all, and they say why;"
        f" {outcome.swift_only} are Swift's alone and unchecked"
    )


def _project(options: argparse.Namespace, work: Path) -> str:
    outcome = check_project()
    return f"{outcome.targets} targets with {outcome.sources} sources hold together"


if __name__ == "__main__":
    sys.exit(main())
