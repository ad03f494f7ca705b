"""An image file to a model's input, with numpy and Pillow alone, as the manifest's input says."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from runtime.errors import UsageError
from runtime.manifest import InputSpec

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of pixels scaled to 0..1
INTERPOLATION = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}


def load_image(path: Path | str, spec: InputSpec) -> NDArray[np.uint8]:
    """The image upright, in RGB, cropped about its centre or padded as ``spec`` says. Returns uint8 ``(H, W, 3)``.

    UsageError: not an image, or smaller than the crop once resized.
    """
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UsageError(f"{path}: not an image that Pillow reads: {error}") from error
    width, height = image.size
    crop_height, crop_width = spec.crop
    resized_height, resized_width = resized_size(height, width, spec)
    image = image.resize((resized_width, resized_height), INTERPOLATION[spec.interpolation])
    if spec.fit == "pad":
        padded = np.empty((crop_height, crop_width, 3), np.uint8)
        padded[:] = np.round(255 * np.array(spec.mean))
        padded[:resized_height, :resized_width] = np.asarray(image)
        return padded
    if crop_width > image.width or crop_height > image.height:
        raise UsageError(
            f"{path}: {image.width} x {image.height} px once resized to {spec.resize}, "
            f"smaller than the crop of {crop_width} x {crop_height}"
        )
    left, top = round((image.width - crop_width) / 2), round((image.height - crop_height) / 2)
    return np.asarray(image.crop((left, top, left + crop_width, top + crop_height)))


def resized_size(height: int, width: int, spec: InputSpec) -> tuple[int, int]:
    """Height and width, in px, that ``spec`` scales a picture to before it is cropped or padded.

    A box in a padded input is one in the picture once it is scaled back by as much.
    """
    if spec.resize is not None:
        shorter = min(width, height)
        return spec.resize * height // shorter, spec.resize * width // shorter
    crop_height, crop_width = spec.crop
    if crop_height * width <= crop_width * height:  # the height is what fills it
        return crop_height, max(1, width * crop_height // height)
    return max(1, height * crop_width // width), crop_width


def to_input(images: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.float32]:
    """``(images / 255 - mean) / std`` in float32; 0..255 as it is where the graph normalises.

    ``images`` is uint8 ``(N, H, W, 3)``; returns ``(N, 3, H, W)`` or ``(N, H, W, 3)``, as
    ``spec.layout`` says. UsageError: another dtype, or H and W are not ``spec.crop``.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (*spec.crop, 3):
        height, width = spec.crop
        raise UsageError(
            f"images are {images.dtype} {images.shape}, input {spec.name!r} takes uint8 (N, {height}, {width}, 3)"
        )
    x = images.astype(np.float32)
    if not spec.normalisation_in_graph:
        mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
        x = (x / np.float32(255) - mean) / std
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2) if spec.layout == "NCHW" else x)
