"""The unit tests pass on the JVM, all of them, and what they write is what Python reads."""

import json
import re

import jsonschema
import pytest

from android_demo.host.compiler import Classes, compile_java
from android_demo.host.junit import run_tests
from android_demo.host.process import ToolError
from android_demo.host.project import kotlin_sources
from runtime import documents
from runtime.latency import SCHEMA, read_results


@pytest.fixture(scope="module")
def run(toolchain, classes, tmp_path_factory):
    """The outcome, and the latency results that a test left."""
    report = tmp_path_factory.mktemp("junit") / "latency.json"
    return run_tests(toolchain, classes, report), report


def test_every_test_passes(run):
    outcome, _ = run
    sources = kotlin_sources("classifier", "test") + kotlin_sources("app", "test")
    written = sum(len(re.findall(r"^ *@Test\b", path.read_text(), re.M)) for path in sources)
    assert outcome.count == written > 0


def test_python_reads_what_kotlin_writes(run):
    _, report = run
    jsonschema.validate(json.loads(report.read_text()), documents.load_schema(SCHEMA))
    results = read_results(report)
    assert {each.on for each in results.reports} == {"android"}
    assert results.comparisons == ()


TESTS = """import static org.junit.Assert.assertEquals;

public class SumTest {
    @org.junit.Test
    public void right() { assertEquals(4, 2 + 2); }

    @org.junit.Test
    public void wrong() { assertEquals(%d, 2 + 2); }
}
"""


@pytest.fixture
def run_text(toolchain, tmp_path):
    """Compiles and runs a test class."""

    def run_one(text):
        source, classes = tmp_path / "SumTest.java", Classes(tmp_path / "classes")
        source.write_text(text)
        compile_java([source], toolchain.junit_jars, classes.tests)
        return run_tests(toolchain, classes, tmp_path / "latency.json")

    return run_one


def test_a_test_that_fails_is_named(run_text):
    with pytest.raises(
        ToolError, match=r"^1 unit test fails, the first is wrong\(SumTest\): .*expected:<5> but was:<4>"
    ):
        run_text(TESTS % 5)


def test_those_that_pass_are_counted(run_text):
    assert run_text(TESTS % 4).count == 2


def test_no_test_is_no_success(toolchain, tmp_path):
    with pytest.raises(ToolError, match=r"no class \*Test to run"):
        run_tests(toolchain, Classes(tmp_path), tmp_path / "latency.json")
