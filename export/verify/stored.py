"""The yardstick of a precision: the eager model in float32, its weights and activations rounded for it.

It knows nothing of the export: weights are rounded before batch norms are folded into them, kernels before they are
mixed, and activations wherever a convolution of constant weights takes or gives them.

An artifact rounds folded weights, so its errors are others, and a network may amplify those of one rounding a hundred
times more than those of another (at pictures that are searched to be hard, it does). So weights are rounded several
times, to the nearest and at random to either neighbour, and the largest error of each input counts.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dmf.dynamic_conv import DynamicConv2d
from export.model import Model
from export.precision import Exceptions, Precision, precision_of
from export.verify.inputs import normalize
from export.verify.reference import Reference, answers

ROUNDINGS = 6  # the first to the nearest
HALF_BITS = 11  # of fp16's significand
LEVELS = 255  # of an activation in int8, from its least to its largest, 0 among them
Round = Callable[[str, Tensor], Tensor]
"""An activation, by the name of its module and of what it is there -> the same, rounded."""


@torch.no_grad()
def in_precision(
    reference: Reference, model: Model, precision: Precision, exceptions: Exceptions, calibration: Any = None
) -> Reference:
    """`reference` with the yardsticks of a precision.

    `calibration` uint8 (N, S, S, 3) shows the ranges of activations; w8a8 needs it.
    """
    ranges: dict[str, tuple[float, float]] = {}
    if calibration is not None:
        observed = with_stored_weights(model, precision, exceptions)
        on_activations(observed, precision, exceptions, partial(observe, ranges))
        for images in np.array_split(calibration, -(-len(calibration) // 8)):
            observed(normalize(images))
    yardsticks = {output.name: output.yardsticks * 0 for output in reference.outputs}
    for rounding in range(ROUNDINGS):
        dither = torch.Generator().manual_seed(rounding) if rounding else None
        stored = with_stored_weights(model, precision, exceptions, dither)
        if calibration is not None:
            on_activations(stored, precision, exceptions, partial(rounded_within, ranges))
        given = answers(stored, normalize(reference.inputs.images))
        for output in reference.outputs:
            errors = np.abs(given[output.name] - output.values).max(1)
            yardsticks[output.name] = np.maximum(yardsticks[output.name], errors)
    return replace(
        reference, outputs=tuple(replace(output, yardsticks=yardsticks[output.name]) for output in reference.outputs)
    )


@torch.no_grad()
def with_stored_weights(
    model: Model, precision: Precision, exceptions: Exceptions, dither: torch.Generator | None = None
) -> Model:
    """A float32 copy whose weights have been stored; with `dither`, rounded to either neighbour."""
    stored = copy.deepcopy(model).float().eval()
    for name, module in stored.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            weights = [module.weight]
        elif isinstance(module, DynamicConv2d):
            weights = [*module.kernel_bank, *(() if module.agnostic_kernel is None else [module.agnostic_kernel])]
        else:
            continue
        for weight in weights:
            weight.copy_(stored_weight(weight, precision_of(name, precision, exceptions), dither))
    return stored


def stored_weight(weight: Tensor, precision: Precision, dither: torch.Generator | None = None) -> Tensor:
    """(C_out, ...) -> the same: fp16, or int8 times a scale per output channel."""
    if precision == "fp32":
        return weight
    noise = torch.rand(weight.shape, generator=dither) - 0.5 if dither is not None else torch.zeros(())  # of a step
    if precision == "fp16":
        step = torch.exp2((torch.frexp(weight).exponent - HALF_BITS).float())
        return (weight + noise * step).half().float()
    scale = weight.flatten(1).abs().amax(1).clamp(min=1e-30).view(-1, *[1] * (weight.dim() - 1)) / 127
    return (weight / scale + noise).round() * scale


def on_activations(model: Model, precision: Precision, exceptions: Exceptions, change: Round) -> list[Any]:
    """Hooks that apply `change` to what convolutions of constant weights take and give, where activations are int8."""
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and precision_of(name, precision, exceptions) == "w8a8":
            hooks.append(module.register_forward_pre_hook(lambda _, x, name=name: (change(f"{name} input", x[0]),)))
            hooks.append(module.register_forward_hook(lambda _, __, y, name=name: change(f"{name} output", y)))
    return hooks


def observe(ranges: dict[str, tuple[float, float]], name: str, x: Tensor) -> Tensor:
    """Widen the range of an activation; 0 is in every range."""
    least, largest = ranges.get(name, (0.0, 0.0))
    ranges[name] = min(least, float(x.min())), max(largest, float(x.max()))
    return x


def rounded_within(ranges: dict[str, tuple[float, float]], name: str, x: Tensor) -> Tensor:
    """An activation in int8: clipped to its range, in 255 steps."""
    least, largest = ranges[name]
    step = max(largest - least, 1e-30) / LEVELS
    return (x.clamp(least, largest) / step).round() * step
