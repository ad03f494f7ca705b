"""The static twin: the agnostic kernel alone, a constant. Not the model, but the floor for its latency."""

from torch import Tensor

from export import static
from export.layout import Layout
from export.static import DynamicConv


class Twin(static.Conv):
    def __init__(self, conv: DynamicConv, layout: Layout) -> None:
        super().__init__(conv.agnostic, conv.bias, conv.geometry)
        self.layout = layout

    def forward(self, x: Tensor, _: Tensor | None = None) -> Tensor:
        """A feature map -> a feature map"""
        return super().forward(x)
