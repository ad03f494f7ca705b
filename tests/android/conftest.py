"""The toolchain, what it makes of the project, and an APK: each made once, whichever process needs it first."""

import os
from pathlib import Path

import pytest

from android_demo.host.apk import make_apk
from android_demo.host.compiler import Classes, compile_app, compile_classifier, compile_tests
from android_demo.host.junit import FIXTURES
from android_demo.host.resources import Linked, link_resources
from android_demo.host.toolchain import Toolchain, prepare
from runtime.cache import alone
from runtime.errors import RunnerError
from runtime.manifest import Package, open_package


@pytest.fixture(scope="session")
def toolchain() -> Toolchain:
    """What compiles for Android, fetched on first use (about half a minute); CI can't do without it."""
    try:
        return prepare()
    except RunnerError as error:
        if os.environ.get("CI") or os.environ.get("DMF_REQUIRE_ANDROID"):
            pytest.fail(f"required here: {error}")
        pytest.skip(f"{error}; DMF_REQUIRE_ANDROID=1 makes this a failure")


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """A folder of this run's, the same for all its processes."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "android"


@pytest.fixture(scope="session")
def compiled(toolchain, shared) -> tuple[Classes, Linked]:
    """The project's own classes and resources."""
    with alone(shared, print):
        if not (shared / "made").exists():
            work = shared / "filling-made"
            classes = compile_classifier(toolchain, work / "classes")
            compile_app(toolchain, classes, link_resources(toolchain, work / "linked").sources)
            compile_tests(toolchain, classes)
            work.rename(shared / "made")
    linked = shared / "made" / "linked"
    return Classes(shared / "made" / "classes"), Linked(linked / "base.apk", sorted((linked / "gen").rglob("*.java")))


@pytest.fixture(scope="session")
def classes(compiled) -> Classes:
    return compiled[0]


@pytest.fixture(scope="session")
def package() -> Package:
    """A tiny one."""
    return open_package(FIXTURES / "package")


@pytest.fixture(scope="session")
def apk(toolchain, compiled, package, shared) -> Path:
    """The app, with ``package`` in it."""
    classes, linked = compiled
    with alone(shared, print):
        if not (shared / "app.apk").exists():
            work = shared / "filling-apk"
            work.mkdir()
            make_apk(toolchain, classes, linked, [package], work / "contents", work / "app.apk")
            (work / "app.apk").rename(shared / "app.apk")
    return shared / "app.apk"
