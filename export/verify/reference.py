"""The oracle: the eager model in float64, from the pixels on; and in float32, the yardstick of what rounding costs."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dmf.dynamic_conv import DynamicConv2d, KernelAttention
from export.model import Model, answer, output_names
from export.verify.inputs import Inputs, normalize
from export.verify.objects import Objects
from runtime.sketch import sketch

Values = NDArray[np.float64]
Answers = Mapping[str, Sequence[NDArray[Any]]]
"""What an artifact gives for N images: each output by its name, N of (1, ...)."""


SCALES = {"scores": 1.0}


@dataclass(frozen=True, eq=False)
class Output:
    """One output of one model for N inputs, every sample computed by itself.

    Where `sketched`, the values (N, 64) are sketches (`runtime.sketch`) of larger ones, and errors Euclidean norms.
    """

    name: str
    values: Values  # (N, values)
    yardsticks: Values  # (N), the largest error of the same model in float32, per input
    frozen: Values | None = None  # had every sample been routed as the first one was; None where that is not known
    sketched: bool = False
    scale: float | None = None  # how large values can be, where that is known: of a probability, 1

    @property
    def peaks(self) -> Values:
        """What errors are relative to, by input (N)."""
        peaks = self.sizes(self.values)
        return peaks if self.scale is None else np.full_like(peaks, self.scale)

    def of(self, given: Sequence[NDArray[Any]]) -> Values:
        """What is compared with these, (N, values): what an artifact gave for N images, or sketches of it."""
        return np.stack([sketch(row) if self.sketched else np.asarray(row, np.float64).reshape(-1) for row in given])

    def sizes(self, differences: Values) -> Values:
        """Of each of N differences (N, values) the one figure that budgets limit; a NaN is as large as can be."""
        sizes = np.linalg.norm(differences, axis=1) if self.sketched else np.abs(differences).max(1)
        return np.where(np.isfinite(sizes), sizes, 1e30)  # and JSON


Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True, eq=False)
class Reference:
    """What a model gives for some inputs, and what a detector finds in them."""

    inputs: Inputs
    outputs: tuple[Output, ...]
    objects: Objects | None = None


@torch.no_grad()
def compute_reference(model: Model, inputs: Inputs) -> Reference:
    """Run copies of `model`, which is left as it was."""
    x = normalize(inputs.images, torch.float64)
    oracle = copy.deepcopy(model).double()
    exact = answers(oracle, x)
    float32 = answers(copy.deepcopy(model).float(), normalize(inputs.images))
    frozen = answers(_freeze(oracle, x[:1]), x)
    return Reference(
        inputs,
        tuple(
            Output(name, values, np.abs(float32[name] - values).max(1), frozen[name], scale=SCALES.get(name))
            for name, values in exact.items()
        ),
    )


def without_bank(model: Network) -> Network:
    """A copy whose kernels are the agnostic ones alone: what the static twin must equal."""
    twin = copy.deepcopy(model)
    for module in twin.modules():
        if isinstance(module, DynamicConv2d):
            nn.init.zeros_(module.kernel_bank)
    return twin


def answers(model: Model, x: Tensor) -> dict[str, Values]:
    """Of normalised images (N, 3, H, W), one by one."""
    return by_name(output_names(model), (answer(model, sample) for sample in x.split(1)))


def by_name(names: Sequence[str], samples: Iterable[tuple[Tensor, ...]]) -> dict[str, Values]:
    """The outputs of N samples, each (1, ...), as (N, values)."""
    rows = [[output.double().flatten(1).numpy() for output in outputs] for outputs in samples]
    return {name: np.concatenate(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def _freeze(model: Model, x: Tensor) -> Model:
    """`model` itself, from now on routing whatever it sees as it routes `x`."""

    held: dict[nn.Module, Tensor] = {}

    def hold(module: nn.Module, inputs: tuple[Tensor, ...], pi: Tensor) -> Tensor:
        return held.setdefault(module, pi)

    for module in model.modules():
        if isinstance(module, KernelAttention):
            module.register_forward_hook(hold)
    model(x)
    return model
