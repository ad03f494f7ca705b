"""Depthwise, as K + 1 static convolutions (the bank's and the agnostic kernel's), mixed afterwards. Any batch size.

Every filter is constant, so every delegate takes it; the price is K + 1 convolutions instead of one.
"""

from torch import Tensor

from export.layout import Layout
from export.static import DynamicConv, LaidOut


class Bank(LaidOut):
    bank: Tensor
    agnostic: Tensor
    bias: Tensor

    def __init__(self, conv: DynamicConv, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        self.routing, self.geometry = conv.routing, conv.geometry
        self.hold(bank=conv.bank, agnostic=conv.agnostic, bias=conv.bias)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """A feature map, first tokens (B, D) -> a feature map"""
        y = self.layout.conv(x, self.agnostic, self.bias, *self.geometry)
        for kernel, pi in zip(self.bank, self.routing(z, self.layout.pool(x)).split(1, 1), strict=True):
            y = y + self.layout.conv(x, kernel, None, *self.geometry) * self.layout.per_channel(pi)
        return y
