"""What artifacts are proven on: photographs, noise, and pictures searched to drive the routing to both of its ends.

All are 8-bit RGB images, as a camera gives them, so they also serve as golden vectors on a phone.
"""

from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dmf import DMF
from dmf.dynamic_conv import KernelAttention
from dmf.seeded import pictures
from runtime.preprocess import MEAN, STD

PHOTOGRAPHS = ("astronaut", "chelsea")
CANDIDATES, SEARCH_STEPS = 32, 16


@dataclass(frozen=True, eq=False)
class Inputs:
    """`images` uint8 (N, S, S, 3) RGB, and what each is."""

    images: NDArray[np.uint8]
    names: tuple[str, ...]


def verification_inputs(model: DMF, seed: int = 0) -> Inputs:
    """Five inputs for `model`, the same for the same model and seed."""
    size = model.config.image_size
    shots = [photograph(name, size) for name in PHOTOGRAPHS]
    noise = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    searched, apart = search_routing(model, seed)
    return Inputs(
        np.stack([*shots, noise, *searched]),
        (
            *(f"photograph: {name}" for name in PHOTOGRAPHS),
            f"noise: seed {seed}",
            *(f"searched: {which} of two whose routing weights are {apart:.3f} apart" for which in ("first", "second")),
        ),
    )


def photograph(name: str, size: int) -> NDArray[np.uint8]:
    """One of `PHOTOGRAPHS`, (size, size, 3)"""
    with files("export.verify").joinpath("photographs", f"{name}.png").open("rb") as file:
        image = Image.open(file).convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image)


def normalize(images: NDArray[np.uint8], dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 (N, H, W, 3) -> (N, 3, H, W), (x / 255 - mean) / std computed in `dtype`"""
    x = torch.from_numpy(images.copy()).to(dtype).permute(0, 3, 1, 2) / 255
    return (x - torch.tensor(MEAN, dtype=dtype)[:, None, None]) / torch.tensor(STD, dtype=dtype)[:, None, None]


@torch.no_grad()
def search_routing(model: DMF, seed: int) -> tuple[NDArray[np.uint8], float]:
    """Two pictures (2, H, W, 3) that `model` routes as differently as can be found, and how far apart on average.

    The two of `CANDIDATES` random pictures whose routing weights differ most, then each in turn moved away from the
    other along the sign of the gradient; a step that doesn't help is taken back and halved.
    """
    size = model.config.image_size
    candidates = pictures(CANDIDATES, size, torch.Generator().manual_seed(seed)) * torch.tensor(STD)[:, None, None]
    pixels = ((candidates + torch.tensor(MEAN)[:, None, None]) * 255).round().clamp(0, 255)
    routed = torch.stack([routing(model, picture[None]) for picture in pixels])
    apart = torch.cdist(routed, routed, p=1) / routed.shape[1]
    pair = list(divmod(int(apart.argmax()), CANDIDATES))
    best, routed, distance = pixels[pair], routed[pair], float(apart.max())
    for i in [0, 1] * (SEARCH_STEPS // 2):
        with torch.enable_grad():
            picture = best[i : i + 1].clone().requires_grad_()
            (gradient,) = torch.autograd.grad((routing(model, picture) - routed[1 - i]).abs().sum(), picture)
        for step in (16, 8, 4, 2, 1):
            moved = (picture + step * gradient.sign()).clamp(0, 255)
            weights = routing(model, moved)
            if (improved := float((weights - routed[1 - i]).abs().mean())) > distance:
                best[i], routed[i], distance = moved[0], weights, improved
                break
    return best.permute(0, 2, 3, 1).byte().numpy(), distance


def routing(model: DMF, pixels: Tensor) -> Tensor:
    """(1, 3, H, W) of 0..255 -> the routing weights of all layers, (L * K)"""
    collected: list[Tensor] = []
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, pi: collected.append(pi[0]))
        for module in model.modules()
        if isinstance(module, KernelAttention)
    ]
    try:
        model((pixels / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None])
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat(collected)
