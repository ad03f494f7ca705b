"""The static graph: a Dynamic Mobile-Former with every fold done, made of what converters know.

No BN, no temperature, no affine norms (but where a residual needs one), no reshape of the batch into groups. Built by
`export.reparameterize`; its dynamic convolutions are put in a target's form by `export.lowering`.
Feature maps lie as `layout` says; tokens are (B * M, D), because two-dimensional linear layers are what every runtime
does best; B is fixed at export unless the lowering allows any.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.layout import NCHW, Layout

LAYOUT = NCHW()
EPS = 1e-5  # of every norm, PyTorch's default


class LaidOut(nn.Module):
    """A module that works on feature maps; `export.lowering.lower` sets the layout of them all."""

    layout: Layout = LAYOUT

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
        self.geometry = geometry

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.shape[2:] == (1, 1) and self.geometry == (1, 0, 1, 1):
            return self.layout.pointwise(x, self.weight.flatten(1), self.bias)
        return self.layout.conv(x, self.weight, self.bias, *self.geometry)


class Routing(nn.Module):
    """Kernel attention with BN and temperature folded: z (B, D), pooled (B, C) -> routing weights (B, K)."""

    def __init__(self, net1: nn.Linear, net2: nn.Linear, token_input: bool, softmax: bool) -> None:
        super().__init__()
        self.net1, self.net2 = net1, net2
        self.token_input, self.softmax = token_input, softmax

    def forward(self, z: Tensor, pooled: Tensor) -> Tensor:
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

    def __init__(self, routing: Routing, bank: Tensor, agnostic: Tensor, bias: Tensor, geometry: Geometry) -> None:
        super().__init__()
        self.routing, self.geometry = routing, geometry
        self.hold(bank=bank, agnostic=agnostic, bias=bias)

    @property
    def kind(self) -> Literal["pointwise", "depthwise"] | None:
        stride, padding, _, groups = self.geometry
        if self.agnostic.shape[:2] == (groups, 1) and groups > 1:
            return "depthwise"
        if self.agnostic.shape[2:] == (1, 1) and (stride, padding) == (1, 0):
            return "pointwise"
        return None

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """A feature map, first tokens (B, D) -> a feature map"""
        pi = self.routing(z, self.layout.pool(x))
        kernels = self.agnostic + torch.einsum("bk,k...->b...", pi, self.bank)
        samples = zip(x.split(1), kernels, strict=True)
        return torch.cat([self.layout.conv(sample, kernel, self.bias, *self.geometry) for sample, kernel in samples])


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
    """A Transformer block over the tokens; both norms' affine parts are in the layers behind them."""

    def __init__(
        self, qkv: nn.Linear, proj: nn.Linear, fc1: nn.Linear, fc2: nn.Linear, heads: Heads, num_tokens: int
    ) -> None:
        super().__init__()
        self.qkv, self.proj, self.fc1, self.fc2 = qkv, proj, fc1, fc2
        self.heads, self.num_tokens = heads, num_tokens

    def forward(self, tokens: Tensor) -> Tensor:
        """(B * M, D) -> (B * M, D)"""
        qkv = self.qkv(self.layout.layer_norm(tokens, EPS)).unflatten(0, (-1, self.num_tokens))
        q, k, v = qkv.chunk(3, 2)  # (B, M, D) each
        attention = self.layout.token_scores(self.layout.spread(q, self.heads.mask), k).softmax(2)
        tokens = tokens + self.proj(self.heads.collect(attention @ v).flatten(0, 1))
        return tokens + self.fc2(F.gelu(self.fc1(self.layout.layer_norm(tokens, EPS))))


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

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(F.gelu(self.expand(self.layout.normalize(x, EPS))))
        norm = self.layout.spatial_norm(y)
        mean = norm if self.spatial else norm.mean(1, keepdim=True)
        scale = self.gamma * (norm / (mean + 1e-6)) + 1
        y = y * self.layout.per_channel(scale) + self.layout.per_channel(self.beta)
        return x + self.reduce(F.gelu(y))


class Block(nn.Module):
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

    def forward(self, x: Tensor, tokens: Tensor | None) -> tuple[Tensor, Tensor]:
        tokens = self.former(self.cross(x, tokens))
        z = first_token(tokens, self.former.num_tokens)
        if self.downsample is not None:
            x = F.gelu(self.downsample(x))
        x = F.gelu(self.pw_conv1(x, z))
        x = F.gelu(self.dw_conv(x, z))
        return self.ffn(self.pw_conv2(x, z)), tokens


class StaticDMF(LaidOut):
    """Images -> logits (B, classes). Images lie as `input_layout` says, which may differ from the graph's layout."""

    input_layout: Layout = LAYOUT

    def __init__(
        self,
        stem: nn.ModuleList,
        blocks: nn.ModuleList,
        end_cross: CrossAttention,
        end_former: Former,
        end_conv: DynamicConv,
        fc1: nn.Linear,
        fc2: nn.Linear,
    ) -> None:
        super().__init__()
        self.stem, self.blocks = stem, blocks
        self.end_cross, self.end_former, self.end_conv = end_cross, end_former, end_conv
        self.fc1, self.fc2 = fc1, fc2

    def forward(self, images: Tensor) -> Tensor:
        x = images
        if self.input_layout.name != self.layout.name:
            x = self.layout.permute_from_nchw(self.input_layout.permute_to_nchw(x))
        for conv in self.stem[:-1]:
            x = F.gelu(conv(x))
        x = self.stem[-1](x)
        tokens = None
        for block in self.blocks:
            x, tokens = block(x, tokens)
        tokens = self.end_former(self.end_cross(x, tokens))
        z = first_token(tokens, self.end_former.num_tokens)
        pooled = self.layout.pool(F.gelu(self.end_conv(x, z)))
        return self.fc2(F.hardswish(self.fc1(torch.cat([pooled, z], 1))))


def first_token(tokens: Tensor, num_tokens: int) -> Tensor:
    """(B * M, D) -> (B, D)"""
    return tokens.unflatten(0, (-1, num_tokens))[:, 0]
