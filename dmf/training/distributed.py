"""The processes of one run, as torchrun starts them, and batch norm over all of them.

Each process computes its equal share of every batch. The gradients are averaged by DistributedDataParallel and the
statistics of batch norm are taken over the whole batch, so that one file gives the same weights, up to rounding, on
any number of processes. (Only dropout and stochastic depth draw other numbers in each.)
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from runtime.errors import UsageError


@dataclass(frozen=True)
class Processes:
    """This process among all; alone by default."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def sum(self, x: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.world > 1:
            dist.all_reduce(x)
        return x

    def gather(self, value: Any) -> list[Any]:
        """Every process' value, in the order of the ranks."""
        values = [value] * self.world
        if self.world > 1:
            dist.all_gather_object(values, value)
        return values


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Joins the processes that torchrun started, over NCCL on GPUs and gloo on CPUs; alone without torchrun.

    `device` is "cpu" or "cuda". Raises `UsageError`.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: this machine, or this build of PyTorch, has no CUDA GPU; give --device cpu")
    world, local_rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
    if device == "cuda" and local_rank >= torch.cuda.device_count():
        raise UsageError(f"process {local_rank} of this machine has no GPU; there are {torch.cuda.device_count()}")
    here = torch.device("cuda", local_rank) if device == "cuda" else torch.device("cpu")
    if world == 1:
        yield Processes(here)
        return
    if device == "cuda":
        torch.cuda.set_device(here)
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield Processes(here, dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def sum_over_processes(x: Tensor) -> Tensor:
    """Differentiable; any shape."""
    return SumOverProcesses.apply(x)  # type: ignore[no-untyped-call]


class SumOverProcesses(torch.autograd.Function):
    """The gradient of a sum over all processes is summed likewise."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient


class JointBatchNorm(_BatchNorm):
    """Batch norm whose statistics are of all processes' batches: (B, C) or (B, C, H, W) -> the same shape.

    For CPUs, where `torch.nn.SyncBatchNorm` refuses to run. In eval mode it is plain batch norm.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        # as PyTorch's does, and needed: of a 1x1 grouped convolution with input and weight in channels-last order
        # PyTorch (2.13, CPU) computes a wrong gradient
        x = x.contiguous()
        over, shape = [0, *range(2, x.ndim)], [1, -1, *[1] * (x.ndim - 2)]
        totals = sum_over_processes(torch.cat([x.sum(over), x.new_tensor([x.numel() / x.shape[1]])]))
        count = totals[-1]
        mean = totals[:-1] / count
        centred = x - mean.view(shape)
        variance = sum_over_processes(centred.square().sum(over)) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked += 1
        scale = (variance + self.eps).rsqrt() * self.weight
        return centred * scale.view(shape) + self.bias.view(shape)


def join_batch_norms(model: nn.Module, device: torch.device) -> None:
    """Make every batch norm of `model` one over all processes, in place; names, parameters and buffers stay."""
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _BatchNorm):
                joint = JointBatchNorm(child.num_features, child.eps, child.momentum)
                joint._parameters, joint._buffers = child._parameters, child._buffers
                setattr(parent, name, joint.train(child.training))
