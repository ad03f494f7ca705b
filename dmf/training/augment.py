"""A picture to the model's input: at random for training, as the packages do it for evaluation.

Crop, resize and flip are Pillow's, on 8 bits, so that only the pixels that are kept are ever converted; RandAugment and
random erasing are kornia's.
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor

from runtime.errors import UsageError
from runtime.extras import require
from runtime.preprocess import MEAN, STD

if TYPE_CHECKING:
    from dmf.training.config import AugmentConfig

CROP_SHARE = 0.9  # of the shorter side that an evaluation keeps, as in export/plan.py
CROP_TRIES = 10
SHEAR = math.degrees(math.atan(0.3)) / 180  # kornia's unit is half a turn: at the full magnitude a shear of 0.3
# RandAugment's operations and ranges, without Cutout, which random erasing is. kornia's "contrast" multiplies, as the
# paper's brightness does; its "brightness" adds, here about as much as that changes a mean grey. In the paper's code,
# too, these, color and sharpness do nothing at magnitude 15, take away below it and add above.
POLICY = [
    [("auto_contrast", 0, 1)],
    [("equalize", 0, 1)],
    [("invert", 0, 1)],
    [("rotate", -30.0, 30.0)],
    [("posterize", 4.0, 8.0)],
    [("solarize", 0.0, 1.0)],
    [("solarize_add", 0.0, 0.43)],
    [("color", 0.1, 1.9)],
    [("contrast", 0.1, 1.9)],
    [("brightness", 0.6, 1.4)],
    [("sharpness", 0.1, 1.9)],
    [("shear_x", -SHEAR, SHEAR)],
    [("shear_y", -SHEAR, SHEAR)],
    [("translate_x", -0.1, 0.1)],
    [("translate_y", -0.1, 0.1)],
]


class TrainTransform:
    """Random resized crop, flip, RandAugment, inversion, normalisation, random erasing, in this order.

    What a crop or a rotation uncovers is black, so inversion comes after; erasing comes last and leaves 0, which is
    ImageNet's mean colour. UsageError: kornia is not installed, or takes no such number of operations (15 at most) or
    magnitude (1 to 29).
    """

    def __init__(self, config: "AugmentConfig") -> None:
        augmentation = require("kornia.augmentation", extra="train")
        self.config = config
        ops, magnitude = config.rand_augment_ops, config.rand_augment_magnitude
        try:
            self.rand_augment = augmentation.auto.RandAugment(ops, magnitude, POLICY) if ops else None
        except ValueError as error:
            raise UsageError(f"rand_augment_ops is {ops}, rand_augment_magnitude {magnitude}: {error}") from error
        self.erasing = augmentation.RandomErasing(p=1.0)

    def __call__(self, picture: Image.Image, size: int, generator: Generator) -> Tensor:
        """RGB -> (3, size, size), float32, normalised; everything random comes from `generator`."""
        box = crop_box(*picture.size, self.config.crop_scale, self.config.crop_ratio, generator)
        picture = picture.resize((size, size), Image.Resampling.BICUBIC, box)
        if happens(self.config.flip, generator):
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        x = to_tensor(picture)
        if self.rand_augment is not None:
            x = drawn_from(generator, self.rand_augment, x)
        if happens(self.config.invert, generator):
            x = 1 - x
        x = normalize(x)
        if happens(self.config.erase, generator):
            x = drawn_from(generator, self.erasing, x)
        return x


def eval_transform(picture: Image.Image, size: int, generator: Generator | None = None) -> Tensor:
    """RGB -> (3, size, size), float32, normalised: just what runtime/preprocess.py gives a package of that size.

    Nothing is random; `generator` is not looked at.
    """
    return normalize(to_tensor(eval_crop(picture, size)))


def eval_crop(picture: Image.Image, size: int) -> Image.Image:
    """The centre of `picture`, size x size px, after its shorter side became `size` / 0.9."""
    width, height = picture.size
    shorter, resize = min(width, height), int(size / CROP_SHARE)
    picture = picture.resize((resize * width // shorter, resize * height // shorter), Image.Resampling.BICUBIC)
    left, top = round((picture.width - size) / 2), round((picture.height - size) / 2)
    return picture.crop((left, top, left + size, top + size))


def crop_box(
    width: int, height: int, scale: tuple[float, float], ratio: tuple[float, float], generator: Generator
) -> tuple[float, float, float, float]:
    """A random box (left, top, right, bottom) in px: its share of the area is in `scale`, width / height in `ratio`.

    Share and log ratio are uniform among the boxes that fit. Where none of `CROP_TRIES` fits, as in a panorama, it is
    the largest box in the centre with the nearest ratio.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(CROP_TRIES):
        draw = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
        area = width * height * (scale[0] + (scale[1] - scale[0]) * draw[0])
        aspect = math.exp(low + (high - low) * draw[1])
        w, h = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if w <= width and h <= height:
            left, top = draw[2] * (width - w), draw[3] * (height - h)
            return left, top, min(left + w, width), min(top + h, height)
    aspect = min(max(width / height, ratio[0]), ratio[1])
    w, h = min(width, height * aspect), min(height, width / aspect)
    return (width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2


def drawn_from(generator: Generator, module: Any, x: Tensor) -> Tensor:
    """(3, H, W) -> (3, H, W) through a kornia module whose random numbers come from `generator`.

    kornia draws from torch's global generator, so that is seeded and put back; `torch.manual_seed` would also seed the
    GPU's, from which the training draws. One image a call, since RandAugment picks its operations once per batch.
    """
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(seed)
        return module(x[None])[0]


def happens(probability: float, generator: Generator) -> bool:
    return bool(torch.rand((), generator=generator) < probability)


def to_tensor(picture: Image.Image) -> Tensor:
    """RGB -> (3, H, W), float32 in 0..1"""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float().contiguous() / 255


def normalize(x: Tensor) -> Tensor:
    """(3, H, W) in 0..1 -> (3, H, W) of mean 0 and deviation 1 over ImageNet"""
    return (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
