"""The way of the data: model -> static graph -> lowered graph -> artifact, quantised or not -> proof -> package."""

import copy
import os
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dmf.detection import Detector, MaskRCNN
from export.captured import captured, interruptible
from export.convert import coreml
from export.convert.options import Options
from export.destination import check_destination, disk_full, keep_rejected, put_in_place, workspace
from export.detection.retinanet import DECODING
from export.detection.suppression import append_suppression
from export.layout import NCHW, NHWC, Layout
from export.lowering import lower
from export.model import Model, at_size, image_size, output_names, static_graph
from export.package import LABELS_NAME, MAIN, golden_name, make_manifest
from export.plan import CANDIDATES, Plan, input_spec, make_plan
from export.precision import Precision
from export.provenance import Origin, weights_sha256
from export.quantize import quantizer
from export.quantize.calibration import Calibration
from export.quantize.fitting import CHOICES, fit
from export.quantize.rounding import rounded
from export.quantize.sensitivity import Damage, sensitivity
from export.quantize.weights import Left, Weights
from export.scopes import is_within
from export.tuning import tuned
from export.verify import two_stages
from export.verify.artifact import run_artifact, verify_artifact
from export.verify.inputs import Inputs, normalize, verification_inputs
from export.verify.objects import IOU, LOOSE_IOU, Objects, expect_dense
from export.verify.parity import ORACLE, TWIN_ORACLE, Verdict, budgets_of
from export.verify.range_audit import audit, refuse, text
from export.verify.reference import Reference, by_name, compute_reference, without_bank
from export.verify.stored import in_precision
from export.verify.taps import find_taps
from runtime.commandline import SILENT, Progress
from runtime.errors import CommandError, ConverterError, ParityError, RunnerError, UsageError
from runtime.golden import Golden, GoldenObjects, Taps, write_golden
from runtime.manifest import Detection, InputSpec, Package, write_manifest
from runtime.preprocess import MEAN, STD, to_input
from runtime.sketch import SUMS, sketch

FEW = 8  # pictures that sensitivities are measured on
LARGEST_TAPPED = 512 * 512  # px: of larger images the outputs of all modules are gigabytes
FOLD_TOLERANCE = 1e-10  # relative, in float64: folds are exact


@dataclass(frozen=True, eq=False)
class Prepared:
    """A model with what all of its exports share: the static graph, proven equal, and the reference outputs."""

    model: Model
    origin: Origin
    graph: nn.Module
    reference: Reference

    @cached_property
    def twin_reference(self) -> Reference:
        """Of the model with its kernel banks at zero, which the static twin must equal."""
        return compute_reference(without_bank(self.model), self.reference.inputs)

    def reference_of(self, plan: Plan) -> Reference:
        """What an artifact that is made as planned must equal."""
        return self.twin_reference if plan.lowering.is_twin else self.reference

    def spec(self, plan: Plan, function: str | None = None) -> InputSpec:
        """The artifact's input."""
        return input_spec(plan, image_size(self.model), function)

    def at(self, size: int, progress: Progress = SILENT) -> "Prepared":
        """The same for square pictures of another size."""
        return prepare(at_size(self.model, (size, size)), self.origin, progress)


def prepare(model: Model, origin: Origin, progress: Progress = SILENT) -> Prepared:
    """Raises `ParityError` if the static graph is not the model."""
    model = copy.deepcopy(model).float().eval()
    with progress.stage("reference: eager PyTorch in float64"):
        inputs = verification_inputs(model)
        # what a Mask R-CNN gives depends on what its first stage proposes: see `export.verify.two_stages`
        reference = Reference(inputs, ()) if isinstance(model, MaskRCNN) else compute_reference(model, inputs)
    with progress.stage("reparameterize: fold, prove in float64"):
        graph = static_graph(copy.deepcopy(model).double())
        if isinstance(model, MaskRCNN):
            two_stages.check_folds(graph, model, inputs, FOLD_TOLERANCE)
        else:
            check_folds(graph, output_names(model), reference)
    return Prepared(model, origin, graph.float(), reference)


@torch.no_grad()
def check_folds(graph: nn.Module, names: Sequence[str], reference: Reference) -> None:
    """The static graph, of float64, against the reference, two samples at once. Raises `ParityError`."""
    pairs = normalize(reference.inputs.images, torch.float64).split(2)
    given = by_name(names, (several(graph(pair)) for pair in pairs))
    for output in reference.outputs:
        error = np.abs(given[output.name] - output.values).max() / np.abs(output.values).max()
        if not error <= FOLD_TOLERANCE:
            raise ParityError(
                f"the reparameterised graph is {error:.2g} (relative) from the model; at most {FOLD_TOLERANCE}"
            )


def several(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What a graph gives, whether that is one tensor or more."""
    return (outputs,) if isinstance(outputs, Tensor) else outputs


def export(
    model: Model,
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
    plan = tuned(plan, prepared.graph, image_size(model))
    return write_package(plan, prepared, Path(out), overwrite)


def write_package(plan: Plan, prepared: Prepared, out: Path, overwrite: bool, progress: Progress = SILENT) -> Package:
    """Lower, convert, verify and package as planned. Raises as `export` does."""
    destination, rejected = out / plan.name, out / "rejected" / plan.name
    needed = sum(p.numel() for p in prepared.model.parameters()) * 4
    parts = functions(plan, prepared, progress)
    labels = {name: plan.name if len(parts) == 1 else f"{plan.name}:{name}" for name in parts}
    with workspace(out, plan.name, needed) as work:
        artifact, log = work / "package" / plan.converter.artifact, work / "log" / "converter.log"
        artifact.parent.mkdir()
        log.parent.mkdir()
        left: list[Left] = []
        programs: dict[str, Path] = {}
        for name, part in parts.items():
            path = programs[name] = artifact if len(parts) == 1 else work / name / artifact.name
            path.parent.mkdir(exist_ok=True)
            if plan.in_half:
                with progress.stage(f"{labels[name]}: range of every module"):
                    doubtful = check_range(plan, part, log.parent, rejected)
                if doubtful:
                    progress.say(f"{labels[name]}: a device that adds up in fp16 may overflow in {', '.join(doubtful)}")
            with progress.stage(f"{labels[name]}: convert by {plan.converter.name}"):
                convert(plan, part, path, log, rejected)
            if plan.is_quantized:
                with progress.stage(f"{labels[name]}: quantise"):
                    plan, left = quantize(plan, part, path, log, rejected, progress)
        if len(parts) > 1:
            with progress.stage(f"{plan.name}: join"), tool(plan.converter.name, log, rejected):
                coreml.join(programs, artifact, options(plan, prepared, log))
        proven: dict[str, tuple[InputSpec, Verdict]] = {}
        for name, part in parts.items():
            spec = part.spec(plan, name if len(parts) > 1 else None)
            with progress.stage(f"{labels[name]}: verify"):
                verdict = prove(plan, part, spec, artifact, rejected)
            if plan.nms:
                with progress.stage(f"{labels[name]}: suppress"):
                    verdict = suppress(plan, part, spec, artifact, log, rejected, verdict)
            with progress.stage(f"{labels[name]}: golden vectors"):
                write_golden(artifact.parent / golden_name(name), golden_vectors(plan, part, spec, artifact, verdict))
            proven[name] = spec, verdict
        if plan.labels is not None:
            (artifact.parent / LABELS_NAME).write_text("".join(f"{label}\n" for label in plan.labels), encoding="utf-8")
        manifest = make_manifest(plan, prepared.model, prepared.origin, proven, left, artifact.parent)
        write_manifest(artifact.parent, manifest)
        put_in_place(artifact.parent, destination, work / "replaced", overwrite)
    return Package(destination, manifest)


def functions(plan: Plan, prepared: Prepared, progress: Progress) -> dict[str, Prepared]:
    """What each function of the artifact is made of, by its name."""
    return {MAIN: prepared} | {f"size_{size}": prepared.at(size, progress) for size in plan.sizes[1:]}


def lowered(plan: Plan, prepared: Prepared) -> nn.Module:
    """What is converted."""
    layouts: dict[str, Layout] = {"NCHW": NCHW(), "NHWC": NHWC()}
    layout, input_layout = plan.layout, layouts[plan.input_layout]
    return lower(prepared.graph, plan.lowering, layout, input_layout, equalize=plan.is_quantized)


def check_range(plan: Plan, prepared: Prepared, work: Path, rejected: Path) -> list[str]:
    """Modules that fp16 can hold, but perhaps not a sum inside.

    Raises `ParityError` for those that it can't hold; a table of all is then kept in `rejected`, by way of `work`.
    """
    graph = lower(prepared.graph, plan.lowering, plan.layout)  # which takes (B, 3, H, W)
    with captured(Path(os.devnull)), interruptible():
        ranges = audit(graph, normalize(prepared.reference.inputs.images))
    try:
        refuse(ranges, in_float32(plan))
    except ParityError as error:
        (work / "report.txt").write_text(f"{error}\n\n{text(ranges)}\n", encoding="utf-8")
        keep_rejected(work, rejected)
        raise ParityError(f"{plan.name}: {error}; every module's range is in {rejected / 'report.txt'}") from error
    return [
        each.module
        for each in ranges
        if each.verdict == "may overflow" and not is_within(each.module, in_float32(plan))
    ]


def convert(plan: Plan, prepared: Prepared, artifact: Path, log: Path, rejected: Path) -> None:
    """Write the artifact. `ConverterError` names the log, kept in `rejected`, of a converter that failed."""
    graph = lowered(plan, prepared)
    batch = 2 if plan.batch == -1 else plan.batch  # of a dynamic batch, an example that can't pass for a constant 1
    example = torch.zeros(batch, *prepared.spec(plan).shape[1:])
    with tool(plan.converter.name, log, rejected):
        plan.converter.load()(graph, example, artifact, options(plan, prepared, log))
        if not artifact.exists():
            raise RuntimeError(f"it wrote no {artifact.name}")


def options(plan: Plan, prepared: Prepared, log: Path) -> Options:
    """What the converter is asked for."""
    return Options(
        log=log,
        metadata={
            "description": f"Dynamic Mobile-Former {plan.variant}",
            "lowering": str(plan.lowering),
            "weights_sha256": weights_sha256(prepared.model),
        },
        outputs=output_names(prepared.model),
        dynamic_batch=plan.batch == -1,
        batches=plan.batches,
        ios=plan.ios,
        in_half=plan.in_half,
        keep_fp32=in_float32(plan),
        mean=MEAN if plan.image_input else None,
        std=STD if plan.image_input else None,
        labels=plan.labels if plan.is_classifier else None,
    )


def in_float32(plan: Plan) -> tuple[str, ...]:
    """The modules that are computed in it, whatever the precision: a detector's boxes, in pixels, always are."""
    return (*plan.keep_fp32, DECODING) if plan.detection is not None else plan.keep_fp32


@contextmanager
def tool(name: str, log: Path, rejected: Path) -> Iterator[None]:
    """Run a tool with its output in the log. `ConverterError` names the log, kept in `rejected`, of one that failed."""
    try:
        with captured(log), interruptible():
            yield
    except (CommandError, MemoryError):
        raise
    except Exception as error:
        if full := disk_full(error):  # the disk, not the tool
            raise full from error
        with log.open("a", encoding="utf-8") as file:
            file.write("\n" + "".join(traceback.format_exception(error)))
        keep_rejected(log.parent, rejected)
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise ConverterError(
            f"{name} failed: {type(error).__name__}: {reason}; its log is {rejected / log.name}"
        ) from error


def quantize(
    plan: Plan, prepared: Prepared, artifact: Path, log: Path, rejected: Path, progress: Progress
) -> tuple[Plan, list[Left]]:
    """Rewrite the artifact in the plan's precision; the plan, with what a budget chose, and what could not be had.

    Raises as `convert` does, and `UsageError` for a budget that can't be held.
    """
    graph = lowered(plan, prepared)
    stored = [weight.module for weight in Weights(graph, plan.precision, {}).all]
    for name in plan.keep_fp32 if not plan.in_half else ():  # in half, a module without weights can be kept, too
        if not any(is_within(module, [name]) for module in stored):
            raise UsageError(f"--keep-fp32 {name}: it is folded into others, or has no weights; name one that has")
    spec = prepared.spec(plan)
    inputs = calibration_inputs(plan.calibration, spec) if plan.calibration and plan.precision == "w8a8" else None
    left: list[Left] = []

    def rewrite(plan: Plan) -> None:
        weights = Weights(graph, plan.precision, plan.exceptions)
        with tool(f"the quantiser for {plan.converter.format}", log, rejected):
            left[:] = quantizer(plan.converter.format)(artifact, weights, inputs)

    if plan.budget is None:
        rewrite(plan)
        return plan, left
    pictures = compute_reference(prepared.model, few_pictures(plan, prepared))
    damages = {
        precision: [
            each
            for each in sensitivities(plan, prepared, precision, progress)
            if not is_within(each.module, plan.keep_fp32)
        ]
        for precision in CHOICES
    }

    def measured() -> float | None:
        tolerance = plan.tolerance  # of no matter here
        return verify_artifact(plan.converter.format, artifact, spec, pictures, tolerance).parity.outputs[0].psnr_db

    assigned = fit(plan.budget, damages, artifact, lambda chosen: rewrite(replace(plan, assigned=chosen)), measured)
    return replace(plan, assigned=assigned), left


def sensitivities(plan: Plan, prepared: Prepared, precision: Precision, progress: Progress) -> list[Damage]:
    """What each module's weights do to the logits of a few pictures in this precision, the worst first."""
    graph = lower(prepared.graph, plan.lowering, plan.layout, equalize=True)  # which takes (B, 3, H, W)
    return sensitivity(graph, normalize(few_pictures(plan, prepared).images), precision, progress)


def few_pictures(plan: Plan, prepared: Prepared) -> Inputs:
    """Of the calibration where there is one: pictures of a proof are searched to be hard, and one can decide it all."""
    if plan.calibration is None:
        return prepared.reference.inputs
    images = plan.calibration.images
    few = images[np.linspace(0, len(images) - 1, min(FEW, len(images))).astype(int)]
    return Inputs(few, tuple(f"calibration: {i + 1} of {len(few)}" for i in range(len(few))))


def calibration_inputs(calibration: Calibration, spec: InputSpec) -> list[NDArray[np.float32]]:
    """The pictures as the artifact takes them, in batches of its size."""
    size = max(spec.shape[0], 1)
    batches = [calibration.images[i : i + size] for i in range(0, len(calibration.images), size)]
    return [to_input(np.resize(batch, (size, *batch.shape[1:])), spec) for batch in batches]


def yardsticks(plan: Plan, prepared: Prepared) -> Reference:
    """The reference with what the plan's precision costs in the eager model."""
    reference = prepared.reference_of(plan)
    if plan.precision == "fp32":
        return reference
    model = without_bank(prepared.model) if plan.lowering.is_twin else prepared.model
    pictures = plan.calibration.images if plan.calibration and plan.precision == "w8a8" else None
    return in_precision(reference, model, plan.precision, plan.exceptions, pictures)


def prove(plan: Plan, prepared: Prepared, spec: InputSpec, artifact: Path, rejected: Path) -> Verdict:
    """The verdict on an artifact that equals the model. Another is kept in `rejected`, with a report of why and where.

    Raises `ParityError`; `RunnerError` for an artifact that can't be opened or run.
    """
    if isinstance(prepared.model, MaskRCNN):
        return prove_two_stages(plan, prepared.model, prepared.reference.inputs, spec, artifact, rejected)
    oracle, reference = TWIN_ORACLE if plan.lowering.is_twin else ORACLE, yardsticks(plan, prepared)
    if plan.detection is not None:
        reference = replace(reference, objects=objects(reference, plan, dense(plan.detection), spec.crop))
    with kept_if_wrong(plan, artifact, rejected):
        verdict = verify_artifact(plan.converter.format, artifact, spec, reference, plan.tolerance, oracle)
        if not verdict.failures:
            return verdict
        where = first_lost(plan, prepared, spec, artifact, verdict)
        raise ParityError("; ".join([*verdict.failures, *where]))


def prove_two_stages(
    plan: Plan, model: MaskRCNN, inputs: Inputs, spec: InputSpec, artifact: Path, rejected: Path
) -> Verdict:
    """As `prove`."""
    assert plan.detection is not None
    oracle = two_stages.ORACLE
    if plan.lowering.is_twin:
        model, oracle = without_bank(model), f"{oracle}; its kernel banks at zero: the static twin, not the model"
    with kept_if_wrong(plan, artifact, rejected):
        answers, checked_by = run_artifact(plan.converter.format, artifact, spec, inputs.images)
        verdict = two_stages.judge_two_stages(
            model, answers, inputs, plan.detection, plan.tolerance, checked_by, oracle
        )
        if verdict.failures:
            raise ParityError("; ".join(verdict.failures))
    return verdict


@contextmanager
def kept_if_wrong(plan: Plan, artifact: Path, rejected: Path) -> Iterator[None]:
    """An artifact that is found to be wrong goes to `rejected`, with a report."""
    try:
        yield
    except (ParityError, RunnerError) as error:
        (artifact.parent / "report.txt").write_text(f"{error}\n", encoding="utf-8")
        keep_rejected(artifact.parent, rejected)
        message = str(error).replace(str(artifact.parent), str(rejected))
        what = "is not the model" if isinstance(error, ParityError) else "can't be run"
        raise type(error)(f"{plan.name} {what}: {message}; kept in {rejected}") from error


def dense(detection: Detection) -> Detection:
    """How the outputs are read of an artifact that does not suppress yet."""
    return replace(detection, form="dense", candidates=CANDIDATES)


def objects(reference: Reference, plan: Plan, detection: Detection, size: tuple[int, int]) -> Objects:
    """What a RetinaNet must find in the reference's inputs, if its outputs may differ by the plan's tolerance."""
    scores, boxes = reference.outputs
    score_budgets, box_budgets = (budgets_of(output, plan.tolerance) for output in reference.outputs)
    anchors = boxes.values.shape[1] // 4
    return Objects(
        detection,
        size,
        tuple(
            expect_dense(score.reshape(anchors, -1), box.reshape(anchors, 4), score_budget, box_budget, detection)
            for score, box, score_budget, box_budget in zip(
                scores.values, boxes.values, score_budgets, box_budgets, strict=True
            )
        ),
        score_budgets,
        IOU if plan.precision == "fp32" else LOOSE_IOU,
    )


def suppress(
    plan: Plan, prepared: Prepared, spec: InputSpec, artifact: Path, log: Path, rejected: Path, verdict: Verdict
) -> Verdict:
    """Let a proven artifact suppress by itself; the verdict on what it finds then. Raises as `convert` and `prove`."""
    assert plan.detection is not None and isinstance(prepared.model, Detector)
    with tool(f"appending suppression for {plan.converter.format}", log, rejected):
        append_suppression(
            plan.converter.format, artifact, plan.detection, spec.crop, prepared.model.config.num_classes, plan.labels
        )
    reference = yardsticks(plan, prepared)
    found = Reference(reference.inputs, (), objects(reference, plan, plan.detection, spec.crop))
    with kept_if_wrong(plan, artifact, rejected):
        after = verify_artifact(plan.converter.format, artifact, spec, found, plan.tolerance)
        if after.failures:
            raise ParityError("; ".join(after.failures))
    parity = replace(verdict.parity, detections=after.parity.detections)
    return replace(verdict, parity=parity, objects=after.objects)


def first_lost(plan: Plan, prepared: Prepared, spec: InputSpec, artifact: Path, verdict: Verdict) -> list[str]:
    """In words, the first module whose output a rejected artifact does not hold; nothing if it holds them all."""
    if not is_small(spec):
        return []
    try:
        lost = taps(plan, prepared, spec, artifact, verdict).untapped
    except RunnerError:  # it answered, but can't be looked into
        return []
    return [f"the first module whose output is not in it: {lost[0]}"] if lost else []


def is_small(spec: InputSpec) -> bool:
    """Whether the outputs of all modules fit into memory."""
    return spec.crop[0] * spec.crop[1] <= LARGEST_TAPPED


def taps(plan: Plan, prepared: Prepared, spec: InputSpec, artifact: Path, verdict: Verdict) -> Taps:
    """Where the artifact holds its modules' outputs. Raises as `find_taps` does."""
    names = {name for name, _ in prepared.model.named_modules()}
    graph, format, inputs = lowered(plan, prepared), plan.converter.format, prepared.reference.inputs
    if plan.is_quantized:  # what its modules are to compute, they compute with the weights that it holds
        graph = rounded(graph, Weights(graph, plan.precision, plan.exceptions))
    return find_taps(graph, names, format, artifact, spec, inputs, verdict.parity.tolerance)


def golden_vectors(
    plan: Plan, prepared: Prepared, spec: InputSpec, artifact: Path, verdict: Verdict
) -> Golden | GoldenObjects:
    """What a proven artifact must answer, and its modules compute. Raises as `find_taps` does."""
    if plan.detection is not None:
        return golden_objects(plan, prepared, spec, artifact, verdict)
    reference = prepared.reference_of(plan)
    (logits,), (output,) = verdict.parity.outputs, reference.outputs
    return Golden(
        reference.inputs.images,
        output.values,
        np.array([each.budget_abs_error for each in logits.per_input]),
        reference.inputs.names,
        output.frozen,
        taps(plan, prepared, spec, artifact, verdict),
    )


def golden_objects(plan: Plan, prepared: Prepared, spec: InputSpec, artifact: Path, verdict: Verdict) -> GoldenObjects:
    """What a proven detector must find; of outputs that are dense, which are large, sketches."""
    inputs, found, tolerance = prepared.reference.inputs, verdict.objects, plan.tolerance
    assert found is not None
    suppresses = plan.detection is not None and plan.detection.form != "dense"
    outputs = () if suppresses else prepared.reference_of(plan).outputs
    rows = [i for i, expected in enumerate(found.expected) if expected is not None]  # others are too crowded
    sketches, budgets = np.zeros((len(outputs), len(rows), SUMS)), np.zeros((len(outputs), len(rows)))
    for i, output in enumerate(outputs):
        sketches[i] = [sketch(output.values[row]) for row in rows]
        errors = np.linalg.norm([sketch(verdict.answers[output.name][row]) for row in rows] - sketches[i], axis=1)
        norms = np.linalg.norm(sketches[i], axis=1)
        budgets[i] = np.maximum(tolerance.yardstick_factor * errors, tolerance.relative * norms)
    tapped = taps(plan, prepared, spec, artifact, verdict) if outputs and is_small(spec) else None
    return GoldenObjects(
        inputs.images[rows],
        tuple(inputs.names[row] for row in rows),
        tuple(expected for expected in found.expected if expected is not None),
        found.iou,
        found.score_budgets[rows],
        tuple(output.name for output in outputs),
        sketches.astype(np.float32),
        budgets,
        tapped and replace(tapped, sketches=tapped.sketches[:, rows], budgets=tapped.budgets[:, rows]),
    )
