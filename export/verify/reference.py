"""The oracle: the eager model in float64, from the pixels on; and in float32, the yardstick of what rounding costs."""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dmf import DMF
from dmf.dynamic_conv import DynamicConv2d, KernelAttention
from export.verify.inputs import Inputs, normalize

Logits = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Reference:
    """Logits (N, classes) of one model for N inputs, every sample computed by itself."""

    inputs: Inputs
    logits: Logits
    yardsticks: Logits  # (N), the largest error of the same model in float32, per input
    frozen: Logits | None  # had every sample been routed as the first one was; None where that is not known


@torch.no_grad()
def compute_reference(model: DMF, inputs: Inputs) -> Reference:
    """Run copies of `model`, which is left as it was."""
    x = normalize(inputs.images, torch.float64)
    oracle = copy.deepcopy(model).double()
    logits = _one_by_one(oracle, x)
    float32 = _one_by_one(copy.deepcopy(model).float(), normalize(inputs.images))
    frozen = _one_by_one(_freeze(oracle, x[:1]), x)
    return Reference(inputs, logits, np.abs(float32 - logits).max(1), frozen)


def without_bank(model: DMF) -> DMF:
    """A copy whose kernels are the agnostic ones alone: what the static twin must equal."""
    twin = copy.deepcopy(model)
    for module in twin.modules():
        if isinstance(module, DynamicConv2d):
            nn.init.zeros_(module.kernel_bank)
    return twin


def _one_by_one(model: DMF, x: Tensor) -> Logits:
    return torch.cat([model(sample) for sample in x.split(1)]).double().numpy()


def _freeze(model: DMF, x: Tensor) -> DMF:
    """`model` itself, from now on routing whatever it sees as it routes `x`."""

    held: dict[nn.Module, Tensor] = {}

    def hold(module: nn.Module, inputs: tuple[Tensor, ...], pi: Tensor) -> Tensor:
        return held.setdefault(module, pi)

    for module in model.modules():
        if isinstance(module, KernelAttention):
            module.register_forward_hook(hold)
    model(x)
    return model
