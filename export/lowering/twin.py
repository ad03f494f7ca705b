"""The static twin: the agnostic kernel alone, a constant. Not the model, but the floor for its latency."""

from torch import Tensor, nn

from export import static
from export.layout import Layout
from export.lowering.generated import Pieces
from export.static import DynamicConv


class Twin(Pieces):
    def __init__(self, conv: DynamicConv, layout: Layout, pieces: int) -> None:
        super().__init__(conv, layout, pieces)
        del self.routing
        kernels, biases = conv.agnostic.chunk(pieces), conv.bias.chunk(pieces)
        convs = [static.Conv(kernel, bias, self.geometry) for kernel, bias in zip(kernels, biases, strict=True)]
        for module in convs:
            module.lay_out(layout)
        self.convs = nn.ModuleList(convs)

    def forward(self, maps: list[Tensor], _: object = None) -> list[Tensor]:
        """Pieces of a feature map -> as many pieces as this has"""
        return [conv(piece) for conv, piece in zip(self.convs, self.cut(maps), strict=True)]
