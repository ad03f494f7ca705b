"""The Neural Engine's form: tensors are (B, C, 1, S) or feature maps (B, C, H, W), and none is transposed.

Apple's rules for its engine (machinelearning.apple.com, "Deploying Transformers on the Apple Neural Engine", 2022),
applied to a lowered graph: linear layers are 1x1 convolutions, every attention head is a product of its own, channels
are the second dimension throughout. A tensor may have no more than 16384 along a dimension, so what generates a larger
kernel is cut into rows of it.

Tokens, elsewhere (B * M, D), are (B, D, 1, M); what is elsewhere (B, C) is (B, C, 1, 1). Modules keep their names.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export import static
from export.layout import NCHW, normalized
from export.lowering.generated import GeneratedConv
from export.lowering.matmul import Matmul

LARGEST_DIMENSION = 16384  # ONNX Runtime's Core ML provider refuses more; Apple documents nothing


class BC1S(NCHW):
    """NCHW, whose pooled maps and factors per channel keep their four dimensions."""

    def per_channel(self, values: Tensor) -> Tensor:
        return values if values.dim() > 2 else values[..., None, None]

    def pool(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)

    def spatial_norm(self, x: Tensor) -> Tensor:
        return torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True)

    def normalize(self, x: Tensor, eps: float) -> Tensor:
        return normalized(x, (1, 2, 3), eps)  # a group norm becomes one of five dimensions

    def layer_norm(self, tokens: Tensor, eps: float) -> Tensor:
        """(B, D, 1, M), each token to mean 0 and variance 1."""
        return normalized(tokens, (1,), eps)


class Linear(nn.Linear):
    """A linear layer over channels: (B, C, 1, S) -> (B, C', 1, S)"""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, dtype=layer.weight.dtype)
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight[:, :, None, None], self.bias)


class Logits(Linear):
    """The last one, whose output leaves the graph: (B, C, 1, 1) -> (B, classes)"""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).flatten(1)


class Rows(nn.Module):
    """Routing weights (B, K, 1, 1) -> a kernel in rows (B, 1, n / length, length), made as many as fit at a time."""

    def __init__(self, layer: nn.Linear, length: int) -> None:
        super().__init__()
        self.length, most = length, LARGEST_DIMENSION // length * length
        parts = zip(layer.weight.split(most), layer.bias.split(most), strict=True)
        self.parts = nn.ModuleList(Linear(static.linear(weight, bias)) for weight, bias in parts)

    def forward(self, weights: Tensor) -> Tensor:
        rows = [part(weights) for part in self.parts]
        return torch.cat([part.reshape(-1, 1, part.shape[1] // self.length, self.length) for part in rows], 2)


class Flat(nn.Module):
    """What generates kernels and takes (B, K), here given (B, K, 1, 1)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, weights: Tensor) -> Tensor:
        return self.layer(weights.flatten(1))


def attend(queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """Queries (B, C, 1, M), keys and values (B, C, 1, S) -> (B, C, 1, M), head by head.

    Where one dimension is 1, (B, c, 1, S) and (B, 1, c, S) are the same memory; products take operands transposed.
    """
    matrices = (tensor.reshape(-1, 1, tensor.shape[1], tensor.shape[3]) for tensor in (queries, keys, values))
    parts = zip(*(matrix.chunk(heads, 2) for matrix in matrices), strict=True)
    outputs = [v @ (q.transpose(2, 3) @ k).softmax(3).transpose(2, 3) for q, k, v in parts]
    return torch.cat(outputs, 2).reshape(-1, *queries.shape[1:])


def positions(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, 1, HW)"""
    _, channels, height, width = x.shape
    return x.reshape(-1, channels, 1, height * width)


class CrossAttention(static.LaidOut):
    """`static.CrossAttention` of tokens (B, D, 1, M).

    The bias is subtracted: coremltools 9.0 makes a batch norm of a product and a sum, whose epsilon then scales it.
    """

    weight: Tensor
    negated: Tensor

    def __init__(self, cross: static.CrossAttention) -> None:
        super().__init__()
        self.hold(weight=cross.weight[:, None, None], negated=-cross.bias[:, None, None])
        self.q, self.fc, self.heads = Linear(cross.q), Linear(cross.fc), len(cross.heads.mask)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """(B, C, H, W), (B, D, 1, M) -> (B, D, 1, M)"""
        tokens = self.layout.layer_norm(tokens, static.EPS) * self.weight - self.negated
        values = positions(x)
        return self.fc(attend(self.q(tokens), values, values, self.heads)) + tokens


class FirstCrossAttention(static.LaidOut):
    """`static.FirstCrossAttention`, with constant tokens (D, 1, M) and queries (1, C, 1, M)."""

    tokens: Tensor
    queries: Tensor

    def __init__(self, cross: static.FirstCrossAttention) -> None:
        super().__init__()
        self.hold(tokens=cross.tokens.T[:, None], queries=cross.queries.transpose(1, 2)[:, :, None])
        self.fc, self.heads = Linear(cross.fc), len(cross.heads.mask)

    def forward(self, x: Tensor, _: Tensor | None = None) -> Tensor:
        """(B, C, H, W) -> (B, D, 1, M)"""
        values = positions(x)
        return self.fc(attend(self.queries, values, values, self.heads)) + self.tokens


class Former(static.LaidOut):
    """`static.Former` of tokens (B, D, 1, M)."""

    def __init__(self, former: static.Former) -> None:
        super().__init__()
        self.qkv, self.proj = Linear(former.qkv), Linear(former.proj)
        self.fc1, self.fc2 = Linear(former.fc1), Linear(former.fc2)
        self.heads, self.kept = former.heads, former.kept

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, D, 1, M) -> (B, D, 1, kept)"""
        queries, keys, values = self.qkv(self.layout.layer_norm(tokens, static.EPS)).chunk(3, 1)
        if self.kept < tokens.shape[3]:
            queries, tokens = queries[..., : self.kept], tokens[..., : self.kept]
        tokens = tokens + self.proj(attend(queries, keys, values, self.heads))
        return tokens + self.fc2(F.gelu(self.fc1(self.layout.layer_norm(tokens, static.EPS))))

    def first(self, tokens: Tensor) -> Tensor:
        """(B, D, 1, kept) -> (B, D, 1, 1)"""
        return tokens[..., :1]


def to_bc1s(graph: static.StaticBackbone) -> None:
    """Put the modules of a lowered graph in this form, in their places."""
    for name, module in list(graph.named_modules()):
        parent, _, child = name.rpartition(".")
        if type(module) in FORMS:
            form: nn.Module = FORMS[type(module)](module)
            setattr(graph.get_submodule(parent), child, form)
            if isinstance(form, static.LaidOut):
                form.lay_out(BC1S())
    for module in graph.modules():
        if isinstance(module, static.Routing):
            module.net1, module.net2 = Linear(module.net1), Linear(module.net2)
        elif isinstance(module, static.IRFFN):
            module.hold(gamma=module.gamma[:, None, None], beta=module.beta[:, None, None])
        elif isinstance(module, GeneratedConv):
            length = module.shape[1] if isinstance(module, Matmul) else 0
            module.generate = nn.ModuleList(generator(layer, length) for layer in module.generate)
    if isinstance(graph, static.StaticDMF):
        graph.fc1, graph.fc2 = Linear(graph.fc1), Logits(graph.fc2)


FORMS = {
    static.CrossAttention: CrossAttention,
    static.FirstCrossAttention: FirstCrossAttention,
    static.Former: Former,
}


def generator(layer: nn.Module, length: int) -> nn.Module:
    """The layer K -> n that generates kernels in this form; rows of a kernel that may be cut have a length."""
    if not isinstance(layer, nn.Linear):
        return Flat(layer)
    return Rows(layer, length) if length and layer.out_features > LARGEST_DIMENSION else Linear(layer)
