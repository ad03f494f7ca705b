"""Any network with dynamic convolutions to one artifact that is proven equal to it.

What `export.export` does for a Dynamic Mobile-Former, without what is known of that one only: no package, no
preprocessing, no labels. The network takes one tensor (B, C, H, W) and gives one.
"""

import copy
import traceback
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from export.adapters import Adapted
from export.captured import captured, interruptible
from export.convert import CONVERTERS, FORMATS, Converter
from export.convert.options import Options
from export.destination import disk_full, keep_rejected, put_in_place, workspace
from export.lowering import Lowering, lower
from export.pipeline import FOLD_TOLERANCE
from export.reparameterize import reparameterize
from export.target import DEFAULT_TARGETS, TARGETS
from export.verify.inputs import Inputs
from export.verify.parity import TOLERANCES, Run, Verdict, verify
from export.verify.reference import Output, Reference, Values
from runtime.commandline import nearest
from runtime.errors import CommandError, ConverterError, ParityError, RunnerError, UsageError
from runtime.manifest import Parity
from runtime.runners import open_runner


@torch.no_grad()
def convert_module(
    model: nn.Module,
    examples: Tensor,
    format: str,
    path: str | Path,
    *,
    lowering: str | None = None,
    overwrite: bool = False,
) -> Parity:
    """Convert `model` in eval mode and prove the artifact on `examples` (N, C, H, W), at least two; -> the figures.

    The artifact takes one example, "image" (1, C, H, W), and gives what `model` gives, as "logits". It appears whole
    or not at all; what failed is kept beside it, under `rejected/`. `lowering` is the form of pointwise and
    depthwise dynamic convolutions, as `matmul/taps`; by default the one that is best for the format's default target.

    Raises `UsageError`, also for a model without a registered dynamic convolution, `ConverterError`, `ParityError`,
    and `RunnerError` for an artifact that this host can't run. `model` is left as it was.
    """
    path = Path(path)
    converter, form = _choices(format, path, lowering, overwrite)
    if examples.dim() != 4 or len(examples.unique(dim=0)) < 2:
        raise UsageError(
            f"examples of shape {tuple(examples.shape)}; give (N, C, H, W) with at least two that differ, "
            "or frozen routing could not be told"
        )
    source = copy.deepcopy(model).double().eval()
    try:
        graph = reparameterize(source)
        reference = _reference(source, graph, examples)
        lowered = lower(graph, form)
        _check_exact(lowered, reference)
    except ValueError as error:  # nothing that is registered, or a form that can't do it
        raise UsageError(str(error)) from error
    rejected = path.parent / "rejected" / path.name
    with workspace(path.parent, path.name, 4 * sum(p.numel() for p in lowered.parameters())) as work:
        artifact = work / "artifact" / converter.artifact
        artifact.parent.mkdir()
        _convert(converter, lowered.float(), examples[:1].float(), artifact, work / "log", rejected)
        verdict = _prove(format, artifact, reference, rejected)
        put_in_place(artifact, path, work / "replaced", overwrite)
    return verdict.parity


def _choices(format: str, path: Path, lowering: str | None, overwrite: bool) -> tuple[Converter, Lowering]:
    """Raises `UsageError`."""
    if format not in FORMATS:
        raise UsageError(f"unknown format {format!r}; choose from {', '.join(FORMATS)}{nearest(format, FORMATS)}")
    converter = CONVERTERS[FORMATS[format]]
    try:
        form = Lowering.parse(lowering) if lowering else TARGETS[DEFAULT_TARGETS[format]].lowering
    except ValueError as error:
        raise UsageError(str(error)) from error
    if form.is_twin:
        raise UsageError("the lowering twin/twin is not the model, and can't be proven equal to it; choose another")
    if path.suffix != (suffix := Path(converter.artifact).suffix):
        raise UsageError(f"{path} is no name for {format}; it must end in {suffix}")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists already; give overwrite=True to replace it, or another path")
    converter.check_installed()
    return converter, form


def _reference(source: nn.Module, graph: nn.Module, examples: Tensor) -> Reference:
    """Of the user's model, in float64; `graph` only says what it would give if its routing were frozen."""
    images = examples.float().double()  # as the artifact gets them
    exact = _one_by_one(source, images)
    float32 = _one_by_one(copy.deepcopy(source).float(), images.float())
    frozen = copy.deepcopy(graph)
    held: dict[nn.Module, object] = {}
    for module in list(frozen.modules()):
        if isinstance(module, Adapted):
            module.routing.register_forward_hook(lambda routing, _, weights: held.setdefault(routing, weights))
    names = tuple(f"example {i}" for i in range(len(images)))
    inputs = Inputs(images.float().numpy(), names)  # float32 (N, C, H, W), as what `_open` gives takes them
    output = Output("logits", exact, np.abs(float32 - exact).max(1), _one_by_one(frozen, images))
    return Reference(inputs, (output,))


def _one_by_one(model: nn.Module, images: Tensor) -> Values:
    """(N, everything that `model` gives for one). Raises `UsageError` unless that is one tensor."""
    outputs = [model(image) for image in images.split(1)]
    if not isinstance(outputs[0], Tensor):
        raise UsageError(f"the model gives a {type(outputs[0]).__name__}; it must give one tensor: wrap it")
    return torch.cat([output.flatten(1) for output in outputs]).double().numpy()


def _check_exact(lowered: nn.Module, reference: Reference) -> None:
    """In float64, two samples at once. Raises `ParityError`."""
    pairs = torch.from_numpy(reference.inputs.images).double().split(2)
    logits = torch.cat([lowered(pair).flatten(1) for pair in pairs]).numpy()
    (output,) = reference.outputs
    error = np.abs(logits - output.values).max() / np.abs(output.values).max()
    if not error <= FOLD_TOLERANCE:
        raise ParityError(
            f"the rewritten model is {error:.2g} (relative) from the model; at most {FOLD_TOLERANCE}: "
            "see that each adapter describes what its layer computes"
        )


def _convert(
    converter: Converter, graph: nn.Module, example: Tensor, artifact: Path, logs: Path, rejected: Path
) -> None:
    """Write the artifact. `ConverterError` names the log, kept in `rejected`, of a converter that failed."""
    logs.mkdir()
    log = logs / "converter.log"
    try:
        with captured(log), interruptible():
            converter.load()(graph, example, artifact, Options(log))
    except (CommandError, MemoryError):
        raise
    except Exception as error:
        if full := disk_full(error):
            raise full from error
        with log.open("a", encoding="utf-8") as file:
            file.write("\n" + "".join(traceback.format_exception(error)))
        keep_rejected(logs, rejected)
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise ConverterError(
            f"{converter.name} failed: {type(error).__name__}: {reason}; its log is {rejected / log.name}"
        ) from error


def _prove(format: str, artifact: Path, reference: Reference, rejected: Path) -> Verdict:
    """The verdict on an artifact that equals the model; another is kept in `rejected`. Raises as `convert_module`."""
    try:
        run, checked_by = _open(format, artifact)
        verdict = verify(run, reference, TOLERANCES["fp32"], checked_by, batch=1)
        if verdict.failures:
            raise ParityError("; ".join(verdict.failures))
        return verdict
    except (ParityError, RunnerError, ValueError, NotImplementedError) as error:
        keep_rejected(artifact.parent, rejected)
        message = str(error).replace(str(artifact.parent), str(rejected))
        if isinstance(error, ParityError | ValueError):  # ValueError: outputs of another shape
            raise ParityError(f"{rejected.name} is not the model: {message}; kept in {rejected}") from error
        raise RunnerError(f"{rejected.name} can't be run: {message}; kept in {rejected}") from error


def _open(format: str, artifact: Path) -> tuple[Run, str]:
    """What runs the artifact, one example at a time, and in words what that is.

    Raises `RunnerError`, and `NotImplementedError` for an op that the interpreter of Core ML programs has not.
    """
    if format != "coreml":
        runner = open_runner(format, artifact)
        return lambda images: {"logits": [runner.run(x[None])[0] for x in images]}, runner.description
    from export.verify.mil_interpreter import MilInterpreter

    program = MilInterpreter(artifact)
    checked_by = "MIL interpreter; Apple's runtime was not run"
    return lambda images: {"logits": [program.run({"image": x[None]})["logits"] for x in images]}, checked_by
