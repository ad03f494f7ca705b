"""What a package says of itself: the manifest."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from dmf import DMF
from dmf.detection import Detector, RetinaNet
from export import provenance
from export.convert.coreml import LABEL, PROBABILITIES
from export.model import Model as Exported
from export.model import image_size
from export.plan import Plan
from export.precision import Precision
from export.provenance import Origin
from export.quantize.weights import Left
from export.verify.parity import Verdict
from runtime.manifest import (
    GOLDEN_NAME,
    Calibration,
    Detection,
    Function,
    InputSpec,
    Lowering,
    Manifest,
    Model,
    OutputSpec,
    Quantization,
    Stored,
    hash_files,
)

LABELS_NAME = "labels.txt"


MAIN = "main"  # the first function of an artifact, which the manifest itself describes


def golden_name(function: str) -> str:
    """The file of a function's golden vectors."""
    return GOLDEN_NAME if function == MAIN else f"{function}-{GOLDEN_NAME}"


def make_manifest(
    plan: Plan,
    model: Exported,
    origin: Origin,
    proven: Mapping[str, tuple[InputSpec, Verdict]],
    left: Sequence[Left],
    folder: Path,
) -> Manifest:
    """Of the package in `folder`; `proven` is every function's input and verdict."""
    config, (spec, verdict) = model.config, proven[MAIN]
    return Manifest(
        name=plan.name,
        format=plan.converter.format,  # type: ignore[arg-type]  # one of the schema's formats, as CONVERTERS has them
        artifact=plan.converter.artifact,
        converter=plan.converter.name,
        target=plan.target.name,
        lowering=Lowering(plan.lowering.pointwise, plan.lowering.depthwise, plan.lowering.reason, plan.measured),
        precision=plan.precision,
        keep_fp32=plan.keep_fp32,
        quantization=quantization(plan, left),
        model=Model(plan.variant, sum(p.numel() for p in model.parameters()), config.to_dict()),
        checkpoint=provenance.checkpoint(model, origin),
        source=provenance.source(),
        tools=provenance.tools(),
        inputs=(spec,),
        outputs=outputs(plan, model),
        detection=plan.detection,
        labels=LABELS_NAME if plan.labels is not None else None,
        parity=verdict.parity,
        functions=tuple(
            Function(spec, verdict.parity, golden_name(name))
            for name, (spec, verdict) in proven.items()
            if name != MAIN
        ),
        unchecked=unchecked(plan),
        files=hash_files(
            folder,
            labels=LABELS_NAME if plan.labels is not None else None,
            golden=[golden_name(name) for name in proven],
        ),
    )


def outputs(plan: Plan, model: Exported) -> tuple[OutputSpec, ...]:
    """Of the artifact, in its order."""
    classes = model.config.num_classes
    if not isinstance(model, DMF):
        assert plan.detection is not None
        form = plan.detection.form
        return tuple(
            OutputSpec(name, shape, "int64" if (form, name) == ("onnx_nms", "labels") else "float32")
            for name, shape in object_shapes(plan.detection, model)
        )
    logits = OutputSpec("logits", (plan.batch, classes), "float16" if is_half(plan) else "float32")
    if not plan.is_classifier:
        return (logits,)
    return (
        logits,
        OutputSpec(PROBABILITIES, (plan.batch, classes), "float32"),
        OutputSpec(LABEL, (plan.batch,), "string"),
    )


def object_shapes(detection: Detection, model: Detector) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of what a detector gives in this form (`runtime.detections`); -1 is what depends on the data."""
    classes, most = model.config.num_classes, detection.max_detections
    if detection.form == "tflite_detection_postprocess":
        return [("boxes", (1, most, 4)), ("labels", (1, most)), ("scores", (1, most)), ("count", (1,))]
    if detection.form == "coreml_nms":
        return [("confidence", (-1, classes)), ("coordinates", (-1, 4))]
    if isinstance(model, RetinaNet) and detection.form == "dense":
        anchors = sum(map(len, model.anchors(*image_size(model))))
        return [("scores", (1, anchors, classes)), ("boxes", (1, anchors, 4))]
    shapes: list[tuple[str, tuple[int, ...]]] = [("boxes", (-1, 4)), ("scores", (-1,)), ("labels", (-1,))]
    return shapes if isinstance(model, RetinaNet) else [*shapes, ("masks", (-1, 28, 28)), ("proposals", (-1, 4))]


def is_half(plan: Plan) -> bool:
    """Whether logits come out in fp16: a Core ML classifier's do, because they are tapped inside the program."""
    return plan.is_classifier and plan.in_half


def quantization(plan: Plan, left: Sequence[Left]) -> Quantization | None:
    """How the weights became smaller, and which modules differ from the plan's precision, by precision and reason."""
    if plan.precision == "fp32":
        return None
    stored: dict[tuple[Precision, str], list[str]] = {}
    for module in plan.keep_fp32:
        stored.setdefault(("fp32", "asked for by --keep-fp32"), []).append(module)
    for module, precision in plan.assigned.items():
        stored.setdefault((precision, f"chosen within {plan.budget}"), []).append(module)
    for each in left:
        stored.setdefault((each.precision, each.reason), []).append(each.module)
    pictures = plan.calibration
    return Quantization(
        budget=None if plan.budget is None else str(plan.budget),
        calibration=None if pictures is None else Calibration(pictures.source, len(pictures.images), pictures.sha256),
        stored=tuple(Stored(*key, tuple(dict.fromkeys(modules))) for key, modules in stored.items()),
    )


def unchecked(plan: Plan) -> tuple[str, ...]:
    """What this machine can't check, and the command that does."""
    if plan.converter.format == "coreml" and sys.platform != "darwin":
        return (f"Apple's Core ML runtime: run `dmf-verify {plan.name}` on a Mac",)
    if plan.target.name == "litert-gpu":
        return ("LiteRT's GPU delegate: this host ran the artifact on its CPU",)
    return ()
