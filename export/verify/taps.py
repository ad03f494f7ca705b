"""Which values of a proven artifact are the outputs of which modules, and what those outputs must be.

Converters keep few names, so modules are found by value: the lowered graph, which is what was converted, is run in
float64, and a value of the artifact that equals a module's output for every image is its tap. A module whose output is
nowhere, because a converter fused it with what follows, has none.

A module's budget follows the rule of the logits' budgets. Its yardstick is what float32 costs in PyTorch, or what it
cost in the artifact when that was proven, if that is more: kernels that approximate are not at fault elsewhere, either.

Modules are named as in the model, though the graph's have batch norms and scales folded in.
"""

import copy
from collections.abc import Callable, Container, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.scopes import renamed
from export.verify.inputs import Inputs, normalize
from export.verify.intermediates import all_values, open_with
from runtime.golden import Taps
from runtime.manifest import InputSpec, Tolerance
from runtime.preprocess import to_input
from runtime.sketch import SUMS, sketch

ALIKE = 1e-3  # relative: values so near are the same, whatever the precision
Vector = NDArray[np.float64]
Outputs = dict[str, list[Vector]]
"""What each module computed, flat, a tensor or its pieces; in the order in which the modules ended."""

Values = dict[str, NDArray[Any]]
"""What an artifact computed, by name, in the order of execution."""

Form = Callable[[Vector], Vector]
FORMS: tuple[Form, ...] = (lambda output: output, lambda output: np.maximum(output, 0))
"""What a converter leaves of an output: itself, or the ReLU that it fused with it."""


class Tap(NamedTuple):
    """Which values of an artifact are a module's output, one after the other, and in which form."""

    tensors: tuple[str, ...]
    form: Form


def find_taps(
    graph: nn.Module,
    names: Container[str],
    format: str,
    artifact: Path,
    spec: InputSpec,
    inputs: Inputs,
    tolerance: Tolerance,
) -> Taps:
    """Of a proven artifact and the graph it was made of; `names` are those of the model's modules.

    Raises `UsageError` and `RunnerError` as `open_with` does.
    """
    oracle = copy.deepcopy(graph).double()
    order = all_values(format, artifact, spec.function)
    with open_with(format, artifact, order, function=spec.function) as infer:

        def run(image: NDArray[np.uint8]) -> tuple[Outputs, Outputs, Values]:
            values = infer(to_input(filled(image, spec), spec))
            exact, float32 = (module_outputs(each, names, image, spec) for each in (oracle, graph))
            return exact, float32, {name: values[name] for name in order}

        images, alike = np.split(inputs.images, len(inputs.images)), max(ALIKE, tolerance.relative)
        exact, _, values = run(images[0])
        taps = match(exact, values, alike)
        rows = [judge(taps, *run(image), tolerance) for image in images]
    sketches, budgets, errors = (np.stack(each, 1) for each in zip(*rows, strict=True))
    found: NDArray[np.bool_] = np.all(errors <= alike * np.linalg.norm(sketches, axis=2), axis=1)
    modules = [name for name, is_found in zip(taps, found, strict=True) if is_found]
    return Taps(
        modules=tuple(modules),
        tensors=tuple(taps[name].tensors for name in modules),
        sketches=sketches[found].astype(np.float32),
        budgets=budgets[found],
        untapped=tuple(name for name in exact if name not in modules),
    )


def judge(
    taps: dict[str, Tap], exact: Outputs, float32: Outputs, values: Values, tolerance: Tolerance
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """For one image, of each of T taps the sketch that it must have (T, 64), its budget (T), its error (T)."""
    expected = _sketches(tap.form(joined(exact[name])) for name, tap in taps.items())
    rounded = _sketches(tap.form(joined(float32[name])) for name, tap in taps.items())
    found = _sketches(joined(values[each] for each in tap.tensors) for tap in taps.values())
    errors = np.linalg.norm(found - expected, axis=1)
    yardsticks = np.maximum(np.linalg.norm(rounded - expected, axis=1), errors)
    peaks = np.linalg.norm(expected, axis=1)
    budgets = np.maximum(tolerance.yardstick_factor * yardsticks, tolerance.relative * peaks)
    return expected, budgets, errors


def _sketches(outputs: Iterable[Vector]) -> NDArray[np.float64]:
    """(T, 64)"""
    return np.array([sketch(output) for output in outputs]).reshape(-1, SUMS)


@torch.no_grad()
def module_outputs(graph: nn.Module, names: Container[str], image: NDArray[np.uint8], spec: InputSpec) -> Outputs:
    """Of the modules that have a name in the model, for one image (1, H, W, 3) in every place of the batch.

    A module that only passes on what modules inside it computed has no output of its own.
    """
    outputs: dict[str, list[Tensor]] = {}
    computed: set[Tensor] = set()  # a tensor equals itself only

    def record(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        pieces = [output] if isinstance(output, Tensor) else list(output)
        if name in names and (name in outputs or not computed.issuperset(pieces)):
            outputs[name] = pieces
        computed.update(pieces)

    hooks = [
        module.register_forward_hook(partial(record, renamed(name)))  # the last of one name has done all of it
        for name, module in graph.named_modules()
        if name
    ]
    try:
        x = normalize(filled(image, spec), next(graph.parameters()).dtype)
        graph(x if spec.layout == "NCHW" else x.permute(0, 2, 3, 1))
    finally:
        for hook in hooks:
            hook.remove()
    return {name: [piece.double().numpy().reshape(-1) for piece in pieces] for name, pieces in outputs.items()}


def filled(image: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8]:
    """One image (1, H, W, 3) in every place of the artifact's batch (B, H, W, 3); alone where any batch will do."""
    return image.repeat(max(spec.shape[0], 1), 0)


def match(exact: Outputs, values: Values, alike: float) -> dict[str, Tap]:
    """The taps by the names of their modules, for one image; of the modules that have any.

    `alike` is how far a value may be from an output, of the output's Euclidean norm.
    """
    of_size: dict[int, dict[str, Vector]] = {}
    for name, value in values.items():
        if value.dtype.kind == "f":
            of_size.setdefault(value.size, {})[name] = value.astype(np.float64).reshape(-1)
    taps: dict[str, Tap] = {}
    for module, pieces in exact.items():
        for form in FORMS:
            nearest = [_nearest(form(piece), of_size.get(piece.size, {}), alike) for piece in pieces]
            tensors = tuple(name for name in nearest if name is not None)
            if len(tensors) == len(pieces):
                taps.setdefault(module, Tap(tensors, form))
    return taps


def _nearest(vector: Vector, values: dict[str, Vector], alike: float) -> str | None:
    """The name of the value that is this one; the first, among copies. Nothing is known by being zero."""
    distances = {name: float(np.linalg.norm(value - vector)) for name, value in values.items()}
    name = min(distances, key=distances.__getitem__, default=None)
    return name if name is not None and vector.any() and distances[name] <= alike * np.linalg.norm(vector) else None


def joined(pieces: Iterable[NDArray[Any]]) -> NDArray[Any]:
    """Their values, flat, one piece after the other."""
    return np.concatenate([piece.reshape(-1) for piece in pieces])
