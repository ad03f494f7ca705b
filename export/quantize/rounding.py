"""What is left of weights in few bits: a lowered graph rounded as an artifact stores it, and how many bytes that takes.

int8 is symmetric: the largest magnitude that shares a scale becomes 127.
"""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from export.lowering import Graph
from export.precision import BITS
from export.quantize.weights import Weight, Weights, constants

INT8 = 127
SCALE_BYTES = 4


@torch.no_grad()
def rounded(graph: Graph, weights: Weights) -> Graph:
    """A deep copy whose weights are those that an artifact of these `weights` has. `ValueError` as of `held`."""
    result = copy.deepcopy(graph)
    for weight, tensor in held(result, weights):
        tensor.copy_(round_to(tensor, weight))
    return result


def held(graph: nn.Module, weights: Weights) -> Iterator[tuple[Weight, Tensor]]:
    """Every weight that a lowered graph has, and what it is stored in. `ValueError`: `weights` are another graph's."""
    for name, module in graph.named_modules():
        for tensor in constants(module):
            weight = weights.find(tensor.detach().float().numpy())
            if weight is None:
                raise ValueError(f"a weight of {name} is none of these")
            yield weight, tensor


def round_to(tensor: Tensor, weight: Weight) -> Tensor:
    """The tensor of a weight after it has been stored; its type is kept, but it has float32's precision at most."""
    values = tensor.detach().float()
    if weight.precision == "fp16":
        values = values.half().float()
    elif BITS[weight.precision] == 8:
        peaks = sharing(values, weight).abs().amax(-1, keepdim=True)
        scales = (peaks / INT8).clamp(min=torch.finfo(torch.float32).tiny)  # of a row of zeros, too
        values = ((sharing(values, weight) / scales).round() * scales).view_as(values)
    return values.to(tensor.dtype)


def stored_bytes(tensor: Tensor, weight: Weight) -> int:
    """With the scales, and without what a format adds."""
    scales = len(sharing(tensor, weight).flatten(0, -2)) if BITS[weight.precision] == 8 else 0
    return tensor.numel() * BITS[weight.precision] // 8 + scales * SCALE_BYTES


def sharing(tensor: Tensor, weight: Weight) -> Tensor:
    """Weights that share a scale as one row: a linear layer's (out, in), a kernel's (..., C_out, C_in / g, k, k)."""
    if weight.generates:
        return tensor.flatten()[None]
    return tensor.flatten(-3) if tensor.dim() > 2 else tensor
