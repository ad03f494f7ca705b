"""``dmf-verify --matrix``: every artifact that can be made, judged on every machine that can be had here.

A cell is a model, a format, a converter, a lowering, a precision and a machine. What was found is kept in one JSON file
and one page, written after each cell, under a hash of everything that could change it: weights, code, tools, choices.
So a run that was stopped goes on where it was, and only what changed is done again. Cells that nobody asked for or that
were found with other code, are "not run".
"""

import hashlib
import json
import platform
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from time import perf_counter
from typing import Literal

from rich import box
from rich.table import Table

import dmf
from dmf import DMF
from export.convert import CONVERTERS
from export.lowering import NAMES
from export.pipeline import Prepared, prepare, write_package
from export.plan import Plan, make_plan
from export.provenance import Origin, source, tools, weights_sha256
from export.verify.package import verify_package
from export.verify.parity import TOLERANCES
from runtime import documents
from runtime.arm64.runner import FORMATS as EMULATED_FORMATS
from runtime.arm64.setup import CPUS
from runtime.commandline import SILENT, Progress, nearest
from runtime.errors import CommandError, ParityError, UsageError
from runtime.manifest import Package, Parity

SCHEMA = "matrix-v1"
JSON_NAME, PAGE_NAME = "matrix.json", "matrix.html"
HOST = "host"
ROOT = Path(__file__).parents[2]

Status = Literal["proven", "failed", "broken", "impossible", "not run"]


@dataclass(frozen=True)
class Cell:
    """What is judged, and where."""

    model: str
    format: str
    converter: str
    lowering: str
    precision: str
    machine: str

    @property
    def artifact(self) -> tuple[str, ...]:
        """What it shares with the same artifact's cells on other machines."""
        return (self.model, self.format, self.converter, self.lowering, self.precision)


@dataclass(frozen=True)
class Result:
    """A cell and what came of it.

    ``failed``: the artifact is not the model. ``broken``: it could not be made or run. ``impossible``: the converter,
    format or machine has no such thing. The errors are None but for an artifact that answered.
    """

    cell: Cell
    status: Status = "not run"
    reason: str = ""
    max_abs_error: float | None = None
    of_budget: float | None = None  # the largest share of its budget that any input's error is
    checked_by: str | None = None
    seconds: float | None = None
    content: str | None = None  # a hash of whatever could change this


@dataclass(frozen=True)
class Matrix:
    """The document ``matrix.json``."""

    schema_version: int = field(default=1, kw_only=True)
    commit: str | None
    machine: str
    tools: dict[str, str]
    results: tuple[Result, ...]


def every_cell() -> list[Cell]:
    """Twins are not the model, so they are not among them."""
    return [
        Cell(model, converter.format, converter.name, lowering, precision, machine)
        for model in dmf.VARIANTS
        for converter in CONVERTERS.values()
        for lowering in NAMES
        if not lowering.startswith("twin")
        for precision in TOLERANCES
        for machine in (HOST, *CPUS)
    ]


def selected(cells: Iterable[Cell], only: Sequence[str]) -> list[Cell]:
    """Those that fit each `dimension=value,value`. Raises `UsageError` for a dimension or value that there is not."""
    cells, wanted = list(cells), dict[str, set[str]]()
    for each in only:
        dimension, _, values = each.partition("=")
        dimensions = tuple(Cell.__dataclass_fields__)
        if dimension not in dimensions:
            raise UsageError(f"--only {each!r}: choose from {', '.join(f'{name}=...' for name in dimensions)}")
        known = tuple(dict.fromkeys(getattr(cell, dimension) for cell in cells))
        for value in values.split(","):
            if value not in known:
                raise UsageError(f"--only {each!r}: {value!r} is not one of {', '.join(known)}{nearest(value, known)}")
            wanted.setdefault(dimension, set()).add(value)
    return [cell for cell in cells if all(getattr(cell, name) in values for name, values in wanted.items())]


def run(folder: Path, only: Sequence[str], progress: Progress = SILENT) -> Matrix:
    """Do the selected cells that are not known yet, and return all of them; `folder` keeps what is found.

    Raises `UsageError` for a selection that makes no sense or a file that is not a matrix.
    """
    cells, wanted = every_cell(), selected(every_cell(), only)
    impossible = _impossible()
    models = _Models(progress)
    before = {result.cell: result for result in read_matrix(folder).results} if (folder / JSON_NAME).exists() else {}
    results = {}
    for cell in cells:
        known = before.get(cell, Result(cell))
        if cell in impossible:
            known = Result(cell, "impossible", impossible[cell])
        elif known.content is not None and known.content != _content(cell, models.weights(cell.model)):
            known = Result(cell, reason=f"{known.status} with other code, weights or tools")
        results[cell] = known
    folder.mkdir(parents=True, exist_ok=True)
    matrix = _write(folder, results.values())
    todo = [cell for cell in wanted if results[cell].status in ("not run", "broken")]  # a disk may have been full
    for _, group in groupby(todo, key=lambda cell: cell.artifact):
        for result in _judge(list(group), models, folder, progress):
            results[result.cell] = result
            matrix = _write(folder, results.values())
    return matrix


def read_matrix(folder: Path) -> Matrix:
    """What was found so far. Raises `UsageError` for a file that is not a matrix."""
    return documents.from_json(Matrix, documents.read_json(folder / JSON_NAME, SCHEMA))


def page(matrix: Matrix) -> str:
    """The matrix as one HTML document, which fetches nothing."""
    template = (files("export.verify") / "matrix.html").read_text(encoding="utf-8")
    document = json.dumps(documents.to_json(matrix)).replace("<", "\\u003c")  # so that no text can end the script
    return template.replace("MATRIX_JSON", document)


def table(results: Sequence[Result]) -> Table:
    """A row per artifact but for its lowering, a column per lowering: shares of the budget, or what else came of it."""
    lowerings = list(dict.fromkeys(result.cell.lowering for result in results))
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for result in results:
        cell = result.cell
        text = result.status if result.of_budget is None else f"{result.of_budget:.2g}"
        row = (cell.model, cell.format, cell.converter, cell.precision, cell.machine)
        rows.setdefault(row, {})[cell.lowering] = f"{text} FAILED" if result.status == "failed" else text
    counts = Counter(result.status for result in results)
    title = f"error as a share of the budget: {', '.join(f'{n} {status}' for status, n in counts.items())}"
    grid = Table(
        *("model", "format", "converter", "precision", "machine"),
        title=title,
        title_justify="left",
        box=box.SIMPLE,
        pad_edge=False,
    )
    for name in lowerings:
        grid.add_column(name, justify="right")
    for names, cells in rows.items():
        if set(cells.values()) != {"impossible"}:
            grid.add_row(*names, *(cells.get(name, "") for name in lowerings))
    return grid


def _write(folder: Path, results: Iterable[Result]) -> Matrix:
    matrix = Matrix(source().commit, f"{platform.system()} {platform.machine()}", tools(), tuple(results))
    documents.write_json(folder / JSON_NAME, documents.to_json(matrix), SCHEMA)
    (folder / PAGE_NAME).write_text(page(matrix), encoding="utf-8")
    return matrix


class _Models:
    """Models with the weights that an export would have by default, and their references, each made once."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._prepared = progress, dict[str, Prepared]()

    def load(self, name: str) -> tuple[DMF, Origin]:
        if (path := dmf.pretrained(name)) is not None:
            return dmf.load_checkpoint(path, name), Origin(path=Path(path))
        return dmf.seed_weights(dmf.create_model(name), 0), Origin(seed=0)

    @cache  # noqa: B019 (as long-lived as the run)
    def weights(self, name: str) -> str:
        return weights_sha256(self.load(name)[0])

    def prepared(self, name: str) -> Prepared:
        if name not in self._prepared:
            self._prepared.clear()  # one at a time: the largest has 0.1 GB of weights, in several copies
            self._prepared[name] = prepare(*self.load(name), self._progress)
        return self._prepared[name]


@cache
def _impossible() -> Mapping[Cell, str]:
    """Cells that can't be, and why. Of the model it is only the size of its images that makes a difference."""

    sizes = {config.image_size for config in dmf.VARIANTS.values()}
    models = {size: dmf.create_model("dmf_nano", image_size=size) for size in sizes}

    @cache
    def refusal(size: int, format: str, converter: str, lowering: str, precision: str) -> str | None:
        try:
            make_plan(models[size], format, converter=converter, lowering=lowering, precision=precision)
        except UsageError as error:
            return str(error)
        return None

    found = {}
    for cell in every_cell():
        if cell.machine != HOST and cell.format not in EMULATED_FORMATS:
            found[cell] = f"ARM64 is emulated for {' and '.join(EMULATED_FORMATS)}, not for {cell.format}"
        elif reason := refusal(dmf.VARIANTS[cell.model].image_size, *cell.artifact[1:]):
            found[cell] = reason
    return found


def _content(cell: Cell, weights: str) -> str:
    """A hash of whatever could change a cell's result."""
    machine = [cell.machine, platform.system(), platform.machine()]
    parts = [*cell.artifact, *machine, weights, *map(str, sorted(tools().items())), _code()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@cache
def _code() -> str:
    paths = sorted(path for name in ("dmf", "export", "runtime") for path in (ROOT / name).rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def _judge(cells: Sequence[Cell], models: _Models, folder: Path, progress: Progress) -> Iterable[Result]:
    """One artifact, made in `folder`, on each of its machines. One that is rejected here is run nowhere else."""
    first = cells[0]
    start = perf_counter()

    def finished(cell: Cell, result: Result) -> Result:
        content = _content(cell, models.weights(cell.model))
        return replace(result, cell=cell, seconds=round(perf_counter() - start, 1), content=content)

    try:
        package = write_package(_plan(first, models), models.prepared(first.model), folder, True, progress)
    except CommandError as error:
        failure = _failure(first, error)
        for cell in cells:
            elsewhere = Result(cell, reason=f"{failure.status} on {HOST}: it did not come to this machine")
            yield finished(cell, failure) if cell.machine == HOST else elsewhere
        return
    for cell in cells:
        try:
            yield finished(cell, _verdict(cell, package, progress))
        except CommandError as error:
            yield finished(cell, _failure(cell, error))
        start = perf_counter()
    shutil.rmtree(package.path)  # the rejected ones are kept


def _plan(cell: Cell, models: _Models) -> Plan:
    choices: Mapping[str, str] = {
        "converter": cell.converter,
        "lowering": cell.lowering,
        "precision": cell.precision,
    }
    return make_plan(models.prepared(cell.model).model, cell.format, **choices)  # type: ignore[arg-type]  # by name


def _verdict(cell: Cell, package: Package, progress: Progress) -> Result:
    if cell.machine == HOST:
        return _result(cell, package.manifest.parity, ())
    with progress.stage(f"{package.manifest.name}: verify on {cell.machine}"):
        verdict = verify_package(package, cell.machine)
    return _result(cell, verdict.parity, verdict.failures)


def _result(cell: Cell, parity: Parity, failures: Sequence[str]) -> Result:
    per_input = [each for output in parity.outputs for each in output.per_input]
    return Result(
        cell,
        "failed" if failures else "proven",
        "; ".join(failures),
        max(each.max_abs_error for each in per_input),
        max(each.max_abs_error / each.budget_abs_error for each in per_input),
        parity.checked_by,
    )


def _failure(cell: Cell, error: CommandError) -> Result:
    return Result(cell, "failed" if isinstance(error, ParityError) else "broken", str(error))
