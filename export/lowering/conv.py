"""Pointwise or depthwise (or any other), as one ordinary convolution per sample whose filter is computed.

The naive form. Where the runtime has a kernel for it, nothing is faster; elsewhere it falls out of the delegate.
The batch is unrolled, so its size is fixed at export.
"""

import torch
from torch import Tensor

from export.lowering.generated import GeneratedConv


class Conv(GeneratedConv):
    def order(self, kernels: Tensor) -> Tensor:
        return self.layout.conv_order(kernels)

    def apply_kernels(self, x: Tensor, kernels: Tensor, bias: Tensor) -> Tensor:
        samples = [
            self.layout.conv(x[i : i + 1], self.layout.conv_kernel(kernels[i], self.shape), bias, *self.geometry)
            for i in range(x.shape[0])
        ]
        return torch.cat(samples) if len(samples) > 1 else samples[0]
