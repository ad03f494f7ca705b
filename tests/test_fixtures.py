"""The fixtures that three languages read are those that their generator makes now."""

import importlib.util
import shutil
from pathlib import Path

import pytest

from runtime.golden import read_golden
from runtime.manifest import open_package
from runtime.runners import open_runner

FIXTURES = Path(__file__).parent / "fixtures"
GENERATOR = "generate.py"
LARGEST_BYTES = 600_000


def contents(folder: Path) -> dict[str, bytes]:
    """Every fixture by its path; not the generator, nor what Python leaves beside it."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def changed(made: Path, kept: Path) -> list[str]:
    """The paths of fixtures that differ, or that only one folder has."""
    fresh, old = contents(made), contents(kept)
    return sorted(name for name in fresh.keys() | old.keys() if fresh.get(name) != old.get(name))


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("generate_fixtures", FIXTURES / GENERATOR)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made(generate, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("fixtures")
    generate.write_fixtures(folder)
    return folder


def test_the_fixtures_are_up_to_date(made):
    assert changed(made, FIXTURES) == [], "run python tests/fixtures/generate.py"


def test_a_stale_fixture_is_noticed(made, tmp_path):
    kept = tmp_path / "kept"
    shutil.copytree(made, kept)
    assert changed(made, kept) == []
    images = bytearray((kept / "images.safetensors").read_bytes())
    images[-1] ^= 1
    (kept / "images.safetensors").write_bytes(images)
    (kept / "package" / "labels.txt").unlink()
    (kept / "more.json").write_text("{}")
    assert changed(made, kept) == ["images.safetensors", "more.json", "package/labels.txt"]


def test_the_fixtures_are_small():
    assert sum(map(len, contents(FIXTURES).values())) < LARGEST_BYTES


def test_the_tiny_package_answers_its_golden_vectors(generate):
    """The artifact, by ONNX Runtime; frozen routing would be noticed."""
    package = open_package(FIXTURES / "package")
    golden = generate.golden()
    runner = open_runner("onnx", package.artifact)
    logits = runner.run(generate.to_input(golden.images, package.manifest.inputs[0]))[0]
    errors = abs(logits - golden.logits).max(axis=1)
    assert (errors <= golden.budgets).all()
    frozen_errors = abs(golden.frozen_logits - golden.logits).max(axis=1)
    assert frozen_errors[0] == 0
    assert (frozen_errors[1:] > 100 * golden.budgets[1:]).all()


def test_each_function_has_golden_vectors_of_its_own_size(generate):
    """As its share of the weights answers them; frozen routing would be noticed."""
    functions = open_package(FIXTURES / "package-coreml-sizes").functions
    assert [function.manifest.inputs[0].function for function in functions] == ["main", "size_6"]
    w, frozen = generate.weights()
    for function, side in zip(functions, (8, 6), strict=True):
        golden = read_golden(function.golden)
        inputs = generate.to_input(golden.images, function.manifest.inputs[0]).reshape(3, -1)
        assert inputs.shape == (3, 3 * side * side)
        rows = slice(inputs.shape[1])
        assert abs(inputs @ w[rows] - golden.logits).max() < golden.budgets.min()
        frozen_errors = abs(inputs @ frozen[rows] - golden.logits).max(axis=1)
        assert (frozen_errors[1:] > 100 * golden.budgets[1:]).all()
