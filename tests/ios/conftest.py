"""The toolchain and what it makes of the project: each made once, whichever process needs it first."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from ios_demo.host.build import BUILT
from ios_demo.host.swift_package import run_logic_tests, run_tests
from ios_demo.host.toolchain import Toolchain, prepare
from ios_demo.host.typecheck import typecheck
from runtime.cache import alone
from runtime.errors import RunnerError


@dataclass(frozen=True)
class Tested:
    """How many tests of the package and of the app passed, and the latency results that one of them wrote."""

    package_count: int
    logic_count: int
    report: Path


@dataclass(frozen=True)
class Typechecked:
    """How many files, and their modules."""

    count: int
    modules: Path


@pytest.fixture(scope="session")
def toolchain() -> Toolchain:
    """Swift, fetched on first use (about a minute); CI can't do without it."""
    try:
        return prepare()
    except RunnerError as error:
        if os.environ.get("CI") or os.environ.get("DMF_REQUIRE_SWIFT"):
            pytest.fail(f"required here: {error}")
        pytest.skip(f"{error}; DMF_REQUIRE_SWIFT=1 makes this a failure")


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """A folder of this run's, the same for all its processes."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "ios"


@pytest.fixture(scope="session")
def built() -> Path:
    """Where the package is built; kept in the clone, as Swift does."""
    for name in ("package", "logic"):
        (BUILT / name).mkdir(parents=True, exist_ok=True)
    return BUILT


@pytest.fixture(scope="session")
def tested(toolchain, built, shared) -> Tested:
    """All Swift tests, which have passed."""
    with alone(shared / "tests", print):
        made = shared / "tests" / "made"
        if not made.exists():
            work = made.with_name("filling-made")
            (work / "logic").mkdir(parents=True)
            package = run_tests(toolchain, built / "package", work / "latency.json")
            logic = run_logic_tests(toolchain, built / "logic", work / "logic")
            (work / "counts").write_text(f"{package.count} {logic.count}")
            work.rename(made)
    package_count, logic_count = map(int, (made / "counts").read_text().split())
    return Tested(package_count, logic_count, made / "latency.json")


@pytest.fixture(scope="session")
def typechecked(toolchain, shared) -> Typechecked:
    """All that uses Apple's frameworks."""
    with alone(shared / "types", print):
        made = shared / "types" / "made"
        if not made.exists():
            work = made.with_name("filling-made")
            work.mkdir(parents=True)
            (work / "count").write_text(str(typecheck(toolchain, work)))
            work.rename(made)
    return Typechecked(int((made / "count").read_text()), made)
