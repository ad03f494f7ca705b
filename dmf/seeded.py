"""Seeded weights for a model that nobody has trained: every parameter and statistic takes part in the output.

A fresh network hides mistakes: its banks and GRN are zero, its norms the identity. Here each is random, and the BN
statistics are those of random pictures, so that activations stay of the order of 1 and the routing follows the input.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dmf.dynamic_conv import DynamicConv2d
from dmf.model import DMF, GRN


@torch.no_grad()
def seed_weights(model: DMF, seed: int) -> DMF:
    """Fill `model` in place with weights that depend on its config and `seed` only; returned in eval mode."""
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor: Tensor, mean: float, std: float) -> None:
        tensor.copy_(mean + std * torch.randn(tensor.shape, generator=generator))

    model.set_temperature(1.0)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and "grn" not in name:
            fan_in = parameter[0].numel() if "kernel_bank" not in name else parameter[0, 0].numel()
            attends = any(part in name for part in ("attention", ".q.", ".fc."))
            gain = 0.5 if attends else 2.0  # softer attention: the whole network then amplifies rounding less
            normal(parameter, 0, 1 if name == "tokens" else (gain / fan_in) ** 0.5)
    for module in model.modules():
        if isinstance(module, DynamicConv2d):
            module.kernel_bank.mul_(4)  # with the factor 0.1, a dynamic part about as large as the agnostic kernel
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm | nn.GroupNorm):
            normal(module.weight, 1, 0.2)
            normal(module.bias, 0, 0.2)
        elif isinstance(module, GRN):
            normal(module.gamma, 0, 0.3)
            normal(module.beta, 0, 0.2)
        elif isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
            normal(module.bias, 0, 0.2)
    dtype = model.tokens.dtype
    _set_statistics(model.double(), pictures(8, (model.config.image_size,) * 2, generator).double())
    return model.to(dtype).eval()


def pictures(count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Random normalised pictures (count, 3, *size): a coarse and a fine pattern of random colour and contrast."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=generator).double()  # see _set_statistics

    coarse, fine, mean = normal(3, 4, 4), normal(3, *size), 0.7 * normal(3, 1, 1)
    contrast = 0.2 + 0.8 * torch.rand(2, count, 1, 1, 1, generator=generator).double()
    smooth = F.interpolate(coarse, size=size, mode="bilinear")
    return (mean + contrast[0] * smooth + contrast[1] * fine).float()


def _set_statistics(model: DMF, images: Tensor) -> None:
    """Set every BN's running statistics to those of `images`, in one pass.

    In float64, and rounded to float16, so that the order of sums, which differs with the number of threads, can't show.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]

    def measure(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
        assert norm.running_mean is not None and norm.running_var is not None
        axes = [i for i in range(inputs[0].ndim) if i != 1]
        variance, mean = torch.var_mean(inputs[0], axes)
        norm.running_mean.copy_(mean.half())
        norm.running_var.copy_((variance + 1e-3).half())

    hooks = [norm.register_forward_pre_hook(measure) for norm in norms]
    model.eval()(images)
    for hook in hooks:
        hook.remove()
