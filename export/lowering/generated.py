"""What the lowerings share: routing weights become kernels by one linear layer, whose bias is the agnostic kernel."""

from torch import Tensor

from export.layout import Layout
from export.static import DynamicConv, LaidOut, linear


class GeneratedConv(LaidOut):
    """routing -> one linear layer K -> C_out * C_in / g * k * k -> kernels, in the order in which they are consumed."""

    bias: Tensor

    def __init__(self, conv: DynamicConv, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        self.routing, self.shape, self.geometry = conv.routing, conv.agnostic.shape, conv.geometry
        self.hold(bias=conv.bias)
        self.generate = linear(self.order(conv.bank).T, self.order(conv.agnostic))

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """A feature map, first tokens (B, D) -> a feature map"""
        return self.convolve(x, self.generate(self.routing(z, self.layout.pool(x))))

    def order(self, kernels: Tensor) -> Tensor:
        """(..., C_out, C_in / g, k, k) -> (..., n)"""
        raise NotImplementedError

    def convolve(self, x: Tensor, kernels: Tensor) -> Tensor:
        """A feature map, kernels (B, n) in `order` -> a feature map"""
        raise NotImplementedError
