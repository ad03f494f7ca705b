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

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of pixels scaled to 0..1
PHOTOGRAPHS = ("astronaut", "chelsea")


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
    extreme, extreme_moved = search_routing(model, shots[0], +1)
    turned, turned_moved = search_routing(model, shots[0], -1)
    return Inputs(
        np.stack([*shots, noise, extreme, turned]),
        (
            *(f"photograph: {name}" for name in PHOTOGRAPHS),
            f"noise: seed {seed}",
            f"searched: routing weights driven {extreme_moved:.3f} towards their ends",
            f"searched: routing weights driven {turned_moved:.3f} towards their other ends",
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


def search_routing(
    model: DMF, start: NDArray[np.uint8], direction: int, steps: int = 20
) -> tuple[NDArray[np.uint8], float]:
    """Climb from an image (H, W, 3) to one whose routing is the same but extreme (+1), or turned around (-1).

    Every routing weight above the mean of its layer is driven up and every other one down, or the reverse: between the
    two pictures each weight visits both ends of its range. Returns the best picture, and how far the weights moved in
    that direction on average.
    """
    collected: list[Tensor] = []
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, pi: collected.append(pi))
        for module in model.modules()
        if isinstance(module, KernelAttention)
    ]
    scale, shift = torch.tensor(STD)[:, None, None], torch.tensor(MEAN)[:, None, None]

    def routing(pixels: Tensor) -> Tensor:
        """(1, 3, H, W) of 0..1 -> the routing weights of all layers (L, K)"""
        collected.clear()
        model((pixels - shift) / scale)
        return torch.cat(collected)

    pixels = torch.from_numpy(start.copy()).permute(2, 0, 1)[None].float() / 255
    try:
        with torch.no_grad():
            initial = routing(pixels)
        wanted = direction * torch.where(initial > initial.mean(1, keepdim=True), 1.0, -1.0)
        best, best_moved = pixels, 0.0
        pixels = pixels.clone().requires_grad_()
        optimizer = torch.optim.Adam([pixels], lr=0.01, maximize=True)
        for _ in range(steps):
            moved = (wanted * (routing(pixels) - initial)).mean()
            if moved.item() > best_moved:
                best, best_moved = pixels.detach().clone(), moved.item()
            (pixels.grad,) = torch.autograd.grad(moved, pixels)
            optimizer.step()
            with torch.no_grad():
                pixels.clamp_(0, 1)
    finally:
        for hook in hooks:
            hook.remove()
    return (best[0].permute(1, 2, 0) * 255).round().byte().numpy(), best_moved
