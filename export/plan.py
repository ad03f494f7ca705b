"""Every choice of one export, made and checked before any work begins."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from dmf.detection import Detector, MaskRCNN, RetinaNet
from export.convert import CONVERTERS, FORMATS, Converter
from export.layout import Layout
from export.lowering import AUTO, Lowering
from export.lowering.bc1s import BC1S
from export.model import Model, variant_name
from export.precision import PRECISIONS, Exceptions, Precision
from export.quantize.budget import Budget
from export.quantize.calibration import Calibration, find_calibration, read_calibration
from export.target import DEFAULT_TARGETS, TARGETS, Target
from export.verify.parity import tolerance_of
from runtime.commandline import nearest
from runtime.errors import UsageError
from runtime.manifest import Detection, Form, InputSpec, Measured, Tolerance
from runtime.meter import Meter
from runtime.preprocess import MEAN, STD

IOS = (16, 17, 18)  # oldest system of a Core ML program; the second is the default
FUNCTIONS_IOS = 18  # the oldest that runs an artifact of several functions
ONE_SCALE = "its GPU delegate has one scale for a layer's int8 weights, not one per channel; use fp16"
CANDIDATES = 5000  # pairs of anchor and class that whoever runs a detector suppresses among
SUPPRESSION: dict[str, Form] = {"onnx": "onnx_nms", "tflite": "tflite_detection_postprocess", "coreml": "coreml_nms"}
TWO_STAGES = "its second stage takes as many boxes as the first one finds, which the other converters don't convert"
REFUSED = {("litert-gpu", "w8"): ONE_SCALE, ("litert-gpu", "w8a8"): ONE_SCALE}  # format or target, precision


@dataclass(frozen=True)
class Plan:
    """Every choice of one export, made and checked before any work."""

    variant: str
    converter: Converter
    target: Target
    lowering: Lowering
    precision: Precision
    batch: int  # -1: any, or those of `batches`
    batches: tuple[int, ...]  # Core ML: the batch sizes, where there are several
    sizes: tuple[int, ...]  # Core ML: the input's sides, where there are several; each has a function of the artifact
    input_layout: str
    image_input: bool
    ios: int  # Core ML: the oldest that is to run it
    labels: tuple[str, ...] | None
    detection: Detection | None = None  # of a detector, how its outputs are read
    nms: bool = False  # suppression is put behind a graph that has none
    keep_fp32: tuple[str, ...] = ()  # modules that are stored and computed in float32, whatever the precision
    assigned: Exceptions = field(default_factory=dict)  # modules that a budget gives more bits than the precision
    budget: Budget | None = None
    calibration: Calibration | None = None  # of w8a8
    meter: Meter | None = None  # what will choose the lowering of each part; until then it is the target's
    measured: Measured | None = None

    @property
    def layout(self) -> Layout:
        """Of feature maps and, for the Neural Engine, of everything else, too."""
        return BC1S() if self.target.name == "coreml-ane" else self.converter.layout

    @property
    def is_classifier(self) -> bool:
        """Core ML: it answers with a label and probabilities, too."""
        return self.image_input and self.labels is not None and self.detection is None

    @property
    def exceptions(self) -> Exceptions:
        """Modules in another precision than `precision`."""
        return {**self.assigned, **dict.fromkeys(self.keep_fp32, "fp32")}

    @property
    def in_half(self) -> bool:
        """Whether the target computes in fp16 as soon as weights may be stored in it."""
        return self.precision != "fp32" and (self.converter.format == "coreml" or self.target.name == "litert-gpu")

    @property
    def tolerance(self) -> Tolerance:
        """Of the proof."""
        return tolerance_of(self.precision, self.in_half, self.detection is not None)

    @property
    def is_quantized(self) -> bool:
        """Whether a float32 artifact is quantised after its conversion; coremltools itself converts to fp16."""
        return self.precision != "fp32" and (self.converter.format, self.precision) != ("coreml", "fp16")

    @property
    def name(self) -> str:
        """The package's folder: variant and format, and whatever is not the default."""
        parts = [self.variant, self.converter.format]
        if self.converter.name != FORMATS[self.converter.format]:
            parts.append(self.converter.name)
        if self.target.name != DEFAULT_TARGETS[self.converter.format]:
            parts.append(self.target.name)
        if self.meter is not None:
            parts.append(AUTO)
        elif str(self.lowering) != str(self.target.lowering):
            parts.append(str(self.lowering).replace("/", "_"))
        if self.precision != default_precision(self.converter.format):
            parts.append(self.precision)
        if self.budget is not None:
            parts.append(str(self.budget))
        elif self.keep_fp32:
            parts.append("mixed")
        if self.sizes:
            parts.append("sizes" + "_".join(map(str, self.sizes)))
        if self.batches:
            parts.append("batch" + "_".join(map(str, self.batches)))
        elif self.batch != 1:
            parts.append("batch" if self.batch == -1 else f"batch{self.batch}")
        if self.input_layout != self.converter.input_layout.name:
            parts.append(self.input_layout.lower())
        if self.image_input:
            parts.append("image")
        if self.nms:
            parts.append("nms")
        if self.ios != default_ios(self.sizes):
            parts.append(f"ios{self.ios}")
        return "-".join(parts)


def make_plan(
    model: Model,
    format: str,
    *,
    converter: str | None = None,
    target: str | None = None,
    lowering: str | None = None,
    precision: str | None = None,
    batch: int | Sequence[int] = 1,
    sizes: Sequence[int] = (),
    input_layout: str | None = None,
    image_input: bool = False,
    ios: int | None = None,
    labels: tuple[str, ...] | None = None,
    nms: bool = False,
    keep_fp32: tuple[str, ...] = (),
    calibration: str | Path | None = None,
    budget: Budget | None = None,
    on: str | None = None,
    threads: int | None = None,
) -> Plan:
    """Fill in defaults and refuse what can't be done.

    `batch` may be several sizes, and `sizes` of the input come beside the model's own, both for Core ML. With `nms` a
    detector's artifact suppresses by itself.
    `calibration` is a folder of pictures for w8a8; a `budget` is held by w8, fp16 and fp32 for each module; `on` and
    `threads` are for the lowering `auto`.

    Raises `UsageError`.
    """
    _one_of("format", format, tuple(FORMATS))
    via = CONVERTERS[_one_of("converter", converter or FORMATS[format], tuple(CONVERTERS))]
    if via.format != format:
        raise UsageError(f"converter {via.name} writes {via.format}, not {format}")
    runs_on = TARGETS[_one_of("target", target or DEFAULT_TARGETS[format], tuple(TARGETS))]
    if runs_on.format != format:
        fitting = ", ".join(name for name, t in TARGETS.items() if t.format == format)
        raise UsageError(f"target {runs_on.name} runs {runs_on.format}, not {format}; choose from {fitting}")
    if isinstance(model, Detector):
        _check_detector(model, format, converter, precision, batch, sizes, budget, lowering, nms)
    elif nms:
        raise UsageError(f"--nms is of detectors; {variant_name(model)} is a classifier: leave it out")
    batch, batches = _batches(batch, format, runs_on.name)
    sizes = _sizes(sizes, model, format)
    if batches and sizes:
        raise UsageError("several batch sizes and several input sizes: one artifact has one of the two; give one")
    meter = _meter(format, lowering, on, threads)
    lowering = None if lowering == AUTO else lowering
    try:
        form = Lowering.parse(lowering) if lowering else runs_on.lowering
    except ValueError as error:
        raise UsageError(str(error)) from error
    if not lowering and form.depthwise not in via.depthwise:
        form = replace(form, depthwise=via.depthwise[0], reason=f"{via.name} can't convert a computed filter")
    if not lowering and batch == -1 and not form.any_batch:
        form = Lowering("matmul", "taps", "a computed filter fixes the batch")
    if form.pointwise not in via.pointwise or form.depthwise not in via.depthwise:
        raise UsageError(
            f"{via.name} can't convert the lowering {form}; it takes "
            f"{'|'.join(via.pointwise)} / {'|'.join(via.depthwise)}"
        )
    stored_in = _precision(precision, budget, format, runs_on.name)
    if keep_fp32 and stored_in == "fp32":
        raise UsageError(f"--keep-fp32 {keep_fp32[0]} is for the other precisions; in fp32 every module is float32")
    if calibration is not None and stored_in != "w8a8" and budget is None:
        raise UsageError(f"--calibration {calibration} is for w8a8 or a budget; {stored_in} needs no pictures")
    modules = tuple(name for name, _ in model.named_modules() if name)
    for name in keep_fp32:
        if name not in modules:
            raise UsageError(f"the model has no module {name!r}{nearest(name, modules)}")
    if batch == -1 and format != "onnx" and not batches:
        raise UsageError(f"a dynamic batch exists for onnx only, not for {format}; give a fixed batch")
    if batch == -1 and not form.any_batch:
        raise UsageError(f"the lowering {form} unrolls the batch; for a dynamic one use matmul/taps or matmul/bank")
    layout = _one_of("input layout", input_layout or via.input_layout.name, ("NCHW", "NHWC"))
    if not via.any_input and (batch, layout) != (1, via.input_layout.name):
        raise UsageError(f"{via.name} takes batch 1 and {via.input_layout.name} only, not batch {batch} and {layout}")
    if image_input and (format != "coreml" or batch != 1 or layout != "NCHW"):
        raise UsageError("an image input exists for coreml with batch 1 and NCHW only")
    if ios is not None and format != "coreml":
        raise UsageError(f"--ios {ios} is of coreml, not of {format}; leave it out")
    if sizes and ios not in (None, FUNCTIONS_IOS):
        raise UsageError(
            f"several input sizes are functions of one artifact, which iOS {ios} can't run; leave out --ios"
        )
    if sizes and stored_in == "w8a8":
        raise UsageError("the ranges of w8a8's activations are of one input size; leave out the others, or take w8")
    if ios is not None and ios not in IOS:
        raise UsageError(f"no Core ML program is made for iOS {ios}; choose from {', '.join(map(str, IOS))}")
    if labels is not None and len(labels) != model.config.num_classes:
        raise UsageError(f"{len(labels)} labels for {model.config.num_classes} classes; give one for each")
    if labels is not None and image_input and not isinstance(model, Detector) and len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise UsageError(f"label {twice!r} stands for two classes; a Core ML classifier needs different ones")
    via.check_installed()
    if any(not torch.isfinite(value).all() for value in model.state_dict().values()):
        raise UsageError("the model has weights that are not finite (NaN or infinite)")
    return Plan(
        variant=variant_name(model),
        converter=via,
        target=runs_on,
        lowering=form,
        precision=stored_in,
        batch=batch,
        batches=batches,
        sizes=sizes,
        input_layout=layout,
        image_input=image_input,
        ios=default_ios(sizes) if ios is None else ios,
        labels=labels,
        detection=_detection(model, format, nms) if isinstance(model, Detector) else None,
        nms=nms,
        keep_fp32=keep_fp32,
        budget=budget,
        calibration=_calibration(calibration, stored_in, budget, model),
        meter=meter,
    )


def _check_detector(
    model: Detector,
    format: str,
    converter: str | None,
    precision: str | None,
    batch: int | Sequence[int],
    sizes: Sequence[int],
    budget: Budget | None,
    lowering: str | None,
    nms: bool,
) -> None:
    """What is for classifiers only. Raises `UsageError`."""
    name = variant_name(model)
    if batch not in (1, [1], (1,)):
        told = ", ".join(map(str, (batch,) if isinstance(batch, int) else batch)).replace("-1", "of any size")
        raise UsageError(f"{name} is exported for one picture at a time, not for batch {told}; leave it out")
    if sizes:
        raise UsageError(f"several input sizes in one artifact are for classifiers; export {name} once for each")
    if converter == "onnx2tf":
        raise UsageError(f"onnx2tf converts classifiers only; {name} becomes tflite by litert-torch")
    given = "a budget" if budget is not None else precision
    if given in ("a budget", "w8a8") and isinstance(model, RetinaNet):
        raise UsageError(f"{given} is for classifiers; {name} takes --precision fp32, fp16 or w8")
    if isinstance(model, MaskRCNN) and format != "onnx":
        raise UsageError(f"{name} is exported to onnx, not to {format}: {TWO_STAGES}")
    if isinstance(model, MaskRCNN) and nms:
        raise UsageError(f"{name} always suppresses in the graph; leave out --nms")
    if isinstance(model, MaskRCNN) and given not in (None, "fp32"):
        raise UsageError(f"{name} is exported in fp32, not in {given}; leave it out")
    if isinstance(model, MaskRCNN) and lowering == AUTO:
        raise UsageError(f"{name} is exported in a lowering that is named, not {AUTO}; name one or leave it out")


def _detection(model: Detector, format: str, nms: bool) -> Detection:
    """How the outputs of its artifact are read."""
    config, suppresses = model.config, nms or isinstance(model, MaskRCNN)
    return Detection(
        form=SUPPRESSION[format] if suppresses else "dense",
        score_threshold=config.score_threshold,
        nms_iou=config.nms_iou,
        max_detections=config.max_detections,
        candidates=None if suppresses else CANDIDATES,
    )


def default_precision(format: str) -> Precision:
    """Of a format. The Neural Engine computes in fp16 only, and coremltools has the same default."""
    return "fp16" if format == "coreml" else "fp32"


def default_ios(sizes: Sequence[int]) -> int:
    """Of an artifact with these input sizes, if it has several."""
    return FUNCTIONS_IOS if sizes else IOS[1]


def _batches(given: int | Sequence[int], format: str, target: str) -> tuple[int, tuple[int, ...]]:
    """The batch, and its only sizes where there are several: -1 then."""
    sizes = (given,) if isinstance(given, int) else tuple(dict.fromkeys(given))
    if len(sizes) == 1:
        return sizes[0], ()
    told = ", ".join(map(str, sizes))
    if format != "coreml":
        other = "--dynamic-batch takes any" if format == "onnx" else "give one"
        raise UsageError(f"batch sizes {told}: several exist for coreml only, not for {format}; {other}")
    if target != "coreml-ane":
        raise UsageError(
            f"batch sizes {told}: the form for {target} fixes the batch; take target coreml-ane, or give one"
        )
    if 1 not in sizes:
        raise UsageError(f"batch sizes {told}: 1 must be among them, for apps classify one picture at a time")
    return -1, tuple(sorted(sizes))


def _sizes(sizes: Sequence[int], model: Model, format: str) -> tuple[int, ...]:
    """The model's input size and the others, if there are any."""
    if isinstance(model, Detector):
        return ()
    config, others = model.config, tuple(size for size in dict.fromkeys(sizes) if size != model.config.image_size)
    if others and format != "coreml":
        raise UsageError(f"several input sizes in one artifact exist for coreml only; export {format} once for each")
    for size in others:
        if size < 1 or size % config.stride:
            raise UsageError(f"input size {size} is not a positive multiple of {config.stride}")
    return (config.image_size, *others) if others else ()


def _precision(given: str | None, budget: Budget | None, format: str, target: str) -> Precision:
    default = default_precision(format) if budget is None else "w8"
    precision: Precision = _one_of("precision", given or default, PRECISIONS)  # type: ignore[assignment]  # one of these
    if budget is not None and precision != "w8":
        raise UsageError(f"a budget chooses between w8, fp16 and fp32 for each module; leave out --precision {given}")
    if budget is not None and format == "coreml":
        raise UsageError("a budget is for onnx and tflite; Core ML computes all in fp16, so there is less to choose")
    for where in (format, target):
        if (reason := REFUSED.get((where, precision))) is not None:
            raise UsageError(f"{where} can't run precision {precision}: {reason}")
    return precision


def _calibration(
    folder: str | Path | None, precision: Precision, budget: Budget | None, model: Model
) -> Calibration | None:
    """The pictures for w8a8; for a budget, too, if there are any."""
    if isinstance(model, Detector):
        return None
    path = None if folder is None else Path(folder)
    if precision == "w8a8":
        return read_calibration(path, model.config)
    return None if budget is None else find_calibration(path, model.config)


def _meter(format: str, lowering: str | None, on: str | None, threads: int | None) -> Meter | None:
    """What compares the lowerings, if that is asked for."""
    if lowering != AUTO:
        if given := "on" if on is not None else "threads" if threads is not None else None:
            raise UsageError(f"--{given} says where --lowering {AUTO} measures; give both or neither")
        return None
    if format == "coreml" and (on == "arm64" or platform.system() != "Darwin"):
        raise UsageError(f"--lowering {AUTO} measures, and Core ML runs on a Mac only; name a lowering")
    return Meter(_one_of("device", on or "host", ("host", "arm64")), 1 if threads is None else threads)  # type: ignore[arg-type]  # one of these


def input_spec(plan: Plan, size: tuple[int, int], function: str | None = None) -> InputSpec:
    """Of pictures of this height and width, taken by this function of the artifact, if it has several."""
    image = (3, *size) if plan.input_layout == "NCHW" else (*size, 3)
    is_detector = plan.detection is not None
    return InputSpec(
        name="image",
        function=function,
        shape=(plan.batch, *image),
        batches=plan.batches or None,
        layout="NCHW" if plan.input_layout == "NCHW" else "NHWC",
        dtype="image" if plan.image_input else "float32",
        colour_order="RGB",
        mean=MEAN,
        std=STD,
        normalisation_in_graph=plan.image_input,
        fit="pad" if is_detector else "crop",
        resize=None if is_detector else int(size[0] / 0.9),  # the released code's: the crop is 0.9 of the shorter side
        crop=size,
        interpolation="bicubic",
    )


def _one_of(what: str, given: str, allowed: tuple[str, ...]) -> str:
    if given not in allowed:
        raise UsageError(f"unknown {what} {given!r}; choose from {', '.join(allowed)}{nearest(given, allowed)}")
    return given
