"""The released code's forward pass, written from its description: float64, functional, one sample at a time.

Imports nothing of dmf. The switches of `Variation` turn it into networks that are *not* the released one.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from released_layout import Widths
from torch import Tensor


@dataclass(frozen=True)
class Variation:
    """What the released code does, by default; a changed field is a mistake that a test must notice."""

    bank_scale: float = 0.1
    token_first: bool = True
    normalised_residual: bool = True
    grn_over_channels: bool = False
    inner_shortcut: bool = True
    temperature: float = 1.0


RELEASED = Variation()


def forward(state: dict[str, Tensor], w: Widths, images: Tensor, variation: Variation = RELEASED) -> Tensor:
    """(B, 3, H, W) -> logits (B, classes)"""
    weights = {key: value.double() for key, value in state.items()}
    return torch.stack([Sample(weights, w, variation).logits(image.double()) for image in images])


def features(state: dict[str, Tensor], w: Widths, images: Tensor) -> list[Tensor]:
    """(B, 3, H, W) -> outputs of blocks, all of them"""
    weights = {key: value.double() for key, value in state.items()}
    each = [Sample(weights, w, RELEASED).blocks(image.double())[0] for image in images]
    return [torch.stack(maps) for maps in zip(*each, strict=True)]


class Sample:
    """One image's way through the network: maps are (C, H, W), tokens (M, D)."""

    def __init__(self, weights: dict[str, Tensor], w: Widths, variation: Variation) -> None:
        self.p, self.w, self.v = weights, w, variation

    def batch_norm(self, name: str, x: Tensor) -> Tensor:
        """Over the first axis, written out."""
        column = (-1, *[1] * (x.ndim - 1))
        mean, var = self.p[f"{name}.running_mean"].view(column), self.p[f"{name}.running_var"].view(column)
        scaled = (x - mean) / (var + 1e-5).sqrt() * self.p[f"{name}.weight"].view(column)
        return scaled + self.p[f"{name}.bias"].view(column)

    def layer_norm(self, name: str, t: Tensor) -> Tensor:
        centred = t - t.mean(1, keepdim=True)
        scaled = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
        return scaled * self.p[f"{name}.weight"] + self.p[f"{name}.bias"]

    def conv(self, name: str, x: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
        kernel = self.p[f"{name}.weight"]
        return F.conv2d(x[None], kernel, self.p.get(f"{name}.bias"), stride, kernel.shape[-1] // 2, 1, groups)[0]

    def dynamic_conv(self, name: str, x: Tensor, z: Tensor, groups: int) -> Tensor:
        attention = f"{name}.Kernel_Attention"
        pooled = x.mean((1, 2))
        descriptor = torch.cat([z, pooled] if self.v.token_first else [pooled, z])
        hidden = F.relu(self.batch_norm(f"{attention}.bn", self.p[f"{attention}.net1.weight"][:, :, 0, 0] @ descriptor))
        pi = 1 / (1 + torch.exp(-(self.p[f"{attention}.net2.weight"][:, :, 0, 0] @ hidden) / self.v.temperature))
        kernel = self.p[f"{name}.static_weight"].clone()
        for pi_k, kernel_k in zip(pi, self.p[f"{name}.weight"], strict=True):
            kernel += self.v.bank_scale * pi_k * kernel_k
        return F.conv2d(x[None], kernel, None, 1, kernel.shape[-1] // 2, 1, groups)[0]

    def mobile2former(self, name: str, x: Tensor, tokens: Tensor, heads: int) -> Tensor:
        t = self.layer_norm(f"{name}.norm", tokens)
        q = t @ self.p[f"{name}.q.weight"].T  # (M, C)
        size = x.shape[0] // heads
        found = []
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            kv = x[part].reshape(size, -1)  # (C/h, HW)
            found.append(torch.softmax(q[:, part] @ kv / size**0.5, 1) @ kv.T)
        residual = t if self.v.normalised_residual else tokens
        return torch.cat(found, 1) @ self.p[f"{name}.fc.weight"].T + residual

    def former(self, name: str, tokens: Tensor) -> Tensor:
        t = self.layer_norm(f"{name}.norm1", tokens)
        q, k, v = (t @ self.p[f"{name}.token_attention.qkv.weight"].T).split(self.w.dim, 1)
        size = self.w.dim // self.w.heads
        found = []
        for head in range(self.w.heads):
            part = slice(head * size, (head + 1) * size)
            found.append(torch.softmax(q[:, part] @ k[:, part].T / size**0.5, 1) @ v[:, part])
        projected = torch.cat(found, 1) @ self.p[f"{name}.token_attention.proj.weight"].T
        tokens = tokens + projected + self.p[f"{name}.token_attention.proj.bias"]
        t = F.gelu(self.layer_norm(f"{name}.norm2", tokens) @ self.p[f"{name}.mlp.fc1.weight"].T)
        return tokens + t @ self.p[f"{name}.mlp.fc2.weight"].T

    def dynamic_mobile(self, name: str, x: Tensor, z: Tensor, strided: bool) -> Tensor:
        if strided:
            x = F.gelu(self.batch_norm(f"{name}.downsample.1", self.conv(f"{name}.downsample.0", x, 2, x.shape[0])))
        x = F.gelu(self.batch_norm(f"{name}.bn1", self.dynamic_conv(f"{name}.pw_conv1", x, z, self.w.groups)))
        x = F.gelu(self.batch_norm(f"{name}.bn2", self.dynamic_conv(f"{name}.dw_conv", x, z, x.shape[0])))
        return self.batch_norm(f"{name}.bn3", self.dynamic_conv(f"{name}.pw_conv2", x, z, self.w.groups))

    def irffn(self, name: str, x: Tensor) -> Tensor:
        x = F.gelu(self.batch_norm(f"{name}.bn1", self.conv(f"{name}.pw_conv1", x)))
        x = self.conv(f"{name}.dw_conv", x, 1, x.shape[0]) + (x if self.v.inner_shortcut else 0)
        norm = x.square().sum((1, 2), keepdim=True).sqrt()  # (C, 1, 1)
        mean = norm.mean(0, keepdim=True) if self.v.grn_over_channels else norm
        gamma, beta = self.p[f"{name}.grn.gamma"][0], self.p[f"{name}.grn.beta"][0]
        x = gamma * x * norm / (mean + 1e-6) + beta + x
        return self.batch_norm(f"{name}.bn3", self.conv(f"{name}.pw_conv2", F.gelu(x)))

    def group_norm(self, name: str, x: Tensor) -> Tensor:
        centred = x - x.mean()
        scaled = centred / (centred.square().mean() + 1e-5).sqrt()
        return scaled * self.p[f"{name}.weight"].view(-1, 1, 1) + self.p[f"{name}.bias"].view(-1, 1, 1)

    def blocks(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        x = F.gelu(self.batch_norm("stem.bn", self.conv("stem.conv", image, 2)))
        lite = "lite_bottleneck"
        x = F.gelu(self.batch_norm(f"{lite}.bn1", self.conv(f"{lite}.pw_conv1", x)))
        x = F.gelu(self.batch_norm(f"{lite}.bn2", self.conv(f"{lite}.dw_conv", x, 1, x.shape[0])))
        x = self.batch_norm(f"{lite}.bn3", self.conv(f"{lite}.pw_conv2", x))
        tokens, maps = self.p["tokens"][0], []
        for i, heads in enumerate(self.w.cross_heads):
            name = f"blocks.{i}"
            tokens = self.former(f"{name}.former", self.mobile2former(f"{name}.mobile2former", x, tokens, heads))
            x = self.dynamic_mobile(f"{name}.dynamic_mobile", x, tokens[0], i in self.w.strided)
            x = x + self.irffn(f"{name}.ffn", self.group_norm(f"{name}.norm", x))
            maps.append(x)
        return maps, tokens

    def logits(self, image: Tensor) -> Tensor:
        maps, tokens = self.blocks(image)
        tokens = self.mobile2former("end_mobile2former", maps[-1], tokens, self.w.cross_heads[-1])
        tokens = self.former("end_former", tokens)
        x = F.gelu(self.batch_norm("bn", self.dynamic_conv("channel_conv", maps[-1], tokens[0], 1)))
        h = self.p["head.fc1.weight"] @ torch.cat([x.mean((1, 2)), tokens[0]]) + self.p["head.fc1.bias"]
        h = h * (h + 3).clamp(0, 6) / 6
        return self.p["head.fc2.weight"] @ h + self.p["head.fc2.bias"]
