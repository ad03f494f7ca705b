"""``python -m android_demo.host.build STEP``: compile, test, lint, api or apk; exit code 5 where one fails."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from android_demo.host.api_check import check_api
from android_demo.host.apk import make_apk, open_packages
from android_demo.host.compiler import Classes, compile_app, compile_classifier, compile_tests
from android_demo.host.junit import run_tests
from android_demo.host.lint import lint
from android_demo.host.process import ToolError
from android_demo.host.resources import link_resources
from android_demo.host.toolchain import Toolchain, prepare
from runtime.errors import CommandError, RunnerError, UsageError

Step = Callable[[Toolchain, argparse.Namespace, Path], str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one step and print what came of it."""
    options = _parser().parse_args(arguments)
    step: Step = options.step
    try:
        toolchain = prepare(lambda line: print(line, file=sys.stderr, flush=True))
        with tempfile.TemporaryDirectory(prefix="dmf-android-") as work:
            print(step(toolchain, options, Path(work)))
    except CommandError as error:
        if isinstance(error, ToolError):
            print(error.output, file=sys.stderr)
        print(f"android_demo.host.build: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m android_demo.host.build", description=__doc__)
    steps = parser.add_subparsers(required=True, metavar="STEP")
    steps.add_parser("compile", help="compile the classifier, the app and their tests").set_defaults(step=_compile)
    test = steps.add_parser("test", help="run their tests on the JVM")
    test.add_argument("--report", type=Path, metavar="FILE", help="where the tests leave latency results")
    test.set_defaults(step=_test)
    steps.add_parser("lint", help="check the style of all Kotlin").set_defaults(step=_lint)
    steps.add_parser("api", help="check that API level 36 has all that is used").set_defaults(step=_api)
    apk = steps.add_parser("apk", help="make a signed APK, with ONNX Runtime only")
    apk.add_argument("out", type=Path, metavar="OUT.apk")
    apk.add_argument("--package", type=Path, nargs="+", default=[], metavar="FOLDER", help="made by dmf-export")
    apk.set_defaults(step=_apk)
    return parser


def _compile_all(toolchain: Toolchain, work: Path) -> Classes:
    classes = compile_classifier(toolchain, work / "classes")
    compile_app(toolchain, classes, link_resources(toolchain, work / "linked").sources)
    compile_tests(toolchain, classes)
    return classes


def _compile(toolchain: Toolchain, options: argparse.Namespace, work: Path) -> str:
    classes = _compile_all(toolchain, work)
    return f"{len(list(classes.folder.rglob('*.class')))} classes compiled"


def _test(toolchain: Toolchain, options: argparse.Namespace, work: Path) -> str:
    outcome = run_tests(toolchain, _compile_all(toolchain, work), options.report or work / "latency.json")
    return f"{outcome.count} passed, 0 failed"


def _lint(toolchain: Toolchain, options: argparse.Namespace, work: Path) -> str:
    return f"{lint(toolchain)} files are as they should be"


def _api(toolchain: Toolchain, options: argparse.Namespace, work: Path) -> str:
    classes = compile_classifier(toolchain, work / "classes")
    compile_app(toolchain, classes, link_resources(toolchain, work / "linked").sources)
    use = check_api(toolchain, [classes.classifier, classes.app])
    if use.missing:
        raise RunnerError(f"API level 36 lacks {len(use.missing)} that the app uses: {'; '.join(use.missing)}")
    newer = "\n".join(f"newer than API level 23, to be guarded: {each}" for each in use.newer)
    return f"{use.reference_count} references of {use.class_count} classes are in API level 36\n{newer}".rstrip()


def _apk(toolchain: Toolchain, options: argparse.Namespace, work: Path) -> str:
    packages = open_packages(options.package)
    if not options.out.absolute().parent.is_dir():
        raise UsageError(f"{options.out}: no folder {options.out.absolute().parent}; make it, or name another")
    classes = compile_classifier(toolchain, work / "classes")
    linked = link_resources(toolchain, work / "linked")
    compile_app(toolchain, classes, linked.sources)
    make_apk(toolchain, classes, linked, packages, work / "apk", options.out)
    held = ", ".join(package.manifest.name for package in packages) or "no package"
    return f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB, with {held}"


if __name__ == "__main__":
    sys.exit(main())
