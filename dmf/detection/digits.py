"""Handwritten digits pasted on photographs: a data set for detection whose boxes and masks are known to the pixel.

The digits are scikit-learn's, split as for classification (dmf.training.data); the photographs are samples that
scikit-image and scikit-learn ship. What is held out has other digits and other photographs than what is trained on.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Generator

from dmf.detection.data import DetectionExamples, Truth
from dmf.detection.instances import Target
from dmf.training.data import Digits, Splits, digits
from runtime.errors import UsageError
from runtime.extras import require

Pixels = NDArray[np.uint8]  # (H, W, 3)

# scikit-image's, but for china.jpg and flower.jpg, which are scikit-learn's; none shows a number
TRAIN_PHOTOGRAPHS = (
    "china.jpg",
    "astronaut",
    "camera",
    "stereo_motorcycle",
    "hubble_deep_field",
    "coins",
    "brick",
    "grass",
    "gravel",
    "moon",
    "retina",
    "immunohistochemistry",
)
HELDOUT_PHOTOGRAPHS = ("flower.jpg", "chelsea", "coffee", "rocket")

MOST_DIGITS = 6
HEIGHTS = (0.2, 0.5)  # of a digit, as shares of the picture's shorter side
ANGLE = 15.0  # degrees, at most, either way
WIDTHS = (0.8, 1.25)  # a digit is drawn wider or narrower by
COVERED = 0.1  # at most, of the smaller of two boxes by the other
CONTRAST = 70  # at least, of the digit's brightness and that of what is around it (0 to 255)
PLACES = 20  # that are tried for a digit; where none is free it is left out
CROP_SHARES = (0.4, 1.0)  # of the largest crop of a photograph
LIGHTS = (0.6, 1.3)  # a photograph's brightness is multiplied by
# of pictures to train on, whose photographs are few, and many of them grey:
RECOLOURED = 0.5  # share of them
BLENDED = 0.3  # share of them


class DigitScenes(DetectionExamples):
    """`count` pictures of H x W px with 0 to `MOST_DIGITS` digits each.

    With `fresh`, a picture is drawn anew each time, from the generator it is asked for with; without, picture i is
    always the same. Both follow from `seed` too. The photographs of fresh pictures are made more: two are blended,
    colours changed; else a detector learns the few by heart, and that what has a colour is a digit.
    """

    def __init__(
        self, digits: Digits, photographs: Sequence[Pixels], count: int, size: tuple[int, int], seed: int, fresh: bool
    ) -> None:
        super().__init__(digits.classes)
        self.digits, self.photographs, self.count, self.size = digits, photographs, count, size
        self.seed, self.fresh = seed, fresh

    def __len__(self) -> int:
        return self.count

    def example(self, index: int, generator: Generator) -> tuple[Image.Image, Target]:
        """The picture, its boxes the tightest around the masks, its masks what is seen of each digit."""
        drawn = int(torch.randint(2**62, (), generator=generator)) if self.fresh else index
        pixels, masks, labels = self._draw(np.random.default_rng([self.seed, self.fresh, drawn]))
        boxes = torch.tensor([box_of(mask) for mask in masks], dtype=torch.float32).reshape(-1, 4)
        stacked = torch.from_numpy(np.stack(masks)) if masks else torch.zeros(0, *self.size, dtype=torch.bool)
        return Image.fromarray(pixels), Target(boxes, torch.tensor(labels, dtype=torch.int64), stacked)

    def truth(self, index: int) -> Truth:
        """Of a picture that is always the same. Raises `ValueError` where they are `fresh`."""
        if self.fresh:
            raise ValueError("the pictures are drawn anew each time, so none has a truth to be measured against")
        target = self.example(index, Generator())[1]
        masks = target.masks
        assert masks is not None
        encode = require("pycocotools.mask", extra="train").encode
        return Truth(
            target.boxes.double().numpy(),
            target.labels.numpy(),
            masks.sum((1, 2)).double().numpy(),
            np.zeros(len(masks), np.bool_),
            [encode(np.asfortranarray(mask.numpy().astype(np.uint8))) for mask in masks],
        )

    def _background(self, rng: np.random.Generator) -> Pixels:
        return background(self.photographs[int(rng.integers(len(self.photographs)))], self.size, rng)

    def _draw(self, rng: np.random.Generator) -> tuple[Pixels, list[NDArray[np.bool_]], list[int]]:
        scene = self._background(rng)
        if self.fresh and rng.random() < BLENDED:
            scene = blend(scene, self._background(rng), rng)
        if self.fresh and rng.random() < RECOLOURED:
            scene = recolour(scene, rng)
        masks: list[NDArray[np.bool_]] = []
        labels: list[int] = []
        boxes: list[tuple[int, int, int, int]] = []
        for _ in range(rng.integers(MOST_DIGITS + 1)):
            which = int(rng.integers(len(self.digits)))
            alpha = glyph(self.digits.pixels[which], round(min(self.size) * rng.uniform(*HEIGHTS)), rng)
            box = free_place(alpha.shape, self.size, boxes, rng)
            if box is None:
                continue
            x1, y1, x2, y2 = box
            around = scene[y1:y2, x1:x2]
            ink = colour(around, rng)
            scene[y1:y2, x1:x2] = (alpha[..., None] * ink + (1 - alpha[..., None]) * around).round().astype(np.uint8)
            mask = np.zeros(self.size, np.bool_)
            mask[y1:y2, x1:x2] = alpha > 0.5
            for other in masks:
                other &= ~mask
            masks.append(mask)
            labels.append(self.digits.labels[which])
            boxes.append(box)
        return scene, masks, labels


def digit_scenes(
    size: tuple[int, int], train_count: int, heldout_count: int, heldout_share: float, split_seed: int
) -> Splits[DigitScenes]:
    """Pictures of H x W px: fresh ones to train on in each epoch, `heldout_count` fixed ones held out.

    UsageError: scikit-learn or scikit-image is missing, a share that splits no digits, a size below 64 px.
    """
    if min(size) < 64:
        raise UsageError(f"scenes of {size[0]} x {size[1]} px are too small for digits; give at least 64 x 64")
    parts = digits(heldout_share, split_seed)
    return Splits(
        DigitScenes(parts.train, list(map(photograph, TRAIN_PHOTOGRAPHS)), train_count, size, split_seed, True),
        DigitScenes(parts.heldout, list(map(photograph, HELDOUT_PHOTOGRAPHS)), heldout_count, size, split_seed, False),
    )


def photograph(name: str) -> Pixels:
    """(H, W, 3). Raises `UsageError` where its package is missing."""
    if name.endswith(".jpg"):
        return np.asarray(require("sklearn.datasets", extra="train").load_sample_image(name))
    load: Callable[[], object] = getattr(require("skimage.data", extra="train"), name)
    loaded = load()
    pixels = np.asarray(loaded[0] if isinstance(loaded, tuple) else loaded)  # of a stereo pair, the left one
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, 2)


def background(pixels: Pixels, size: tuple[int, int], rng: np.random.Generator) -> Pixels:
    """A crop of a photograph with the ratio of `size` (H, W), resized to it, mirrored or not, darker or brighter."""
    height, width = size
    share = rng.uniform(*CROP_SHARES) * min(pixels.shape[0] / height, pixels.shape[1] / width)
    h, w = height * share, width * share
    y, x = rng.uniform(0, pixels.shape[0] - h), rng.uniform(0, pixels.shape[1] - w)
    picture = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC, (x, y, x + w, y + h))
    lit = np.asarray(picture) * rng.uniform(*LIGHTS)
    return lit.clip(0, 255).astype(np.uint8)[:, :: rng.choice([-1, 1])].copy()


def blend(a: Pixels, b: Pixels, rng: np.random.Generator) -> Pixels:
    """Two pictures (H, W, 3) as one: both seen through each other, more of `a` on one side, more of `b` on another."""
    y, x = np.ogrid[-1 : 1 : a.shape[0] * 1j, -1 : 1 : a.shape[1] * 1j]
    angle, steepness, shift = rng.uniform(0, 2 * np.pi), rng.uniform(0, 8), rng.uniform(-2, 2)
    share = 1 / (1 + np.exp(steepness * (np.cos(angle) * x + np.sin(angle) * y) + shift))[..., None]
    return (share * a + (1 - share) * b).round().astype(np.uint8)


def recolour(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Each channel of (H, W, 3) a mixture of all three, of another contrast, perhaps inverted, and shifted."""
    weights = rng.dirichlet((0.5, 0.5, 0.5), 3).T * rng.uniform(0.4, 1.2, 3) * rng.choice([-1, 1], 3, p=[0.25, 0.75])
    mixed = (pixels - 127.5) @ weights + 127.5 + rng.uniform(-60, 60, 3)
    return mixed.clip(0, 255).astype(np.uint8)


def glyph(pixels: Pixels, height: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """A digit, white on black, as how much of each pixel it covers, 0 to 1: turned, then cropped and scaled.

    (height, w): the part above 0.5 reaches all four edges.
    """
    turned = Image.fromarray(pixels).rotate(rng.uniform(-ANGLE, ANGLE), Image.Resampling.BICUBIC)
    x1, y1, x2, y2 = box_of(np.asarray(turned) > 127)
    width = max(4, round((x2 - x1) * height / (y2 - y1) * rng.uniform(*WIDTHS)))
    drawn = turned.resize((width, height), Image.Resampling.BICUBIC, (x1, y1, x2, y2))
    # steep, so that a thin stroke is not half transparent; 0.5 stays where it is
    alpha = (np.asarray(drawn) / 255 - 0.5) * 2 + 0.5
    x1, y1, x2, y2 = box_of(alpha > 0.5)
    return alpha.clip(0, 1)[y1:y2, x1:x2]


def free_place(
    shape: tuple[int, ...], size: tuple[int, int], boxes: Sequence[tuple[int, int, int, int]], rng: np.random.Generator
) -> tuple[int, int, int, int] | None:
    """A box of `shape` (h, w) within `size` (H, W) that hides little of `boxes`; None if it isn't found soon."""
    for _ in range(PLACES):
        y, x = (int(rng.integers(whole - part + 1)) for whole, part in zip(size, shape, strict=True))
        box = x, y, x + shape[1], y + shape[0]
        if all(covered(box, other) <= COVERED for other in boxes):
            return box
    return None


def covered(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """What the boxes share, by the area of the smaller."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(width, 0) * max(height, 0) / smaller


def colour(around: Pixels, rng: np.random.Generator) -> NDArray[np.float64]:
    """(3,), 0 to 255: at random, but seen on `around` (h, w, 3)."""
    brightness = around.mean()
    for _ in range(PLACES):
        drawn = rng.uniform(0, 255, 3)
        if abs(drawn.mean() - brightness) >= CONTRAST:
            return drawn
    return np.full(3, 0.0 if brightness > 127 else 255.0)


def box_of(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """The tightest box, x1, y1, x2, y2, around the True pixels of (H, W), of which there is at least one."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
