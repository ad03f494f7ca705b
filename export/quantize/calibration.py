"""The pictures that show what range each activation has: a folder of the user's, or what a small network learned from.

A picture is prepared as for an evaluation, but nothing is made up for it: one that is too small or not in colour would
have the network see what it never sees in use, so it is refused.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from dmf import VARIANTS, DMFConfig
from dmf.training.augment import eval_crop
from dmf.training.config import read
from dmf.training.data import load
from runtime.errors import UsageError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
ENOUGH = 100
DIGITS = 200


@dataclass(frozen=True, eq=False)
class Calibration:
    """`images` uint8 (N, S, S, 3) RGB, in words where they are from, and `sha256` of the pixels."""

    images: NDArray[np.uint8]
    source: str
    sha256: str

    @property
    def warning(self) -> str | None:
        """Why the ranges may be poor, for the user to read."""
        if len(self.images) >= ENOUGH:
            return None
        return (
            f"only {len(self.images)} calibration pictures, from {self.source}: give {ENOUGH} or more for good ranges"
        )


def read_calibration(folder: Path | None, config: DMFConfig) -> Calibration:
    """For a network of this `config`: the pictures of `folder`, by name, or some that dmf_nano was trained on.

    Raises `UsageError`: no folder for another network, no pictures in it, one that can't be read or is no RGB picture
    of the network's size at least, or pictures that all show the same or nothing.
    """
    if folder is None:
        return _calibration(_digits(config), f"scikit-learn's digits, {DIGITS} of the training split")
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; calibration takes a folder of pictures ({', '.join(SUFFIXES)})")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != ".")
    if not paths:
        raise UsageError(f"{folder}: no pictures in it ({', '.join(SUFFIXES)}); put {ENOUGH} or more there")
    images = np.stack([_read(path, config.image_size) for path in paths])
    if all((image == image[0, 0]).all() for image in images):
        raise UsageError(f"{folder}: every picture is of one colour only, which tells no ranges; give real pictures")
    if len(images) > 1 and (images == images[0]).all():
        raise UsageError(f"{folder}: all {len(images)} pictures are the same; give different ones")
    return _calibration(images, f"folder {folder.resolve().name}")


def _calibration(images: NDArray[np.uint8], source: str) -> Calibration:
    return Calibration(images, source, hashlib.sha256(images.tobytes()).hexdigest())


def find_calibration(folder: Path | None, config: DMFConfig) -> Calibration | None:
    """As `read_calibration`; None where there is no folder, and the network has no pictures of its own."""
    return read_calibration(folder, config) if folder is not None or has_own_pictures(config) else None


def has_own_pictures(config: DMFConfig) -> bool:
    """Whether there are pictures for a network of this `config` without a folder of them."""
    return config == VARIANTS["dmf_nano"]


@cache
def _digits(config: DMFConfig) -> NDArray[np.uint8]:
    if not has_own_pictures(config):
        raise UsageError(
            "only dmf_nano as it is shipped has calibration pictures of its own; give a folder of "
            f"{ENOUGH} or more pictures, {config.image_size} px or larger, like those that the network will see"
        )
    train = load(read("dmf_nano_digits").data).train
    chosen = np.linspace(0, len(train) - 1, DIGITS).astype(int)  # evenly over the split
    return np.stack([np.asarray(eval_crop(train.picture(i), config.image_size)) for i in chosen])


def _read(path: Path, size: int) -> NDArray[np.uint8]:
    """(size, size, 3), as an evaluation sees it. Raises `UsageError`."""
    try:
        with Image.open(path) as file:
            mode, (width, height) = file.mode, file.size
            picture = ImageOps.exif_transpose(file)  # a copy, so the whole file has been decoded
    except Exception as error:  # what a decoder raises for broken data isn't limited to OSError
        reason = str(error) or type(error).__name__
        raise UsageError(f"{path}: not a whole picture: {reason}; replace or remove it") from error
    if mode != "RGB":
        raise UsageError(f"{path}: its mode is {mode}; calibration needs RGB pictures; convert or remove it")
    if min(width, height) < size:
        raise UsageError(
            f"{path}: {width} x {height} px; the network needs {size} x {size} or more; replace or remove it"
        )
    return np.asarray(eval_crop(picture, size))
