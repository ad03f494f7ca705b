"""Eager model -> static graph, by exact folds. Each is linear algebra on constants, done in float64:

BN:            g (W x - m) / s + b         = (g/s) W x + (b - g m / s),  s = sqrt(var + eps)
BN, dynamic:   the same row scale on every kernel of the bank and on the agnostic kernel; the shift becomes the bias
BN, attention: the same on net1
temperature:   sigmoid(net2 r / T)         = sigmoid((net2 / T) r)
0.1:           W + 0.1 sum pi_k W_k        = W + sum pi_k (0.1 W_k)
shortcut:      dw(x) + x                   = (dw + 1 on the centre tap)(x)
affine norm:   A (g n + b)                 = (A g) n + A b,  n the normalised input of a linear layer or 1x1 conv
1 / sqrt(d):   (q k^T) / sqrt(d)           = (q / sqrt(d)) k^T
end:           of the last Former, only the first token is read, so only it is computed
first block:   its tokens are parameters, so its normalised tokens and its queries are constants
dropout, stochastic depth: the identity

Not folded: the released code's GRN, whose ratio N / (N + 1e-6) is nearly but not exactly 1. It costs one reduction.

All this is for our own network. Of another one, only the dynamic convolutions are rewritten: see `export.adapters`.
"""

import copy
from typing import overload

import torch
from torch import Tensor, nn

from dmf import DMF
from dmf import model as eager
from dmf.dynamic_conv import BANK_SCALE, DynamicConv2d, KernelAttention
from export import static
from export.adapters import adapt


@overload
def reparameterize(model: DMF) -> static.StaticDMF: ...


@overload
def reparameterize(model: nn.Module) -> nn.Module: ...


@torch.no_grad()
def reparameterize(model: nn.Module) -> nn.Module:
    """A new module that computes what `model` does in eval mode; `model` is left as it was, the dtype is kept.

    Images (B, 3, S, S) -> logits (B, classes) for a DMF; of any other module, a copy that is called as `model` is and
    whose registered dynamic convolutions can be lowered. Raises `ValueError` if it has none, or one that can't be read.
    """
    return reparameterize_dmf(model) if isinstance(model, DMF) else adapt(model)


def reparameterize_dmf(model: DMF) -> static.StaticDMF:
    source = copy.deepcopy(model).double()
    head, tokens = source.head, source.config.num_tokens
    stem, blocks = fold_blocks(source, kept=tokens)
    graph = static.StaticDMF(
        stem=stem,
        blocks=blocks,
        feature_blocks=source.config.feature_blocks,
        end_cross=fold_cross(source.end_mobile2former, source.tokens[0]),
        end_former=fold_former(source.end_former, tokens, kept=1),
        end_conv=fold_dynamic(source.end_conv, source.end_bn),
        fc1=static.linear(head.fc1.weight, head.fc1.bias),
        fc2=static.linear(head.fc2.weight, head.fc2.bias),
    )
    return graph.to(next(model.parameters()).dtype).eval()


def reparameterize_backbone(model: DMF) -> static.StaticBackbone:
    """Of a DMF without end modules and head, which reads but the first of the tokens in the end."""
    source = copy.deepcopy(model).double()
    graph = static.StaticBackbone(*fold_blocks(source, kept=1), source.config.feature_blocks)
    return graph.to(next(model.parameters()).dtype).eval()


def fold_blocks(source: DMF, kept: int) -> tuple[nn.ModuleList, nn.ModuleList]:
    """Stem and blocks; of the last block's tokens as many are computed as are `kept`."""
    lite = source.lite_bottleneck
    stem = [
        fold_bn(source.stem.conv, source.stem.bn),
        fold_bn(lite.pw_conv1, lite.bn1),
        fold_bn(lite.dw_conv, lite.bn2),
        fold_bn(lite.pw_conv2, lite.bn3),
    ]
    blocks = []
    for i, block in enumerate(source.blocks):
        assert isinstance(block, eager.DMFBlock)
        cross = (
            fold_cross(block.mobile2former, source.tokens[0])
            if i
            else fold_first_cross(block.mobile2former, source.tokens[0])
        )
        is_last = i == len(source.blocks) - 1
        blocks.append(fold_block(block, cross, source.config.num_tokens, kept if is_last else source.config.num_tokens))
    return nn.ModuleList(stem), nn.ModuleList(blocks)


def bn_scale_and_shift(bn: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """The affine map that `bn` is in eval mode: y = scale * x + shift, each (C)."""
    assert bn.running_mean is not None and bn.running_var is not None
    scale = bn.weight / torch.sqrt(bn.running_var + bn.eps)
    return scale, bn.bias - scale * bn.running_mean


def fold_bn(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> static.Conv:
    scale, shift = bn_scale_and_shift(bn)
    bias = shift if conv.bias is None else shift + scale * conv.bias
    geometry = static.Geometry(conv.stride[0], int(conv.padding[0]), conv.dilation[0], conv.groups)
    return static.Conv(conv.weight * scale[:, None, None, None], bias, geometry)


def fold_affine(linear: nn.Linear, norm: nn.LayerNorm) -> nn.Linear:
    """A linear layer behind a LayerNorm takes over its affine part."""
    bias = linear.weight @ norm.bias
    return static.linear(linear.weight * norm.weight, bias if linear.bias is None else bias + linear.bias)


def fold_dynamic(conv: DynamicConv2d, bn: nn.BatchNorm2d) -> static.DynamicConv:
    scale, shift = bn_scale_and_shift(bn)
    rows = scale[:, None, None, None]
    agnostic = conv.agnostic_kernel
    return static.DynamicConv(
        fold_routing(conv.kernel_attention),
        bank=conv.kernel_bank * rows * (1 if agnostic is None else BANK_SCALE),
        agnostic=torch.zeros_like(conv.kernel_bank[0]) if agnostic is None else agnostic * rows,
        bias=shift,
        geometry=static.Geometry(conv.stride, conv.padding, conv.dilation, conv.groups),
    )


def fold_routing(attention: KernelAttention) -> static.Routing:
    scale, shift = bn_scale_and_shift(attention.bn)
    return static.Routing(
        static.linear(attention.net1.weight * scale[:, None], shift),
        static.linear(attention.net2.weight / attention.temperature),
        attention.token_input,
        attention.routing == "softmax",
    )


def fold_cross(cross: eager.Mobile2Former, tokens: Tensor) -> static.CrossAttention:
    return static.CrossAttention(
        cross.norm.weight,
        cross.norm.bias,
        static.linear(scaled_queries(cross)),
        static.linear(cross.fc.weight),
        static.Heads(cross.heads, cross.q.out_features, tokens.dtype),
        len(tokens),
    )


def fold_first_cross(cross: eager.Mobile2Former, tokens: Tensor) -> static.FirstCrossAttention:
    heads = static.Heads(cross.heads, cross.q.out_features, tokens.dtype)
    tokens = cross.norm(tokens)
    queries = (tokens @ scaled_queries(cross).T)[None]
    return static.FirstCrossAttention(tokens, queries, static.linear(cross.fc.weight), heads)


def scaled_queries(cross: eager.Mobile2Former) -> Tensor:
    """The query weights (C, D) times 1 / sqrt(C / h)."""
    return cross.q.weight * (cross.q.out_features // cross.heads) ** -0.5


def fold_former(former: eager.Former, num_tokens: int, kept: int) -> static.Former:
    attention = former.token_attention
    dim = attention.proj.in_features
    qkv = fold_affine(attention.qkv, former.norm1)
    scale = torch.ones(3 * dim, dtype=qkv.weight.dtype)
    scale[:dim] = (dim // attention.heads) ** -0.5
    return static.Former(
        static.linear(qkv.weight * scale[:, None], qkv.bias * scale),
        static.linear(attention.proj.weight, attention.proj.bias),
        fold_affine(former.mlp.fc1, former.norm2),
        static.linear(former.mlp.fc2.weight),
        attention.heads,
        num_tokens,
        kept,
    )


def fold_ffn(ffn: eager.IRFFN, norm: nn.GroupNorm) -> static.IRFFN:
    expand = fold_bn(ffn.pw_conv1, ffn.bn1)
    bias = expand.bias + expand.weight.flatten(1) @ norm.bias
    shortcut = torch.zeros_like(ffn.dw_conv.weight)
    shortcut[:, :, 1, 1] = 1
    hidden = len(shortcut)
    return static.IRFFN(
        static.Conv(expand.weight * norm.weight[:, None, None], bias, static.Geometry(1, 0, 1, 1)),
        static.Conv(ffn.dw_conv.weight + shortcut, torch.zeros_like(bias), static.Geometry(1, 1, 1, hidden)),
        ffn.grn.gamma.flatten(),
        ffn.grn.beta.flatten(),
        ffn.grn.over == "spatial",
        fold_bn(ffn.pw_conv2, ffn.bn2),
    )


def fold_block(
    block: eager.DMFBlock, cross: static.CrossAttention | static.FirstCrossAttention, num_tokens: int, kept: int
) -> static.Block:
    mobile = block.dynamic_mobile
    downsample = None
    if mobile.downsample is not None:
        conv, bn, _ = mobile.downsample
        assert isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d)
        downsample = fold_bn(conv, bn)
    return static.Block(
        cross,
        fold_former(block.former, num_tokens, kept),
        downsample,
        fold_dynamic(mobile.pw_conv1, mobile.bn1),
        fold_dynamic(mobile.dw_conv, mobile.bn2),
        fold_dynamic(mobile.pw_conv2, mobile.bn3),
        fold_ffn(block.ffn, block.norm),
    )
