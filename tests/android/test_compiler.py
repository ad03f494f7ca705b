"""The sources compile, against what a phone of the oldest kind has."""

import re

import pytest

from android_demo.host.compiler import compile_kotlin
from android_demo.host.process import ToolError
from android_demo.host.project import kotlin_sources


def test_the_project_compiles(classes):
    for folder, sources in (
        (classes.classifier, kotlin_sources("classifier")),
        (classes.tests, kotlin_sources("classifier", "test")),
        (classes.app, kotlin_sources("app")),
        (classes.app_tests, kotlin_sources("app", "test")),
    ):
        compiled = {path.stem for path in folder.rglob("*.class")}
        assert len(sources) > 0
        assert len(compiled) >= len(sources)
    assert {"BenchmarkActivity", "ModelPackage"} <= {path.stem for path in classes.folder.rglob("*.class")}


@pytest.fixture
def compile_one(toolchain, tmp_path):
    """Compiles one Kotlin file against Android."""

    def compile_text(text):
        source = tmp_path / "Sample.kt"
        source.write_text(text)
        class_path = [toolchain.android_without_java, toolchain.onnxruntime_jar]
        compile_kotlin(toolchain, [source], class_path, tmp_path / "classes")
        return sorted(path.name for path in (tmp_path / "classes").rglob("*.class"))

    return compile_text


ANDROID_26 = """package sample

import ai.onnxruntime.OrtEnvironment
import android.os.Build
import java.time.Instant

class Sample {
    fun now(): Long = Math.addExact(Instant.now().epochSecond, Build.VERSION.SDK_INT.toLong())

    fun name(): String = OrtEnvironment.getEnvironment().version
}
"""


def test_android_java_8_and_onnx_runtime_are_there(compile_one):
    assert compile_one(ANDROID_26) == ["Sample.class"]


def test_errors_name_their_lines(compile_one):
    """A type, what came with Java 9, and what came with API level 31."""
    wrong = (
        'fun count(): Int = "one"',
        "fun high(): Long = Math.multiplyHigh(1, 2)",
        "fun soc(): String = Build.SOC_MODEL",
    )
    with pytest.raises(ToolError) as failed:
        compile_one(ANDROID_26.rstrip("}\n") + "\n\n    " + "\n    ".join(wrong) + "\n}\n")
    errors = re.findall(r"Sample\.kt:(\d+):\d+: error: (.*)", failed.value.output)
    assert [int(line) for line, _ in errors] == [12, 13, 14]
    told = ("return type mismatch", "unresolved reference 'multiplyHigh'", "unresolved reference 'SOC_MODEL'")
    assert all(each in error for each, (_, error) in zip(told, errors, strict=True))
    assert re.match(r"Kotlin does not compile: \S*Sample\.kt:12:\d+: error: .* \(and 2 more\)$", str(failed.value))


def test_a_warning_is_an_error(compile_one):
    with pytest.raises(ToolError, match=r"^Kotlin does not compile: \S*Sample\.kt:1:\d+: warning: .* is deprecated"):
        compile_one("fun old() = java.util.Date(1, 2, 3)\n")


def test_internal_members_are_seen_by_friends_only(toolchain, tmp_path):
    inner, outer = tmp_path / "Inner.kt", tmp_path / "Outer.kt"
    inner.write_text("internal fun inner(): Int = 1\n")
    outer.write_text("fun outer(): Int = inner()\n")
    compile_kotlin(toolchain, [inner], [], tmp_path / "inner")
    compile_kotlin(toolchain, [outer], [tmp_path / "inner"], tmp_path / "friend", friend=tmp_path / "inner")
    with pytest.raises(ToolError, match=r"Outer\.kt:1:\d+: error: cannot access 'fun inner"):
        compile_kotlin(toolchain, [outer], [tmp_path / "inner"], tmp_path / "stranger")
