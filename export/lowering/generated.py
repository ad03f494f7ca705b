"""What the lowerings share: routing weights become kernels by linear layers, whose bias is the agnostic kernel.

A bias is not stored in few bits, and a scale per output would be as large as the weights that it is for: below fp32
these layers are `Equalized`.

A grouped convolution is a set of smaller ones, on pieces of the feature map (the channels of some groups). Layouts that
can't slice channels cheaply keep the pieces apart from one dynamic convolution to the next.
"""

import torch
from torch import Tensor, nn

from export.layout import Layout
from export.static import Attention, DynamicConv, Geometry, LaidOut, linear


class Pieces(LaidOut):
    """A dynamic convolution in `pieces` of equally many groups: on a list of pieces of a feature map."""

    def __init__(self, conv: DynamicConv, layout: Layout, pieces: int) -> None:
        super().__init__()
        self.layout, self.routing, self.pieces = layout, conv.routing, pieces
        self.in_channels = conv.in_channels // pieces  # of one piece, as is
        self.geometry = conv.geometry._replace(groups=conv.geometry.groups // pieces)

    def forward(self, maps: list[Tensor], z: Tensor | Attention) -> list[Tensor]:
        """Pieces of a feature map, what else the routing takes: first tokens (B, D) -> as many pieces as this has"""
        attention = Attention.of(self.routing(z, maps))
        return [self.convolve(i, piece, attention) for i, piece in enumerate(self.cut(maps))]

    def cut(self, maps: list[Tensor]) -> list[Tensor]:
        """The feature map in this convolution's own pieces."""
        if len(maps) == self.pieces:
            return maps
        x, size = self.layout.join(maps), self.in_channels
        return [self.layout.channels(x, i * size, (i + 1) * size) if self.pieces > 1 else x for i in range(self.pieces)]

    def convolve(self, index: int, x: Tensor, attention: Attention) -> Tensor:
        """Piece `index`, weights of kernels and taps -> a piece of the output"""
        raise NotImplementedError


class Equalized(nn.Module):
    """Routing weights -> kernels (B, n), with all constants in one matrix that one scale is enough for.

    The agnostic kernel is the last column, for a routing weight of 1. Factors per output channel and per column take
    the ranges out, and are multiplied in float: a scale per channel and kernel of the bank, at the price of a few.
    """

    columns: Tensor
    rows: Tensor

    def __init__(self, layer: nn.Linear, channels: Tensor) -> None:
        """`layer` K -> n with a bias; `channels` (n) says which output channel each weight is of."""
        super().__init__()
        matrix = torch.cat([layer.weight, layer.bias[:, None]], 1)
        rows = matrix.new_zeros(int(channels.max()) + 1).scatter_reduce(0, channels, matrix.abs().amax(1), "amax")
        rows = torch.where(rows > 0, rows, 1)
        matrix = matrix / rows[channels, None]
        columns = matrix.abs().amax(0)
        columns = torch.where(columns > 0, columns, 1)
        self.linear = linear(matrix / columns)
        again = (channels[1:] == channels[0]).nonzero()
        run = int(again[0]) + 1 if len(again) else len(channels)  # of channels, until the first one comes again
        self.register_buffer("columns", columns)
        self.register_buffer("rows", rows.view(-1, 1, run))

    def forward(self, weights: Tensor) -> Tensor:
        one = weights.new_full((len(weights), 1), 1.0)  # coremltools has no new_ones; XNNPACK no padding with ones
        kernels = self.linear(torch.cat([weights, one], 1) * self.columns)
        return (kernels.unflatten(1, (len(self.rows), -1, self.rows.shape[2])) * self.rows).flatten(1)


class GeneratedConv(Pieces):
    """Per piece one linear layer K -> kernels, in the order in which they are consumed."""

    def __init__(self, conv: DynamicConv, layout: Layout, pieces: int) -> None:
        super().__init__(conv, layout, pieces)
        agnostic = conv.agnostic.chunk(pieces)
        self.shape = agnostic[0].shape
        self.generate = nn.ModuleList(
            linear(self.order(bank).T, self.order(kernel))
            for bank, kernel in zip(conv.bank.chunk(pieces, 1), agnostic, strict=True)
        )
        self.bias = nn.ParameterList(constant(bias) for bias in conv.bias.chunk(pieces))
        taps = torch.arange(self.shape[2:].numel()).unflatten(0, self.shape[2:])
        _, counts = self.order(taps.expand(self.shape)).unique_consecutive(return_counts=True)
        self.run = int(counts[0])  # so many weights of the same tap lie together

    def equalize(self) -> None:
        """Make the weights that generate kernels fit for few bits."""
        channels = self.order(torch.arange(self.shape[0]).view(-1, 1, 1, 1).expand(self.shape))
        self.generate = nn.ModuleList(
            Equalized(layer, channels) for layer in self.generate if isinstance(layer, nn.Linear)
        )

    def convolve(self, index: int, x: Tensor, attention: Attention) -> Tensor:
        kernels = self.generate[index](attention.kernels)
        if attention.taps is not None:
            runs = kernels.unflatten(1, (-1, attention.taps.shape[1], self.run))
            kernels = (runs * attention.taps[:, None, :, None]).flatten(1)
        return self.apply_kernels(x, kernels, self.bias[index])

    def order(self, kernels: Tensor) -> Tensor:
        """(..., C_out, C_in / g, k, k) of a piece -> (..., n)"""
        raise NotImplementedError

    def apply_kernels(self, x: Tensor, kernels: Tensor, bias: Tensor) -> Tensor:
        """A piece of the feature map, kernels (B, n) in `order`, bias (C_out) -> a piece of the output"""
        raise NotImplementedError


def constant(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach().contiguous().clone(), requires_grad=False)


__all__ = ["GeneratedConv", "Geometry", "Pieces", "constant"]
