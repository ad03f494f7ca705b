"""Depthwise, as k * k shifted copies of the feature map, each times one generated weight per channel. Any batch size.

No convolution at all, so every delegate takes it; the price is k * k passes over the feature map.
"""

from torch import Tensor

from export.lowering.generated import GeneratedConv


class Taps(GeneratedConv):
    def order(self, kernels: Tensor) -> Tensor:
        return kernels.movedim(-4, -1).flatten(-4)  # (k, k, C): the channels of one tap together

    def apply_kernels(self, x: Tensor, kernels: Tensor, bias: Tensor) -> Tensor:
        stride, padding, dilation, _ = self.geometry
        taps = self.layout.taps(x, self.shape[-1], stride, padding, dilation)
        y = self.layout.per_channel(bias)
        for tap, weight in zip(taps, kernels.chunk(len(taps), 1), strict=True):
            y = y + tap * self.layout.per_channel(weight)
        return y
