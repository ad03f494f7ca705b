"""Kotlin and Java to class files.

Android 26 has nearly all that Java 8 has, so ``java.*`` is Java 8's, and the rest is Android's of level 23. What the
sources use and level 23 lacks, and LiteRT, of which no class file can be had here, are small Java sources in
``stubs/``: they precede Android's classes on the class path, and are never packed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from android_demo.host.process import java, joined, run
from android_demo.host.project import ROOT, kotlin_sources
from android_demo.host.toolchain import Toolchain

STUBS = ROOT / "host" / "stubs"


@dataclass(frozen=True)
class Classes:
    """Folders of class files."""

    folder: Path

    @property
    def stubs(self) -> Path:
        return self.folder / "stubs"

    @property
    def classifier(self) -> Path:
        return self.folder / "classifier"

    @property
    def tests(self) -> Path:
        return self.folder / "tests"

    @property
    def resources(self) -> Path:
        return self.folder / "resources"

    @property
    def app(self) -> Path:
        return self.folder / "app"

    @property
    def app_tests(self) -> Path:
        return self.folder / "app_tests"


def compile_classifier(toolchain: Toolchain, to: Path) -> Classes:
    """The stubs and the classifier. ToolError: a source has an error; its file and line."""
    classes = Classes(to)
    compile_java(sorted(STUBS.rglob("*.java")), [toolchain.android_without_java], classes.stubs)
    compile_kotlin(toolchain, kotlin_sources("classifier"), _android(toolchain, classes), classes.classifier)
    return classes


def compile_app(toolchain: Toolchain, classes: Classes, resources: Sequence[Path]) -> None:
    """The app, given its R.java in ``resources``. ToolError: as above."""
    compile_java(resources, [], classes.resources)
    class_path = [classes.classifier, classes.resources, *_android(toolchain, classes)]
    compile_kotlin(toolchain, kotlin_sources("app"), class_path, classes.app)


def compile_tests(toolchain: Toolchain, classes: Classes) -> None:
    """The tests of the classifier, without Android, and of the app; each sees what is internal. ToolError: as above."""
    tools = [*toolchain.junit_jars, toolchain.json_jar]
    for module, tested, to, others in (
        ("classifier", classes.classifier, classes.tests, []),
        ("app", classes.app, classes.app_tests, [classes.classifier, classes.resources, *_android(toolchain, classes)]),
    ):
        compile_kotlin(toolchain, kotlin_sources(module, "test"), [tested, *tools, *others], to, friend=tested)


def _android(toolchain: Toolchain, classes: Classes) -> list[Path]:
    return [classes.stubs, toolchain.android_without_java, toolchain.onnxruntime_jar]


def compile_kotlin(
    toolchain: Toolchain, sources: Sequence[Path], class_path: Sequence[Path], to: Path, friend: Path | None = None
) -> None:
    """Warnings are errors. The internal members of the class files ``friend`` are seen. ToolError: the first error."""
    to.mkdir(parents=True)
    options = ["-no-stdlib", "-no-reflect", "-Werror", "-jvm-target", "1.8", "-Xjdk-release=1.8"]
    options += [f"-Xfriend-paths={friend}"] if friend else []
    options += ["-cp", joined([*class_path, toolchain.kotlin_stdlib]), "-d", str(to)]
    compiler = sorted(toolchain.kotlin.glob("*.jar"))
    main = "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"
    java(compiler, main, [*options, *sources], "Kotlin does not compile")


def compile_java(sources: Sequence[Path], class_path: Sequence[Path], to: Path) -> None:
    """ToolError: the first error."""
    to.mkdir(parents=True)
    if sources:
        options = ["-nowarn", "--release", "8", "-Xlint:-options", "-cp", joined(class_path), "-d", str(to)]
        run(["javac", *options, *sources], "Java does not compile")
