"""The unit tests of the classifier and of the app, on the JVM of this machine, where there is no Android."""

import re
from dataclasses import dataclass
from pathlib import Path

from android_demo.host.compiler import Classes
from android_demo.host.process import ToolError, java
from android_demo.host.project import ROOT
from android_demo.host.toolchain import Toolchain

FIXTURES = ROOT.parent / "tests" / "fixtures"


@dataclass(frozen=True)
class Outcome:
    """How many tests ran, all of which passed, and what JUnit printed."""

    count: int
    output: str


def run_tests(toolchain: Toolchain, classes: Classes, report: Path) -> Outcome:
    """Run every class ``*Test``; a test writes latency results to ``report``.

    ToolError: a test failed, the first of which is named, or there is none.
    """
    names = sorted(
        ".".join(path.relative_to(folder).with_suffix("").parts)
        for folder in (classes.tests, classes.app_tests)
        for path in folder.rglob("*Test.class")
    )
    if not names:
        raise ToolError(f"{classes.folder}: no class *Test to run", "")
    class_path = [classes.tests, classes.app_tests, classes.classifier, classes.app, classes.resources]
    class_path += [*toolchain.junit_jars, toolchain.json_jar, toolchain.kotlin_stdlib]
    properties = [f"-Ddmf.fixtures={FIXTURES}", f"-Ddmf.report={report}"]
    try:
        output = java(class_path, "org.junit.runner.JUnitCore", names, "a unit test fails", properties)
    except ToolError as error:
        failed = re.findall(r"^\d+\) (.*)\n(.*)", error.output, re.MULTILINE)
        if not failed:
            raise
        number = "1 unit test fails" if len(failed) == 1 else f"{len(failed)} unit tests fail"
        raise ToolError(f"{number}, the first is {failed[0][0]}: {failed[0][1]}", error.output) from error
    passed = re.search(r"^OK \((\d+) tests?\)$", output, re.MULTILINE)
    if passed is None:
        raise ToolError("JUnit does not say how many tests passed", output)
    return Outcome(int(passed[1]), output)
