"""The way of the data: model -> static graph -> lowered graph -> artifact -> proof -> package."""

import copy
import os
import traceback
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from dmf import DMF
from export.captured import captured, interruptible
from export.convert.options import Options
from export.destination import check_destination, disk_full, keep_rejected, put_in_place, workspace
from export.layout import NCHW, NHWC, Layout
from export.lowering import lower
from export.package import LABELS_NAME, make_manifest
from export.plan import Plan, input_spec, make_plan
from export.provenance import Origin, weights_sha256
from export.reparameterize import reparameterize
from export.scopes import is_within
from export.static import StaticDMF
from export.tuning import tuned
from export.verify.artifact import verify_artifact
from export.verify.inputs import normalize, verification_inputs
from export.verify.parity import ORACLE, TWIN_ORACLE, Verdict
from export.verify.range_audit import audit, refuse, text
from export.verify.reference import Reference, compute_reference, without_bank
from export.verify.taps import find_taps
from runtime.commandline import SILENT, Progress
from runtime.errors import CommandError, ConverterError, ParityError, RunnerError
from runtime.golden import Golden, Taps, write_golden
from runtime.manifest import GOLDEN_NAME, InputSpec, Package, write_manifest
from runtime.preprocess import MEAN, STD

FOLD_TOLERANCE = 1e-10  # relative, in float64: folds are exact


@dataclass(frozen=True, eq=False)
class Prepared:
    """A model with what all of its exports share: the static graph, proven equal, and the reference outputs."""

    model: DMF
    origin: Origin
    graph: StaticDMF
    reference: Reference

    @cached_property
    def twin_reference(self) -> Reference:
        """Of the model with its kernel banks at zero, which the static twin must equal."""
        return compute_reference(without_bank(self.model), self.reference.inputs)


def prepare(model: DMF, origin: Origin, progress: Progress = SILENT) -> Prepared:
    """Raises `ParityError` if the static graph is not the model."""
    model = copy.deepcopy(model).float().eval()
    with progress.stage("reference: eager PyTorch in float64"):
        inputs = verification_inputs(model)
        reference = compute_reference(model, inputs)
    with progress.stage("reparameterize: fold, prove in float64"):
        graph = reparameterize(copy.deepcopy(model).double())
        check_folds(graph, reference)
    return Prepared(model, origin, graph.float(), reference)


@torch.no_grad()
def check_folds(graph: StaticDMF, reference: Reference) -> None:
    """The static graph, of float64, against the reference, two samples at once. Raises `ParityError`."""
    logits = torch.cat([graph(pair) for pair in normalize(reference.inputs.images, torch.float64).split(2)]).numpy()
    error = np.abs(logits - reference.logits).max() / np.abs(reference.logits).max()
    if not error <= FOLD_TOLERANCE:
        raise ParityError(
            f"the reparameterised graph is {error:.2g} (relative) from the model; at most {FOLD_TOLERANCE}"
        )


def export(
    model: DMF,
    format: str,
    *,
    out: str | Path = "build",
    overwrite: bool = False,
    origin: Origin | None = None,
    **choices: object,
) -> Package:
    """Export `model` and prove it; `choices` are those of `make_plan`. The package appears whole or not at all.

    Raises `UsageError`, `ConverterError` (the log is kept under `rejected/`), `ParityError` (the artifact is, too).
    """
    plan = make_plan(model, format, **choices)  # type: ignore[arg-type]  # forwarded by name; make_plan checks them
    check_destination(Path(out), plan.name, overwrite)
    prepared = prepare(model, origin or Origin())
    plan = tuned(plan, prepared.graph, model.config.image_size)
    return write_package(plan, prepared, Path(out), overwrite)


def write_package(plan: Plan, prepared: Prepared, out: Path, overwrite: bool, progress: Progress = SILENT) -> Package:
    """Lower, convert, verify and package as planned. Raises as `export` does."""
    reference = prepared.twin_reference if plan.lowering.is_twin else prepared.reference
    spec = input_spec(plan, prepared.model.config.image_size)
    destination, rejected = out / plan.name, out / "rejected" / plan.name
    needed = sum(p.numel() for p in prepared.model.parameters()) * (2 if plan.precision == "fp16" else 4)
    with workspace(out, plan.name, needed) as work:
        artifact, log = work / "package" / plan.converter.artifact, work / "log" / "converter.log"
        artifact.parent.mkdir()
        log.parent.mkdir()
        if plan.precision == "fp16":
            with progress.stage(f"{plan.name}: range of every module"):
                doubtful = check_range(plan, prepared, reference, log.parent, rejected)
            if doubtful:
                progress.say(f"{plan.name}: a device that adds up in fp16 may overflow in {', '.join(doubtful)}")
        with progress.stage(f"{plan.name}: convert by {plan.converter.name}"):
            convert(plan, prepared, spec, artifact, log, rejected)
        with progress.stage(f"{plan.name}: verify"):
            verdict = prove(plan, prepared, spec, artifact, reference, rejected)
        with progress.stage(f"{plan.name}: golden vectors"):
            write_golden(artifact.parent / GOLDEN_NAME, golden_vectors(plan, prepared, spec, artifact, verdict))
        if plan.labels is not None:
            (artifact.parent / LABELS_NAME).write_text("".join(f"{label}\n" for label in plan.labels), encoding="utf-8")
        manifest = make_manifest(plan, prepared.model, prepared.origin, spec, verdict, artifact.parent)
        write_manifest(artifact.parent, manifest)
        put_in_place(artifact.parent, destination, work / "replaced", overwrite)
    return Package(destination, manifest)


def lowered(plan: Plan, prepared: Prepared) -> StaticDMF:
    """What is converted."""
    layouts: dict[str, Layout] = {"NCHW": NCHW(), "NHWC": NHWC()}
    return lower(prepared.graph, plan.lowering, plan.converter.layout, layouts[plan.input_layout])


def check_range(plan: Plan, prepared: Prepared, reference: Reference, work: Path, rejected: Path) -> list[str]:
    """Modules that fp16 can hold, but perhaps not a sum inside.

    Raises `ParityError` for those that it can't hold; a table of all is then kept in `rejected`, by way of `work`.
    """
    graph = lower(prepared.graph, plan.lowering, plan.converter.layout)  # which takes (B, 3, H, W)
    with captured(Path(os.devnull)), interruptible():
        ranges = audit(graph, normalize(reference.inputs.images))
    try:
        refuse(ranges, plan.keep_fp32)
    except ParityError as error:
        (work / "report.txt").write_text(f"{error}\n\n{text(ranges)}\n", encoding="utf-8")
        keep_rejected(work, rejected)
        raise ParityError(f"{plan.name}: {error}; every module's range is in {rejected / 'report.txt'}") from error
    return [
        each.module for each in ranges if each.verdict == "may overflow" and not is_within(each.module, plan.keep_fp32)
    ]


def convert(plan: Plan, prepared: Prepared, spec: InputSpec, artifact: Path, log: Path, rejected: Path) -> None:
    """Write the artifact. `ConverterError` names the log, kept in `rejected`, of a converter that failed."""
    graph = lowered(plan, prepared)
    batch = 2 if plan.batch == -1 else plan.batch  # of a dynamic batch, an example that can't pass for a constant 1
    example = torch.zeros(batch, *spec.shape[1:])
    options = Options(
        log=log,
        metadata={
            "description": f"Dynamic Mobile-Former {plan.variant}",
            "lowering": str(plan.lowering),
            "weights_sha256": weights_sha256(prepared.model),
        },
        dynamic_batch=plan.batch == -1,
        precision=plan.precision,
        keep_fp32=plan.keep_fp32,
        mean=MEAN if plan.image_input else None,
        std=STD if plan.image_input else None,
        labels=plan.labels if plan.is_classifier else None,
    )
    try:
        with captured(log), interruptible():
            plan.converter.load()(graph, example, artifact, options)
        if not artifact.exists():
            raise RuntimeError(f"it wrote no {artifact.name}")
    except (CommandError, MemoryError):
        raise
    except Exception as error:
        if full := disk_full(error):  # the disk, not the converter
            raise full from error
        with log.open("a", encoding="utf-8") as file:
            file.write("\n" + "".join(traceback.format_exception(error)))
        keep_rejected(log.parent, rejected)
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise ConverterError(
            f"{plan.converter.name} failed: {type(error).__name__}: {reason}; its log is {rejected / log.name}"
        ) from error


def prove(
    plan: Plan, prepared: Prepared, spec: InputSpec, artifact: Path, reference: Reference, rejected: Path
) -> Verdict:
    """The verdict on an artifact that equals the model. Another is kept in `rejected`, with a report of why and where.

    Raises `ParityError`; `RunnerError` for an artifact that can't be opened or run.
    """
    oracle = TWIN_ORACLE if plan.lowering.is_twin else ORACLE
    try:
        verdict = verify_artifact(plan.converter.format, artifact, spec, reference, plan.precision, oracle)
        if not verdict.failures:
            return verdict
        where = first_lost(plan, prepared, spec, artifact, verdict)
        raise ParityError("; ".join([*verdict.failures, *where]))
    except (ParityError, RunnerError) as error:
        (artifact.parent / "report.txt").write_text(f"{error}\n", encoding="utf-8")
        keep_rejected(artifact.parent, rejected)
        message = str(error).replace(str(artifact.parent), str(rejected))
        what = "is not the model" if isinstance(error, ParityError) else "can't be run"
        raise type(error)(f"{plan.name} {what}: {message}; kept in {rejected}") from error


def first_lost(plan: Plan, prepared: Prepared, spec: InputSpec, artifact: Path, verdict: Verdict) -> list[str]:
    """In words, the first module whose output a rejected artifact does not hold; nothing if it holds them all."""
    try:
        lost = taps(plan, prepared, spec, artifact, verdict).untapped
    except RunnerError:  # it answered, but can't be looked into
        return []
    return [f"the first module whose output is not in it: {lost[0]}"] if lost else []


def taps(plan: Plan, prepared: Prepared, spec: InputSpec, artifact: Path, verdict: Verdict) -> Taps:
    """Where the artifact holds its modules' outputs. Raises as `find_taps` does."""
    names = {name for name, _ in prepared.model.named_modules()}
    graph, format, inputs = lowered(plan, prepared), plan.converter.format, prepared.reference.inputs
    return find_taps(graph, names, format, artifact, spec, inputs, verdict.parity.tolerance)


def golden_vectors(plan: Plan, prepared: Prepared, spec: InputSpec, artifact: Path, verdict: Verdict) -> Golden:
    """What a proven artifact must answer, and its modules compute. Raises as `find_taps` does."""
    reference = prepared.twin_reference if plan.lowering.is_twin else prepared.reference
    (logits,) = verdict.parity.outputs
    return Golden(
        reference.inputs.images,
        reference.logits,
        np.array([each.budget_abs_error for each in logits.per_input]),
        reference.inputs.names,
        reference.frozen,
        taps(plan, prepared, spec, artifact, verdict),
    )
