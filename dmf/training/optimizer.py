"""AdamW over two groups of parameters, and the moving average of the weights."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel

from dmf.model import GRN
from dmf.training.config import EMAConfig, OptimizerConfig
from dmf.training.schedule import ema_decay

NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, GRN)


def adamw(model: nn.Module, config: OptimizerConfig) -> AdamW:
    """AdamW whose weight decay leaves out norms, biases and the tokens; the learning rate is set at each step."""
    groups: list[dict[str, Any]] = [
        {"params": decayed(model), "weight_decay": config.weight_decay},
        {"params": undecayed(model), "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=config.lr, betas=config.betas)


def undecayed(model: nn.Module) -> list[nn.Parameter]:
    """Scales and shifts of norms, every bias, the tokens."""
    return [
        parameter
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if isinstance(module, NORMS) or name in ("bias", "tokens")
    ]


def decayed(model: nn.Module) -> list[nn.Parameter]:
    """The weights of linear layers and convolutions, agnostic kernels and kernel banks."""
    left_out = {id(parameter) for parameter in undecayed(model)}
    return [parameter for parameter in model.parameters() if id(parameter) not in left_out]


class Average(AveragedModel):
    """A copy of a model, in eval mode, that follows it."""

    module: nn.Module


def averaged(model: nn.Module, config: EMAConfig) -> Average:
    """The exponential moving average of `model`; the first update copies it.

    Batch norm's statistics are averaged like the weights, because the average's features are not the model's.
    """

    @torch.no_grad()
    def update(average: Any, current: Any, updates: Tensor | int) -> None:
        if average[0].is_floating_point():
            torch._foreach_lerp_(average, current, 1 - ema_decay(config, int(updates)))
        else:  # how many batches a norm has seen
            torch._foreach_copy_(average, current)

    return Average(model, multi_avg_fn=update, use_buffers=True).eval()
