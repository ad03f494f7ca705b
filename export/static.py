"""The static graph: a Dynamic Mobile-Former with every fold done, made of what converters know.

No BN, no temperature, no affine norms (but where a residual needs one), no reshape of the batch into groups. Built by
`export.reparameterize`; its dynamic convolutions are put in a target's form by `export.lowering`.
Feature maps lie as `layout` says; tokens are (B * M, D), because two-dimensional linear layers are what every runtime
does best; B is fixed at export unless the lowering allows any.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.layout import NCHW, Layout

LAYOUT = NCHW()
EPS = 1e-5  # of every norm, PyTorch's default


class LaidOut(nn.Module):
    """A module that works on feature maps; `export.lowering.lower` sets the layout of them all."""

    layout: Layout = LAYOUT

    def lay_out(self, layout: Layout) -> None:
        """Take feature maps in this layout from now on."""
        self.layout = layout

    def hold(self, **tensors: Tensor) -> None:
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor.detach().contiguous().clone())


def linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """A linear layer of these constants: weight (out, in), bias (out)."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, dtype=weight.dtype)
    layer.weight = nn.Parameter(weight.detach().contiguous().clone(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return layer


class Geometry(NamedTuple):
    """How a convolution moves over a feature map."""

    stride: int
    padding: int
    dilation: int
    groups: int


class Conv(LaidOut):
    """A convolution of constants, with bias; 1x1 ungrouped ones become the layout's pointwise form."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, geometry: Geometry) -> None:
        super().__init__()
        self.hold(weight=weight, bias=bias)
        self.geometry, self.out_channels = geometry, len(weight)

    @property
    def is_pointwise(self) -> bool:
        return self.weight.shape[2:] == (1, 1) and self.geometry == (1, 0, 1, 1)

    def lay_out(self, layout: Layout) -> None:
        """A pointwise one computes whole tiles of channels, and drops the surplus."""
        super().lay_out(layout)
        if self.is_pointwise:
            surplus = -self.out_channels % layout.tile
            self.hold(weight=grown(self.weight, 0, surplus), bias=grown(self.bias, 0, surplus))

    def forward(self, x: Tensor) -> Tensor:
        if not self.is_pointwise:
            return self.layout.conv(x, self.weight, self.bias, *self.geometry)
        y = self.layout.pointwise(x, self.weight.flatten(1), self.bias)
        return self.layout.channels(y, 0, self.out_channels) if self.out_channels < len(self.bias) else y


def grown(tensor: Tensor, dim: int, surplus: int, pieces: int = 1) -> Tensor:
    """With so many zeros more at the end of each of equally large pieces of a dimension."""
    parts = tensor.unflatten(dim, (pieces, -1))
    shape = [surplus if i == dim + 1 else n for i, n in enumerate(parts.shape)]
    return torch.cat([parts, tensor.new_zeros(shape)], dim + 1).flatten(dim, dim + 1)


class Attention(NamedTuple):
    """What a dynamic convolution computes from its input, per sample: routing weights, and other factors it may have.

    y = outputs * (((agnostic + sum_k kernels_k bank_k) * taps) conv (inputs * x) + bias): ODConv (Li et al. 2022,
    equation 2) has all four. A form sees to kernels and taps; inputs and outputs are factors of whole feature maps.
    """

    kernels: Tensor  # (B, K)
    taps: Tensor | None = None  # (B, k * k), row by row
    inputs: Tensor | None = None  # (B, C_in)
    outputs: Tensor | None = None  # (B, C_out)

    @classmethod
    def of(cls, weights: "Tensor | Attention") -> "Attention":
        """Routing weights (B, K) alone are an attention, too."""
        return weights if isinstance(weights, Attention) else cls(weights)


class Routing(LaidOut):
    """Kernel attention with BN and temperature folded: z (B, D), pieces of a feature map -> routing weights (B, K)."""

    def __init__(self, net1: nn.Linear, net2: nn.Linear, token_input: bool, softmax: bool) -> None:
        super().__init__()
        self.net1, self.net2 = net1, net2
        self.token_input, self.softmax = token_input, softmax

    def forward(self, z: Tensor, maps: list[Tensor]) -> Tensor:
        pooled = torch.cat([self.layout.pool(piece) for piece in maps], 1)
        descriptor = torch.cat([z, pooled], 1) if self.token_input else pooled
        logits = self.net2(F.relu(self.net1(descriptor)))
        return logits.softmax(1) if self.softmax else logits.sigmoid()


class DynamicConv(LaidOut):
    """A folded dynamic convolution: BN's scale and the factor 0.1 in the kernels, BN's shift in the bias.

    kernel = agnostic + sum_k pi_k bank_k per sample. `bank` (K, C_out, C_in / g, k, k), `agnostic` without the K.
    `export.lowering` replaces it; run as it is, it is the definition, one convolution per sample.
    """

    bank: Tensor
    agnostic: Tensor
    bias: Tensor

    def __init__(self, routing: nn.Module, bank: Tensor, agnostic: Tensor, bias: Tensor, geometry: Geometry) -> None:
        super().__init__()
        self.routing, self.geometry = routing, geometry
        self.hold(bank=bank, agnostic=agnostic, bias=bias)
        self.pieces = geometry.groups if self.kind == "pointwise" else 1  # into which a lowering may cut it
        self.in_channels = agnostic.shape[1] * geometry.groups

    @property
    def kind(self) -> Literal["pointwise", "depthwise"] | None:
        stride, padding, _, groups = self.geometry
        if self.agnostic.shape[:2] == (groups, 1) and groups > 1:
            return "depthwise"
        if self.agnostic.shape[2:] == (1, 1) and (stride, padding) == (1, 0):
            return "pointwise"
        return None

    def grow_outputs(self, pieces: int, surplus: int) -> None:
        """Each piece of the output gets so many more channels, which are 0."""
        self.hold(
            bank=grown(self.bank, 1, surplus, pieces),
            agnostic=grown(self.agnostic, 0, surplus, pieces),
            bias=grown(self.bias, 0, surplus, pieces),
        )

    def grow_inputs(self, pieces: int, surplus: int) -> None:
        """Each piece of the input gets so many more channels, ignored, or mapped to 0 if this is depthwise."""
        if self.kind == "depthwise":
            self.grow_outputs(pieces, surplus)
            self.geometry = self.geometry._replace(groups=len(self.agnostic))
        else:
            self.hold(bank=grown(self.bank, 2, surplus), agnostic=grown(self.agnostic, 1, surplus))
        assert isinstance(self.routing, Routing)
        net1 = self.routing.net1
        z, pooled = net1.weight.split([net1.in_features - self.in_channels, self.in_channels], 1)
        self.in_channels += pieces * surplus
        self.routing.net1 = linear(torch.cat([z, grown(pooled, 1, surplus, pieces)], 1), net1.bias)

    def forward(self, maps: list[Tensor], z: Tensor | Attention) -> list[Tensor]:
        """Pieces of a feature map, what else the routing takes: first tokens (B, D) -> a feature map, in one piece"""
        x = self.layout.join(maps)
        attention = Attention.of(self.routing(z, maps))
        kernels = self.agnostic + torch.einsum("bk,k...->b...", attention.kernels, self.bank)
        if attention.taps is not None:
            kernels = kernels * attention.taps.unflatten(1, (1, 1, *self.agnostic.shape[2:]))
        samples = zip(x.split(1), kernels, strict=True)
        return [torch.cat([self.layout.conv(sample, kernel, self.bias, *self.geometry) for sample, kernel in samples])]


class Heads(nn.Module):
    """Attention heads without splitting channels: a query's row is repeated per head, with the other heads' channels 0.

    Rows of different heads then share one matrix product over all channels, and the feature map needs no transpose.
    """

    mask: Tensor  # (h, C): 1 where the channel belongs to the head

    def __init__(self, heads: int, channels: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("mask", torch.eye(heads, dtype=dtype).repeat_interleave(channels // heads, 1))

    def collect(self, values: Tensor) -> Tensor:
        """(B, h * M, C) -> (B, M, C)"""
        return (values.unflatten(1, (self.mask.shape[0], -1)) * self.mask[:, None]).sum(1)


class CrossAttention(LaidOut):
    """mobile2former; `q` carries 1 / sqrt(C / h). The norm stays affine, because its output is also the residual."""

    weight: Tensor
    bias: Tensor

    def __init__(
        self, weight: Tensor, bias: Tensor, q: nn.Linear, fc: nn.Linear, heads: Heads, num_tokens: int
    ) -> None:
        super().__init__()
        self.hold(weight=weight, bias=bias)
        self.q, self.fc, self.heads, self.num_tokens = q, fc, heads, num_tokens

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """A feature map, (B * M, D) -> (B * M, D)"""
        tokens = self.layout.layer_norm(tokens, EPS) * self.weight + self.bias
        queries = self.q(tokens).unflatten(0, (-1, self.num_tokens))
        return self.fc(attend(self.layout, self.heads, queries, x)) + tokens


class FirstCrossAttention(LaidOut):
    """mobile2former of the first block: normalised tokens (M, D) and queries (1, M, C) are constants."""

    tokens: Tensor
    queries: Tensor

    def __init__(self, tokens: Tensor, queries: Tensor, fc: nn.Linear, heads: Heads) -> None:
        super().__init__()
        self.hold(tokens=tokens, queries=queries)
        self.fc, self.heads = fc, heads

    def forward(self, x: Tensor, _: Tensor | None = None) -> Tensor:
        """A feature map -> (B * M, D)"""
        z = self.fc(attend(self.layout, self.heads, self.queries, x))
        return (z.unflatten(0, (-1, self.tokens.shape[0])) + self.tokens).flatten(0, 1)


def attend(layout: Layout, heads: Heads, queries: Tensor, x: Tensor) -> Tensor:
    """Queries (B, M, C) over the positions of a feature map -> (B * M, C)"""
    attention = layout.scores(layout.spread(queries, heads.mask), x).softmax(2)
    return heads.collect(layout.gather(attention, x)).flatten(0, 1)


class Former(LaidOut):
    """A Transformer block over the tokens; both norms' affine parts are in the layers behind them.

    `kept` is how many of the tokens are computed, from the first on: all, or one where nothing else is read.
    """

    def __init__(
        self, qkv: nn.Linear, proj: nn.Linear, fc1: nn.Linear, fc2: nn.Linear, heads: int, num_tokens: int, kept: int
    ) -> None:
        super().__init__()
        self.qkv, self.proj, self.fc1, self.fc2 = qkv, proj, fc1, fc2
        self.heads, self.num_tokens, self.kept = heads, num_tokens, kept

    def forward(self, tokens: Tensor) -> Tensor:
        """(B * M, D) -> (B * kept, D)"""
        qkv = self.qkv(self.layout.layer_norm(tokens, EPS)).unflatten(1, (3 * self.heads, -1))
        qkv = qkv.unflatten(0, (-1, self.num_tokens)).transpose(1, 2)  # (B, 3 * h, M, D / h)
        # heads of all samples as one batch: of rank 3, the transpose of the keys is part of the product
        queries, keys, values = (part.flatten(0, 1) for part in qkv.chunk(3, 1))
        if self.kept < self.num_tokens:
            queries = queries[:, : self.kept]
        attention = (queries @ keys.transpose(1, 2)).softmax(2)  # (B * h, kept, M)
        heads = (attention @ values).unflatten(0, (-1, self.heads))
        tokens = first_tokens(tokens, self.num_tokens, self.kept)
        tokens = tokens + self.proj(heads.transpose(1, 2).flatten(2).flatten(0, 1))
        return tokens + self.fc2(F.gelu(self.fc1(self.layout.layer_norm(tokens, EPS))))

    def first(self, tokens: Tensor) -> Tensor:
        """(B * kept, D) -> (B, D)"""
        return first_tokens(tokens, self.kept, 1)


class IRFFN(LaidOut):
    """The inverted residual FFN: GroupNorm's affine part is in the first convolution, the inner shortcut in the second.

    GRN is a scale per sample and channel, 1 + gamma * N / (mean N + 1e-6), and a shift.
    """

    gamma: Tensor
    beta: Tensor

    def __init__(self, expand: Conv, depthwise: Conv, gamma: Tensor, beta: Tensor, spatial: bool, reduce: Conv) -> None:
        super().__init__()
        self.expand, self.depthwise, self.reduce, self.spatial = expand, depthwise, reduce, spatial
        self.hold(gamma=gamma, beta=beta)
        self.hidden = len(gamma)

    def lay_out(self, layout: Layout) -> None:
        """Between its pointwise convolutions it carries whole tiles of channels; the surplus ones are 0 throughout."""
        super().lay_out(layout)
        surplus = -self.hidden % layout.tile
        expand, depthwise, reduce = self.expand, self.depthwise, self.reduce
        geometry = depthwise.geometry._replace(groups=self.hidden + surplus)
        self.expand = Conv(grown(expand.weight, 0, surplus), grown(expand.bias, 0, surplus), expand.geometry)
        self.depthwise = Conv(grown(depthwise.weight, 0, surplus), grown(depthwise.bias, 0, surplus), geometry)
        self.reduce = Conv(grown(reduce.weight, 1, surplus), reduce.bias, reduce.geometry)
        self.hold(gamma=grown(self.gamma, 0, surplus), beta=grown(self.beta, 0, surplus))

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(F.gelu(self.expand(self.layout.normalize(x, EPS))))
        norm = self.layout.spatial_norm(y)
        mean = norm if self.spatial else norm.sum(1, keepdim=True) / self.hidden
        scale = self.gamma * (norm / (mean + 1e-6)) + 1
        y = y * self.layout.per_channel(scale) + self.layout.per_channel(self.beta)
        return x + self.reduce(F.gelu(y))


class Block(LaidOut):
    """One DMF block: (feature map, tokens) -> (feature map, tokens)."""

    def __init__(
        self,
        cross: CrossAttention | FirstCrossAttention,
        former: Former,
        downsample: Conv | None,
        pw_conv1: DynamicConv,
        dw_conv: DynamicConv,
        pw_conv2: DynamicConv,
        ffn: IRFFN,
    ) -> None:
        super().__init__()
        self.cross, self.former, self.downsample, self.ffn = cross, former, downsample, ffn
        self.pw_conv1, self.dw_conv, self.pw_conv2 = pw_conv1, dw_conv, pw_conv2
        dw_conv.pieces = pw_conv1.pieces

    def lay_out(self, layout: Layout) -> None:
        """Between its pointwise convolutions a piece has whole vectors of channels; the surplus is 0 throughout."""
        super().lay_out(layout)
        if layout.splits_groups:
            pieces = self.pw_conv1.pieces
            surplus = -(len(self.dw_conv.bias) // pieces) % layout.lanes
            self.pw_conv1.grow_outputs(pieces, surplus)
            self.dw_conv.grow_inputs(pieces, surplus)
            self.pw_conv2.grow_inputs(pieces, surplus)

    def forward(self, x: Tensor, tokens: Tensor | None) -> tuple[Tensor, Tensor]:
        tokens = self.former(self.cross(x, tokens))
        z = self.former.first(tokens)
        if self.downsample is not None:
            x = F.gelu(self.downsample(x))
        return self.ffn(self.mobile(x, z)), tokens

    def mobile(self, x: Tensor, z: Tensor) -> Tensor:
        """The dynamic convolutions: a feature map, first tokens (B, D) -> a feature map"""
        maps = [F.gelu(piece) for piece in self.pw_conv1([x], z)]
        maps = [F.gelu(piece) for piece in self.dw_conv(maps, z)]
        return self.layout.join(self.pw_conv2(maps, z))


class StaticBackbone(LaidOut):
    """Images -> the last feature map of each stage. Images lie as `input_layout` says, feature maps as `layout` does.

    `feature_blocks` are the indices of the blocks that end a stage.
    """

    input_layout: Layout = LAYOUT

    def __init__(self, stem: nn.ModuleList, blocks: nn.ModuleList, feature_blocks: Sequence[int]) -> None:
        super().__init__()
        self.stem, self.blocks, self.feature_blocks = stem, blocks, tuple(feature_blocks)

    def forward(self, images: Tensor) -> Any:
        return tuple(self.features(images)[0])

    def features(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Images -> the feature map of each stage, the tokens of the last block"""
        x = images
        if self.input_layout.name != self.layout.name:
            x = self.layout.permute_from_nchw(self.input_layout.permute_to_nchw(x))
        for conv in self.stem[:-1]:
            x = F.gelu(conv(x))
        x = self.stem[-1](x)
        tokens, found = None, []
        for i, block in enumerate(self.blocks):
            x, tokens = block(x, tokens)
            if i in self.feature_blocks:
                found.append(x)
        assert tokens is not None
        return found, tokens


class StaticDMF(StaticBackbone):
    """Images -> logits (B, classes)"""

    def __init__(
        self,
        stem: nn.ModuleList,
        blocks: nn.ModuleList,
        feature_blocks: Sequence[int],
        end_cross: CrossAttention,
        end_former: Former,
        end_conv: DynamicConv,
        fc1: nn.Linear,
        fc2: nn.Linear,
    ) -> None:
        super().__init__(stem, blocks, feature_blocks)
        self.end_cross, self.end_former, self.end_conv = end_cross, end_former, end_conv
        self.fc1, self.fc2 = fc1, fc2

    def forward(self, images: Tensor) -> Tensor:
        (*_, x), tokens = self.features(images)
        z = self.end_former(self.end_cross(x, tokens))
        pooled = self.layout.pool(F.gelu(self.layout.join(self.end_conv([x], z))))
        return self.fc2(F.hardswish(self.fc1(torch.cat([pooled, z], 1))))


def first_tokens(tokens: Tensor, num_tokens: int, kept: int) -> Tensor:
    """(B * M, D) -> (B * kept, D)"""
    return tokens if kept == num_tokens else tokens.unflatten(0, (-1, num_tokens))[:, :kept].flatten(0, 1)
