"""The keys and shapes of the released code's state dicts, from the paper's widths, and random values for them.

Imports nothing of dmf. `SHA256` are of the listings of the released code itself, so that a mistake here shows.
"""

from dataclasses import dataclass
from hashlib import sha256

import torch
from torch import Tensor

KEYS = 877
SHA256 = {
    "dmf_xxs": "1be8a561de705a712e9bd0422edfbdf4211098117ff4daca197b32ac5ea6ed54",
    "dmf_xs": "73b3ee953ff7d7c3c39f1fb1566d96e918c1e5e3ef20f0f2dacd69428084cc1d",
    "dmf_s": "45b9bb1b9cba0f200f7e201be649dc6a8a79a14aa3363a69089c1c7bf5934e28",
}


@dataclass(frozen=True)
class Widths:
    stem: int
    lite: tuple[int, int]  # hidden, out
    hidden: tuple[int, ...]
    out: tuple[int, ...]
    strided: tuple[int, ...]
    cross_heads: tuple[int, ...]
    groups: int
    expansion: float
    end: int
    fc1: int
    classes: int = 1000
    dim: int = 192
    heads: int = 6
    kernels: int = 8


WIDTHS = {
    "dmf_xxs": Widths(
        stem=12,
        lite=(24, 12),
        hidden=(72, 60, 120, 108, 216, 256, 384, 528, 528, 720, 720),
        out=(20, 20, 36, 36, 64, 64, 88, 88, 120, 120, 120),
        strided=(0, 2, 4, 8),
        cross_heads=(2, 2, 2, 2, 2, 2, 2, 4, 4, 4, 4),
        groups=2,
        expansion=3,
        end=960,
        fc1=1600,
    ),
    "dmf_xs": Widths(
        stem=16,
        lite=(32, 18),
        hidden=(108, 90, 180, 162, 324, 384, 576, 792, 792, 1080, 1080),
        out=(30, 30, 54, 54, 96, 96, 132, 132, 180, 180, 180),
        strided=(0, 2, 4, 8),
        cross_heads=(2, 2, 2, 2, 2, 3, 3, 4, 4, 6, 6),
        groups=3,
        expansion=2,
        end=1152,
        fc1=1920,
    ),
    "dmf_s": Widths(
        stem=24,
        lite=(48, 24),
        hidden=(144, 120, 240, 216, 432, 512, 768, 1056, 1056, 1440, 1440),
        out=(40, 40, 72, 72, 128, 128, 176, 176, 240, 240, 240),
        strided=(0, 2, 4, 8),
        cross_heads=(2, 2, 2, 2, 2, 4, 4, 4, 4, 8, 8),
        groups=4,
        expansion=2.7,
        end=1440,
        fc1=1920,
    ),
    # never released; in the released layout it makes small files for the tests of loading
    "dmf_nano": Widths(
        stem=8,
        lite=(16, 8),
        hidden=(32, 48, 72, 96, 128),
        out=(12, 16, 24, 24, 40),
        strided=(0, 1, 2, 4),
        cross_heads=(2, 2, 2, 2, 4),
        groups=2,
        expansion=2,
        end=160,
        fc1=128,
        classes=10,
        dim=64,
        heads=2,
    ),
}


def shapes(w: Widths) -> dict[str, list[int]]:
    """Key -> shape."""
    found: dict[str, list[int]] = {"tokens": [1, 6, w.dim]}

    def norm(name: str, width: int) -> None:
        found.update({f"{name}.weight": [width], f"{name}.bias": [width]})

    def batch_norm(name: str, width: int) -> None:
        norm(name, width)
        found.update({f"{name}.running_mean": [width], f"{name}.running_var": [width]})
        found[f"{name}.num_batches_tracked"] = []

    def dynamic(name: str, inputs: int, outputs: int, side: int, groups: int) -> None:
        kernel = [outputs, inputs // groups, side, side]
        found.update({f"{name}.static_weight": kernel, f"{name}.weight": [w.kernels, *kernel]})
        found[f"{name}.Kernel_Attention.net1.weight"] = [w.dim, w.dim + inputs, 1, 1]
        batch_norm(f"{name}.Kernel_Attention.bn", w.dim)
        found[f"{name}.Kernel_Attention.net2.weight"] = [w.kernels, w.dim, 1, 1]

    def mobile2former(name: str, width: int) -> None:
        norm(f"{name}.norm", w.dim)
        found.update({f"{name}.q.weight": [width, w.dim], f"{name}.fc.weight": [w.dim, width]})

    def former(name: str) -> None:
        norm(f"{name}.norm1", w.dim)
        norm(f"{name}.norm2", w.dim)
        found[f"{name}.token_attention.qkv.weight"] = [3 * w.dim, w.dim]
        found[f"{name}.token_attention.proj.weight"] = [w.dim, w.dim]
        found[f"{name}.token_attention.proj.bias"] = [w.dim]
        found[f"{name}.mlp.fc1.weight"] = [2 * w.dim, w.dim]
        found[f"{name}.mlp.fc2.weight"] = [w.dim, 2 * w.dim]

    found.update({"stem.conv.weight": [w.stem, 3, 3, 3], "stem.conv.bias": [w.stem]})
    batch_norm("stem.bn", w.stem)
    found["lite_bottleneck.pw_conv1.weight"] = [w.lite[0], w.stem, 1, 1]
    found["lite_bottleneck.dw_conv.weight"] = [w.lite[0], 1, 3, 3]
    found["lite_bottleneck.pw_conv2.weight"] = [w.lite[1], w.lite[0], 1, 1]
    for k, width in enumerate((w.lite[0], *w.lite), 1):
        batch_norm(f"lite_bottleneck.bn{k}", width)
    width = w.lite[1]
    for i, (hidden, out) in enumerate(zip(w.hidden, w.out, strict=True)):
        mobile2former(f"blocks.{i}.mobile2former", width)
        former(f"blocks.{i}.former")
        mobile = f"blocks.{i}.dynamic_mobile"
        if i in w.strided:
            found[f"{mobile}.downsample.0.weight"] = [width, 1, 3, 3]
            found[f"{mobile}.downsample.0.bias"] = [width]
            batch_norm(f"{mobile}.downsample.1", width)
        dynamic(f"{mobile}.pw_conv1", width, hidden, 1, w.groups)
        dynamic(f"{mobile}.dw_conv", hidden, hidden, 3, hidden)
        dynamic(f"{mobile}.pw_conv2", hidden, out, 1, w.groups)
        for k, channels in enumerate((hidden, hidden, out), 1):
            batch_norm(f"{mobile}.bn{k}", channels)
        norm(f"blocks.{i}.norm", out)
        ffn, inner = f"blocks.{i}.ffn", int(out * w.expansion)
        found[f"{ffn}.pw_conv1.weight"] = [inner, out, 1, 1]
        batch_norm(f"{ffn}.bn1", inner)
        found[f"{ffn}.dw_conv.weight"] = [inner, 1, 3, 3]
        found.update({f"{ffn}.grn.gamma": [1, inner, 1, 1], f"{ffn}.grn.beta": [1, inner, 1, 1]})
        found[f"{ffn}.pw_conv2.weight"] = [out, inner, 1, 1]
        batch_norm(f"{ffn}.bn3", out)
        width = out
    mobile2former("end_mobile2former", width)
    former("end_former")
    dynamic("channel_conv", width, w.end, 1, 1)
    batch_norm("bn", w.end)
    found.update({"head.fc1.weight": [w.fc1, w.end + w.dim], "head.fc1.bias": [w.fc1]})
    found.update({"head.fc2.weight": [w.classes, w.fc1], "head.fc2.bias": [w.classes]})
    return found


def digest(shapes: dict[str, list[int]]) -> str:
    """Of the sorted listing of keys and shapes."""
    return sha256("\n".join(sorted(f"{key} {shape}" for key, shape in shapes.items())).encode()).hexdigest()


def random_state(w: Widths, seed: int) -> dict[str, Tensor]:
    """Random float32 values for every key: norms, statistics, banks and GRN included."""
    generator = torch.Generator().manual_seed(seed)
    return {key: _random(key, shape, generator) for key, shape in shapes(w).items()}


def _random(key: str, shape: list[int], generator: torch.Generator) -> Tensor:
    if key.endswith("num_batches_tracked"):
        return torch.tensor(1000)
    noise = torch.randn(shape, generator=generator)
    if key == "tokens":
        return noise
    if key.endswith("running_var"):
        return 0.5 + torch.rand(shape, generator=generator)
    if len(shape) == 1 and key.endswith(".weight"):
        return 1 + 0.2 * noise  # of a norm
    if len(shape) == 1 or "grn" in key:
        return 0.3 * noise
    fan_in = torch.Size(shape[2:] if len(shape) == 5 else shape[1:]).numel()
    return noise * (4 if len(shape) == 5 else 1) * fan_in**-0.5
