"""Depthwise, as K + 1 static convolutions (the bank's and the agnostic kernel's), mixed afterwards. Any batch size.

Every filter is constant, so every delegate takes it; the price is K + 1 convolutions instead of one. Not for taps that
are weighed per sample: then no filter is constant, and what is constant, a weight per tap, is mixed by `taps` for less.
"""

from torch import Tensor, nn

from export.layout import Layout
from export.lowering.generated import Pieces, constant
from export.static import Attention, DynamicConv


class Bank(Pieces):
    def __init__(self, conv: DynamicConv, layout: Layout, pieces: int) -> None:
        super().__init__(conv, layout, pieces)
        self.bank = nn.ParameterList(constant(bank) for bank in conv.bank.chunk(pieces, 1))
        self.agnostic = nn.ParameterList(constant(kernel) for kernel in conv.agnostic.chunk(pieces))
        self.bias = nn.ParameterList(constant(bias) for bias in conv.bias.chunk(pieces))

    def convolve(self, index: int, x: Tensor, attention: Attention) -> Tensor:
        """Raises `ValueError` for weights of taps."""
        if attention.taps is not None:
            raise ValueError("the form bank can't weigh taps, as a spatial attention does; use taps or conv")
        y = self.layout.conv(x, self.agnostic[index], self.bias[index], *self.geometry)
        for kernel, weight in zip(self.bank[index], attention.kernels.split(1, 1), strict=True):
            y = y + self.layout.conv(x, kernel, None, *self.geometry) * self.layout.per_channel(weight)
        return y
