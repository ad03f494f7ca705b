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

from export.model import Model, image_size, routed
from export.verify.routing import coverage, search, standardized

PHOTOGRAPHS = ("astronaut", "chelsea")
SEARCHED = 3


@dataclass(frozen=True, eq=False)
class Inputs:
    """`images` uint8 (N, H, W, 3) RGB, and what each is."""

    images: NDArray[np.uint8]
    names: tuple[str, ...]


def verification_inputs(model: Model, seed: int = 0) -> Inputs:
    """Six inputs for `model`, the same for the same model and seed."""
    height, width = image_size(model)
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    given = np.stack([*(photograph(name, height, width) for name in PHOTOGRAPHS), noise])
    network = routed(model)
    images = np.concatenate([given, search(network, given, SEARCHED, seed)])
    before, after = (coverage(network, part).mean_range for part in (given, images))
    widened = f"{SEARCHED} that widen the mean range of a routing weight from {before:.2f} to {after:.2f}"
    return Inputs(
        images,
        (
            *(f"photograph: {name}" for name in PHOTOGRAPHS),
            f"noise: seed {seed}",
            *(f"searched: {i + 1} of {widened}" for i in range(SEARCHED)),
        ),
    )


def photograph(name: str, height: int, width: int) -> NDArray[np.uint8]:
    """One of `PHOTOGRAPHS`, (height, width, 3)"""
    with files("export.verify").joinpath("photographs", f"{name}.png").open("rb") as file:
        image = Image.open(file).convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image)


def normalize(images: NDArray[np.uint8], dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 (N, H, W, 3) -> (N, 3, H, W), (x / 255 - mean) / std computed in `dtype`"""
    return standardized(torch.from_numpy(images.copy()).permute(0, 3, 1, 2).to(dtype))
