"""Dynamic residual convolution: a kernel computed per sample (the paper's section 3.3, equation 2, figure 3).

    W(x) = W_agnostic + 0.1 * sum_k pi_k(x) W_k

pi are the routing weights, W_k the kernel bank. The factor 0.1 is the released code's, not the paper's.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BANK_SCALE = 0.1


class KernelAttention(nn.Module):
    """Routing weights from the first global token and the pooled input.

    pi = activation(net2(relu(bn(net1(concat[z, gap(x)])))) / temperature): token first, pooled input second.
    """

    temperature: Tensor

    def __init__(
        self,
        in_channels: int,
        token_dim: int,
        num_kernels: int,
        token_input: bool = True,
        routing: Literal["sigmoid", "softmax"] = "sigmoid",
    ) -> None:
        super().__init__()
        self.token_input, self.routing = token_input, routing
        hidden = token_dim if token_input else max(in_channels // 16, 1)
        self.net1 = nn.Linear(in_channels + token_dim * token_input, hidden, bias=False)
        self.bn = nn.BatchNorm1d(hidden)
        self.net2 = nn.Linear(hidden, num_kernels, bias=False)
        # a buffer, so that a checkpoint taken during annealing gives the same logits when it is loaded
        self.register_buffer("temperature", torch.tensor(1.0))

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """(B, C, H, W), (B, D) -> (B, K)"""
        pooled = F.adaptive_avg_pool2d(x, 1).flatten(1)
        descriptor = torch.cat([z, pooled], 1) if self.token_input else pooled
        logits = self.net2(F.relu(self.bn(self.net1(descriptor)))) / self.temperature
        return logits.softmax(1) if self.routing == "softmax" else logits.sigmoid()


class DynamicConv2d(nn.Module):
    """A convolution without bias whose kernel is mixed per sample from a bank of K.

    `kernel_bank` is (K, C_out, C_in / groups, k, k); `agnostic_kernel` is (C_out, C_in / groups, k, k), or None
    without the residual kernel, when the bank is not scaled by 0.1 either (the paper's equation 1).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        token_dim: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        num_kernels: int = 8,
        token_input: bool = True,
        residual_kernel: bool = True,
        routing: Literal["sigmoid", "softmax"] = "sigmoid",
        bank_init: Literal["zero", "random"] = "zero",
    ) -> None:
        super().__init__()
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"{in_channels} and {out_channels} channels can't be split into {groups} groups")
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self.kernel_attention = KernelAttention(in_channels, token_dim, num_kernels, token_input, routing)
        shape = (out_channels, in_channels // groups, kernel_size, kernel_size)
        self.kernel_bank = nn.Parameter(torch.zeros(num_kernels, *shape))
        if bank_init == "random":
            for kernel in self.kernel_bank:
                nn.init.kaiming_uniform_(kernel)
        self.agnostic_kernel = nn.Parameter(torch.empty(shape)) if residual_kernel else None
        if self.agnostic_kernel is not None:
            nn.init.kaiming_uniform_(self.agnostic_kernel)

    def kernel(self, pi: Tensor) -> Tensor:
        """Routing weights (B, K) -> one kernel per sample (B, C_out, C_in / groups, k, k)."""
        if self.agnostic_kernel is None:
            return torch.einsum("bk,k...->b...", pi, self.kernel_bank)
        return self.agnostic_kernel + torch.einsum("bk,k...->b...", pi, BANK_SCALE * self.kernel_bank)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """(B, C_in, H, W), (B, D) -> (B, C_out, H', W')"""
        weight = self.kernel(self.kernel_attention(x, z))
        batch = x.shape[0]
        # the samples become groups of one convolution: good in PyTorch, and just what an export must not contain
        y = F.conv2d(
            x.reshape(1, -1, *x.shape[2:]),
            weight.flatten(0, 1),
            None,
            self.stride,
            self.padding,
            self.dilation,
            batch * self.groups,
        )
        return y.view(batch, self.out_channels, *y.shape[2:])
