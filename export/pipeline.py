"""The way of the data: model -> static graph -> lowered graph -> artifact -> proof -> package."""

import copy
import errno
import os
import shutil
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Literal

import numpy as np
import torch

from dmf import DMF, VARIANTS
from export import provenance
from export.captured import captured
from export.convert import CONVERTERS, FORMATS, Converter
from export.convert.options import Options
from export.layout import NCHW, NHWC, Layout
from export.lowering import Lowering, lower
from export.reparameterize import reparameterize
from export.static import StaticDMF
from export.target import DEFAULT_TARGETS, TARGETS, Target
from export.verify.artifact import verify_artifact
from export.verify.inputs import MEAN, STD, normalize, verification_inputs
from export.verify.parity import TOLERANCES, Verdict
from export.verify.reference import Reference, compute_reference, without_bank
from runtime.commandline import Progress, nearest
from runtime.errors import CommandError, ConverterError, ParityError, RunnerError, UsageError
from runtime.golden import Golden, write_golden
from runtime.manifest import (
    GOLDEN_NAME,
    Checkpoint,
    InputSpec,
    Manifest,
    Model,
    OutputSpec,
    Package,
    hash_files,
    write_manifest,
)
from runtime.manifest import Lowering as LoweringRecord

FOLD_TOLERANCE = 1e-10  # relative, in float64: folds are exact
LABELS_NAME = "labels.txt"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
SILENT = Progress(quiet=True)


@dataclass(frozen=True)
class Origin:
    """Where the weights of a model came from: a file, a seed, or (neither) whoever called `export`."""

    path_name: str | None = None
    seed: int | None = None

    @property
    def source(self) -> Literal["file", "seeded", "memory"]:
        if self.path_name is not None:
            return "file"
        return "memory" if self.seed is None else "seeded"


@dataclass(frozen=True)
class Plan:
    """Every choice of one export, made and checked before any work."""

    variant: str
    converter: Converter
    target: Target
    lowering: Lowering
    precision: str
    batch: int  # -1: any
    input_layout: str
    image_input: bool
    labels: tuple[str, ...] | None

    @property
    def name(self) -> str:
        """The package's folder: variant and format, and whatever is not the default."""
        parts = [self.variant, self.converter.format]
        if self.converter.name != FORMATS[self.converter.format]:
            parts.append(self.converter.name)
        if self.target.name != DEFAULT_TARGETS[self.converter.format]:
            parts.append(self.target.name)
        if self.lowering != self.target.lowering:
            parts.append(str(self.lowering).replace("/", "_"))
        if self.precision != "fp32":
            parts.append(self.precision)
        if self.batch != 1:
            parts.append("batch" if self.batch == -1 else f"batch{self.batch}")
        if self.input_layout != self.converter.input_layout.name:
            parts.append(self.input_layout.lower())
        if self.image_input:
            parts.append("image")
        return "-".join(parts)


def make_plan(
    model: DMF,
    format: str,
    *,
    converter: str | None = None,
    target: str | None = None,
    lowering: str | None = None,
    precision: str = "fp32",
    batch: int = 1,
    input_layout: str | None = None,
    image_input: bool = False,
    labels: tuple[str, ...] | None = None,
) -> Plan:
    """Fill in defaults and refuse what can't be done. Raises `UsageError`."""
    _one_of("format", format, tuple(FORMATS))
    via = CONVERTERS[_one_of("converter", converter or FORMATS[format], tuple(CONVERTERS))]
    if via.format != format:
        raise UsageError(f"converter {via.name} writes {via.format}, not {format}")
    runs_on = TARGETS[_one_of("target", target or DEFAULT_TARGETS[format], tuple(TARGETS))]
    if runs_on.format != format:
        fitting = ", ".join(name for name, t in TARGETS.items() if t.format == format)
        raise UsageError(f"target {runs_on.name} runs {runs_on.format}, not {format}; choose from {fitting}")
    try:
        form = Lowering.parse(lowering) if lowering else runs_on.lowering
    except ValueError as error:
        raise UsageError(str(error)) from error
    if not lowering and form.depthwise not in via.depthwise:
        form = replace(form, depthwise=via.depthwise[0], reason=f"{via.name} can't convert a computed filter")
    if form.pointwise not in via.pointwise or form.depthwise not in via.depthwise:
        raise UsageError(
            f"{via.name} can't convert the lowering {form}; it takes "
            f"{'|'.join(via.pointwise)} / {'|'.join(via.depthwise)}"
        )
    _one_of("precision", precision, tuple(TOLERANCES))
    if precision != "fp32" and format != "coreml":
        raise UsageError(f"precision {precision} exists for coreml only, not for {format}; use fp32")
    if batch == -1 and format != "onnx":
        raise UsageError(f"a dynamic batch exists for onnx only, not for {format}; give a fixed batch")
    if batch == -1 and not form.any_batch:
        raise UsageError(f"the lowering {form} unrolls the batch; for a dynamic one use matmul/taps or matmul/bank")
    layout = _one_of("input layout", input_layout or via.input_layout.name, ("NCHW", "NHWC"))
    if not via.any_input and (batch, layout) != (1, via.input_layout.name):
        raise UsageError(f"{via.name} takes batch 1 and {via.input_layout.name} only, not batch {batch} and {layout}")
    if image_input and (format != "coreml" or batch != 1 or layout != "NCHW"):
        raise UsageError("an image input exists for coreml with batch 1 and NCHW only")
    if labels is not None and len(labels) != model.config.num_classes:
        raise UsageError(f"{len(labels)} labels for {model.config.num_classes} classes")
    via.check_installed()
    if any(not torch.isfinite(value).all() for value in model.state_dict().values()):
        raise UsageError("the model has weights that are not finite (NaN or infinite)")
    return Plan(variant_name(model), via, runs_on, form, precision, batch, layout, image_input, labels)


def variant_name(model: DMF) -> str:
    """The variant that this model is, whatever its ablations, classes and image size; "custom" for none."""
    changes = {
        name: getattr(model.config, name) for name in ("num_classes", "image_size", "grn", "routing", "bank_init")
    }
    changes |= {name: getattr(model.config, name) for name in ("num_kernels", "token_input", "residual_kernel")}
    return next((name for name, config in VARIANTS.items() if replace(config, **changes) == model.config), "custom")


@dataclass(frozen=True, eq=False)
class Prepared:
    """A model with what all of its exports share: the static graph, proven equal, and the reference outputs."""

    model: DMF
    origin: Origin
    graph: StaticDMF
    reference: Reference
    twin_reference: Reference  # of the model with its kernel banks at zero


def prepare(model: DMF, origin: Origin, progress: Progress = SILENT) -> Prepared:
    """Raises `ParityError` if the static graph is not the model."""
    model = copy.deepcopy(model).float().eval()
    with progress.stage("reference: eager PyTorch in float64"):
        inputs = verification_inputs(model)
        reference = compute_reference(model, inputs)
        twin_reference = compute_reference(without_bank(model), inputs)
    with progress.stage("reparameterize: fold, prove in float64"):
        graph = reparameterize(copy.deepcopy(model).double())
        check_folds(graph, reference)
    return Prepared(model, origin, graph.float(), reference, twin_reference)


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
    check_destination(Path(out), plan, overwrite)
    return write_package(plan, prepare(model, origin or Origin()), Path(out), overwrite)


def check_destination(out: Path, plan: Plan, overwrite: bool) -> None:
    """Refuse, before any work, a place where the package can't be written. Raises `UsageError`."""
    for folder in (out, *out.parents):
        if folder.exists():
            break
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file, not a folder; give another --out")
    try:  # what os.access says isn't so for root
        tempfile.TemporaryDirectory(prefix=f".{plan.name}.", dir=folder).cleanup()
    except OSError as error:
        raise UsageError(f"{folder} can't be written to ({error.strerror}); give another --out") from error
    destination = out / plan.name
    if destination.exists() and not overwrite:
        raise UsageError(f"{destination} exists already; give --overwrite to replace it, or another --out")
    if destination.exists() and not destination.is_dir():
        raise UsageError(f"{destination} is a file, not a package; remove it, or give another --out")


def write_package(plan: Plan, prepared: Prepared, out: Path, overwrite: bool, progress: Progress = SILENT) -> Package:
    """Lower, convert, verify and package as planned. Raises as `export` does."""
    reference = prepared.twin_reference if plan.lowering.is_twin else prepared.reference
    spec = input_spec(plan, prepared.model.config.image_size)
    destination, rejected = out / plan.name, out / "rejected" / plan.name
    with workspace(out, plan, prepared.model) as work:
        artifact, log = work / "package" / plan.converter.artifact, work / "log" / "converter.log"
        artifact.parent.mkdir()
        log.parent.mkdir()
        with progress.stage(f"{plan.name}: convert by {plan.converter.name}"):
            convert(plan, prepared, spec, artifact, log, rejected)
        with progress.stage(f"{plan.name}: verify"):
            verdict = prove(plan, spec, artifact, reference, rejected)
        golden = Golden(reference.inputs.images, reference.logits, reference.inputs.names, reference.frozen)
        write_golden(artifact.parent / GOLDEN_NAME, golden)
        if plan.labels is not None:
            (artifact.parent / LABELS_NAME).write_text("".join(f"{label}\n" for label in plan.labels), encoding="utf-8")
        manifest = make_manifest(plan, prepared, spec, verdict, artifact.parent)
        write_manifest(artifact.parent, manifest)
        put_in_place(artifact.parent, destination, work / "replaced", overwrite)
    return Package(destination, manifest)


@contextmanager
def workspace(out: Path, plan: Plan, model: DMF) -> Iterator[Path]:
    """A folder in `out` that is gone afterwards. `UsageError` for a disk that is full, or too full from the start."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        needed = sum(p.numel() for p in model.parameters()) * (2 if plan.precision == "fp16" else 4)
        if (free := shutil.disk_usage(out).free) < needed:  # some converters don't survive to say so
            raise OSError(errno.ENOSPC, f"{free / 1e6:.1f} MB free, {needed / 1e6:.1f} MB needed", str(out))
        with tempfile.TemporaryDirectory(prefix=f".{plan.name}.", dir=out) as folder:
            yield Path(folder)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise UsageError(f"disk full: {out} ({error.strerror}); free some space, or give another --out") from error
        raise


def put_in_place(package: Path, destination: Path, replaced: Path, overwrite: bool) -> None:
    """Rename `package` to `destination`. What was there goes to `replaced`, and back again if that fails."""
    try:
        if destination.exists() and overwrite:
            destination.replace(replaced)
        package.replace(destination)
    except BaseException:
        if replaced.exists() and not destination.exists():
            replaced.replace(destination)
        raise


def input_spec(plan: Plan, size: int) -> InputSpec:
    image = (3, size, size) if plan.input_layout == "NCHW" else (size, size, 3)
    return InputSpec(
        name="image",
        shape=(plan.batch, *image),
        layout="NCHW" if plan.input_layout == "NCHW" else "NHWC",
        dtype="image" if plan.image_input else "float32",
        colour_order="RGB",
        mean=MEAN,
        std=STD,
        normalisation_in_graph=plan.image_input,
        resize=int(size / 0.9),  # the released code's evaluation: the crop is 0.9 of the shorter side
        crop=(size, size),
        interpolation="bicubic",
    )


def convert(plan: Plan, prepared: Prepared, spec: InputSpec, artifact: Path, log: Path, rejected: Path) -> None:
    """Write the artifact. `ConverterError` names the log, kept in `rejected`, of a converter that failed."""
    layouts: dict[str, Layout] = {"NCHW": NCHW(), "NHWC": NHWC()}
    graph = lower(prepared.graph, plan.lowering, plan.converter.layout, layouts[plan.input_layout])
    batch = 2 if plan.batch == -1 else plan.batch  # of a dynamic batch, an example that can't pass for a constant 1
    example = torch.zeros(batch, *spec.shape[1:])
    options = Options(
        log=log,
        metadata={"description": f"Dynamic Mobile-Former {plan.variant}", "lowering": str(plan.lowering)},
        dynamic_batch=plan.batch == -1,
        precision=plan.precision,
        mean=MEAN if plan.image_input else None,
        std=STD if plan.image_input else None,
        labels=plan.labels if plan.image_input else None,
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


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C ends the body, or is raised after it: converters may swallow it, or make another error of it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, interrupted = signal.getsignal(signal.SIGINT), False

    def remember(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        signal.default_int_handler(number, frame)

    if before is signal.default_int_handler:  # not where Ctrl-C is ignored, or someone else's
        signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if interrupted:
            raise KeyboardInterrupt


def disk_full(error: BaseException | None) -> OSError | None:
    """What `error` says of a full disk, itself or as a converter passed it on."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            return error
        if isinstance(error, shutil.Error) and os.strerror(errno.ENOSPC) in str(error):  # many errors in one
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        error = error.__cause__ or error.__context__
    return None


def prove(plan: Plan, spec: InputSpec, artifact: Path, reference: Reference, rejected: Path) -> Verdict:
    """The verdict on an artifact that equals the model. Another is kept in `rejected`, with a report of why.

    Raises `ParityError`; `RunnerError` for an artifact that can't be opened or run.
    """
    failure: type[CommandError] = ParityError
    try:
        with interruptible():
            verdict = verify_artifact(plan.converter.format, artifact, spec, reference, plan.precision)
        failures = verdict.failures
    except (UsageError, OSError, MemoryError):
        raise
    except ValueError as error:  # logits of another shape
        failures = (str(error),)
    except Exception as error:  # RunnerError, and whatever the interpreter of Core ML programs can't read
        failure, failures = RunnerError, (str(error),)
    if not failures:
        return verdict
    (artifact.parent / "report.txt").write_text("".join(f"{line}\n" for line in failures), encoding="utf-8")
    keep_rejected(artifact.parent, rejected)
    message = "; ".join(failures).replace(str(artifact.parent), str(rejected))
    what = "is not the model" if failure is ParityError else "can't be run"
    raise failure(f"{plan.name} {what}: {message}; kept in {rejected}")


def keep_rejected(folder: Path, rejected: Path) -> None:
    """Rename `folder` to `rejected`, in place of what an earlier failure left there."""
    shutil.rmtree(rejected, ignore_errors=True)
    rejected.parent.mkdir(exist_ok=True)
    folder.replace(rejected)


def make_manifest(plan: Plan, prepared: Prepared, spec: InputSpec, verdict: Verdict, folder: Path) -> Manifest:
    config, origin = prepared.model.config, prepared.origin
    outputs = [OutputSpec("logits", (plan.batch, config.num_classes), "float32")]
    return Manifest(
        name=plan.name,
        format=plan.converter.format,  # type: ignore[arg-type]  # one of the schema's formats, as CONVERTERS has them
        artifact=plan.converter.artifact,
        converter=plan.converter.name,
        target=plan.target.name,
        lowering=LoweringRecord(plan.lowering.pointwise, plan.lowering.depthwise, plan.lowering.reason),
        precision="fp16" if plan.precision == "fp16" else "fp32",
        model=Model(plan.variant, sum(p.numel() for p in prepared.model.parameters()), config.to_dict()),
        checkpoint=Checkpoint(
            source=origin.source,
            path_name=origin.path_name,
            seed=origin.seed,
            sha256=provenance.weights_sha256(prepared.model),
        ),
        source=provenance.source(),
        tools=provenance.tools(),
        inputs=(spec,),
        outputs=tuple(outputs),
        labels=LABELS_NAME if plan.labels is not None else None,
        parity=verdict.parity,
        unchecked=unchecked(plan),
        files=hash_files(folder, labels=LABELS_NAME if plan.labels is not None else None),
    )


def unchecked(plan: Plan) -> tuple[str, ...]:
    """What this machine can't check, and the command that does."""
    if plan.converter.format == "coreml" and sys.platform != "darwin":
        return (f"Apple's Core ML runtime: run `dmf-verify {plan.name}` on a Mac",)
    if plan.target.name == "litert-gpu":
        return ("LiteRT's GPU delegate: this host ran the artifact on its CPU",)
    return ()


def _one_of(what: str, given: str, allowed: tuple[str, ...]) -> str:
    if given not in allowed:
        raise UsageError(f"unknown {what} {given!r}; choose from {', '.join(allowed)}{nearest(given, allowed)}")
    return given
