"""What is trained on: labelled pictures, split into those to train on and those held out.

A folder tree in ImageNet's layout, or scikit-learn's handwritten digits, which need no download. Whatever a file holds
becomes an upright RGB picture of 8 bits; what is transparent in it shows white, as on a page.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Generator, Tensor

from runtime.commandline import nearest
from runtime.errors import UsageError
from runtime.extras import require

if TYPE_CHECKING:
    from dmf.training.config import DataConfig

SOURCES = ("digits", "folder")
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
DIGIT_SIZE = 64


class UnreadableImage(UsageError):
    """A file that is no whole image; `path` is the file."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: not a whole image: {reason}; replace or remove it, or skip unreadable files")
        self.path = path


class Examples(ABC):
    """Pictures 0 to N - 1 and what is known about each; `classes` are the names that labels count.

    `skipped` names each unreadable file met so far and says what is wrong with it, where `skip_unreadable`; the loader
    fills it (sampler.py).
    """

    def __init__(self, classes: tuple[str, ...], skip_unreadable: bool = False) -> None:
        self.classes, self.skip_unreadable = classes, skip_unreadable
        self.skipped: dict[str, str] = {}

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def sample(self, index: int, transform: Callable[..., Any], size: int, generator: Generator) -> tuple[Tensor, Any]:
        """The model's input (3, H, W) and what is known about it. Raises `UnreadableImage`."""

    @abstractmethod
    def batch(self, samples: Sequence[tuple[Tensor, Any]]) -> tuple[Tensor, Any]:
        """Samples, at least one, as one batch: images (B, 3, H, W), and what is known about them."""


class Images(Examples):
    """Labelled pictures: `labels` are indices into `classes`."""

    def __init__(self, classes: tuple[str, ...], labels: list[int], skip_unreadable: bool = False) -> None:
        super().__init__(classes, skip_unreadable)
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def picture(self, index: int) -> Image.Image:
        """Upright, in RGB. Raises `UnreadableImage`."""

    def sample(self, index: int, transform: Callable[..., Any], size: int, generator: Generator) -> tuple[Tensor, int]:
        """`transform(picture, size, generator)` and the label."""
        return transform(self.picture(index), size, generator), self.labels[index]

    def batch(self, samples: Sequence[tuple[Tensor, Any]]) -> tuple[Tensor, Tensor]:
        """-> images (B, 3, s, s), labels (B,) int64"""
        return torch.stack([image for image, _ in samples]), torch.tensor([label for _, label in samples])


E = TypeVar("E", bound=Examples, covariant=True)


class Splits(NamedTuple, Generic[E]):
    """Of the same classes, with no picture in both."""

    train: E
    heldout: E


class Digits(Images):
    """Handwritten digits, white on black, `DIGIT_SIZE` px square; `pixels` is uint8 (N, S, S)."""

    def __init__(self, pixels: NDArray[np.uint8], labels: list[int]) -> None:
        super().__init__(tuple("0123456789"), labels)
        self.pixels = pixels

    def picture(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index]).convert("RGB")


class ImageFolder(Images):
    """The images of a folder tree, one folder a class; none is opened before it is asked for."""

    def __init__(self, classes: tuple[str, ...], labels: list[int], paths: list[str], skip_unreadable: bool) -> None:
        super().__init__(classes, labels, skip_unreadable)
        self.paths = paths

    def picture(self, index: int) -> Image.Image:
        return read_picture(self.paths[index])


def load(config: "DataConfig") -> Splits[Images]:
    """The data set that `config` names.

    UsageError: an unknown name, no path, a folder that is missing, has fewer than two classes or a class without
    images, other classes in val/ than in train/, or a share that leaves a class out of a split.
    """
    if config.name == "digits":
        return digits(config.heldout_share, config.split_seed)
    if config.name != "folder":
        raise UsageError(
            f"unknown data set {config.name!r}; choose from {', '.join(SOURCES)}{nearest(config.name, SOURCES)}"
        )
    if not config.path:
        raise UsageError("the data set 'folder' needs a path: a folder with train/ and val/ in it")
    skip = config.unreadable == "skip"
    train = image_folder(Path(config.path, "train"), skip)
    heldout = image_folder(Path(config.path, "val"), skip)
    if odd := sorted(set(train.classes) ^ set(heldout.classes)):
        where = "train" if odd[0] in train.classes else "val"
        raise UsageError(
            f"{config.path}: train/ and val/ must have the same classes, but {odd[0]!r} is in {where}/ only"
            + (f", and {len(odd) - 1} more are in one only" if odd[1:] else "")
        )
    return Splits(train, heldout)


def digits(heldout_share: float, split_seed: int) -> Splits[Digits]:
    """scikit-learn's 1797 digits of 8 x 8; every class is held out to the same share. UsageError: an unusable share."""
    bunch = require("sklearn.datasets", extra="train").load_digits()
    split = require("sklearn.model_selection", extra="train").train_test_split
    labels = [int(label) for label in bunch.target]
    try:
        parts = split(range(len(labels)), test_size=heldout_share, stratify=labels, random_state=split_seed)
    except (ValueError, TypeError) as error:
        raise UsageError(f"heldout_share is {heldout_share}, which splits no digits: {error}") from error
    # The digits touch the edges; with a margin, the centre crop of an evaluation cuts nothing off them.
    cells = np.pad((bunch.images * (255 / 16)).round().astype(np.uint8), ((0, 0), (1, 1), (1, 1)))
    size = (DIGIT_SIZE, DIGIT_SIZE)
    pixels = np.stack([np.asarray(Image.fromarray(cell).resize(size, Image.Resampling.BICUBIC)) for cell in cells])
    return Splits(*(Digits(pixels[part], [labels[i] for i in part]) for part in map(sorted, parts)))


def image_folder(folder: Path, skip_unreadable: bool) -> ImageFolder:
    """Every image below each folder in `folder`, classes and files in the order of their names. UsageError as `load`'s.

    Hidden files and files of other suffixes than `SUFFIXES` are no images.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; the data set is a folder with train/ and val/ in it")
    classes = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "."))
    if len(classes) < 2:
        found = f"one class, {classes[0]!r}," if classes else "no class folders"
        raise UsageError(f"{folder}: {found} in it; give at least two folders of images, each named for its class")
    labels, paths = [], []
    for label, name in enumerate(classes):
        files = image_files(folder / name)
        if not files:
            raise UsageError(f"{folder / name}: no images in it ({', '.join(SUFFIXES)}); add some or remove the class")
        labels += [label] * len(files)
        paths += files
    return ImageFolder(classes, labels, paths, skip_unreadable)


def image_files(folder: Path) -> list[str]:
    return sorted(
        os.path.join(parent, name)
        for parent, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name.lower().endswith(SUFFIXES) and name[0] != "."
    )


def read_picture(path: str) -> Image.Image:
    """The image in a file, upright and in RGB. Raises `UnreadableImage`, for a file that is cut short too."""
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)  # a copy, so the whole file has been decoded
    except Exception as error:  # what a decoder raises for broken data isn't limited to OSError
        raise UnreadableImage(path, str(error) or type(error).__name__) from error
    return to_rgb(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """8 bits of red, green and blue, for any mode of Pillow's; transparency over white, 16 bits scaled to 8."""
    if image.mode.startswith("I"):  # Pillow would clip 16 bits to 255
        image = Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
