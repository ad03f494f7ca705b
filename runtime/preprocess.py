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
    """The image upright, in RGB, resized and cropped about its centre as ``spec`` says.

    The shorter side becomes ``spec.resize`` px. Returns uint8 ``(H, W, 3)``. UsageError: not an
    image, or smaller than the crop once resized.
    """
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UsageError(f"{path}: not an image that Pillow reads: {error}") from error
    width, height = image.size
    shorter = min(width, height)
    size = (spec.resize * width // shorter, spec.resize * height // shorter)
    image = image.resize(size, INTERPOLATION[spec.interpolation])
    crop_height, crop_width = spec.crop
    if crop_width > image.width or crop_height > image.height:
        raise UsageError(
            f"{path}: {image.width} x {image.height} px once resized to {spec.resize}, "
            f"smaller than the crop of {crop_width} x {crop_height}"
        )
    left, top = round((image.width - crop_width) / 2), round((image.height - crop_height) / 2)
    return np.asarray(image.crop((left, top, left + crop_width, top + crop_height)))


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
