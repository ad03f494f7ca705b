"""How far pictures push the routing weights of each dynamic convolution, and pictures that push them further.

An artifact whose weight generation is wrong for some routing can be right on pictures that are all routed alike, as
photographs are. So what it is proven on has to reach both ends of every routing weight, or as near as can be found.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmf import DMF
from dmf.dynamic_conv import KernelAttention
from dmf.seeded import pictures
from runtime.preprocess import MEAN, STD

CANDIDATES, CLIMB = 32, 8  # random pictures, and steps up from each one that is taken
SETTLED = 2e-4  # of the largest logit, or value of the last feature map
FIRST_STEP = 32.0  # grey levels; from 64 on pictures are found on which seeded networks leave the range of fp16


Climbed = tuple[Tensor, Tensor]
"""A picture (1, 3, H, W) of 0..255, and its routing weights (1, L, K)."""


@dataclass(frozen=True, eq=False)
class Coverage:
    """The least and the largest routing weight of each kernel over some pictures, (L, K) for L dynamic convolutions."""

    convs: tuple[str, ...]
    least: NDArray[np.float64]
    largest: NDArray[np.float64]

    @property
    def mean_range(self) -> float:
        """Of a routing weight; 1 if the pictures switch every kernel fully on and off."""
        return float((self.largest - self.least).mean())

    def table(self) -> str:
        """A line a convolution: its name, its mean range, and from where to where each kernel's weight goes."""
        width = max(map(len, self.convs))
        lines = []
        for conv, least, largest in zip(self.convs, self.least, self.largest, strict=True):
            spans = "  ".join(f"{a:.2f}-{b:.2f}" for a, b in zip(least, largest, strict=True))
            lines.append(f"{conv:{width}}  {(largest - least).mean():.2f}  {spans}")
        return "\n".join(lines)


@torch.no_grad()
def coverage(model: DMF, images: NDArray[np.uint8]) -> Coverage:
    """Of the pictures (N, H, W, 3)."""
    convs = [name for name, module in model.named_modules() if isinstance(module, KernelAttention)]
    weights = _routed(model, to_pixels(images)).double()
    names = tuple(name.removesuffix(".kernel_attention") for name in convs)
    return Coverage(names, weights.amin(0).numpy(), weights.amax(0).numpy())


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums are made in the same order, whatever the number of threads: a last bit turns the sign of a gradient."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@one_thread()
@torch.no_grad()
def search(model: DMF, given: NDArray[np.uint8], count: int, seed: int) -> NDArray[np.uint8]:
    """`count` pictures (count, H, W, 3) that together with the given ones widen the ranges of the routing weights.

    One after the other: of `CANDIDATES` random pictures the one that adds most to the mean range, then moved along the
    sign of the gradient of what it adds. A step that doesn't help is taken back and halved; below 1 it ends. Of the
    way there the last picture is taken whose logits float32 can tell, or of a backbone the last feature map.
    """
    random = pictures(CANDIDATES, given.shape[1:3], torch.Generator().manual_seed(seed))
    candidates = ((random * _column(STD) + _column(MEAN)) * 255).round().clamp(0, 255)
    of_given, of_candidates = _routed(model, to_pixels(given)), _routed(model, candidates)
    least, largest = of_given.amin(0), of_given.amax(0)

    def added(weights: Tensor) -> Tensor:
        """(N, L, K) -> by how much each picture widens the ranges, (N)"""
        return ((weights - largest).relu() + (least - weights).relu()).sum((1, 2))

    oracle = copy.deepcopy(model).double()
    found: list[Tensor] = []
    unsettled: list[Tensor] = []
    taken = torch.zeros(CANDIDATES)
    while len(found) < count and taken.isfinite().any():
        first = int((added(of_candidates) - taken).argmax())
        taken[first] = torch.inf
        trail = _climb(model, candidates[[first]], of_candidates[[first]], added)
        settled = [each for each in trail if is_settled(model, oracle, each[0])]
        if not settled:
            unsettled.append(trail[0][0])
            continue
        picture, weights = settled[-1]
        least, largest = torch.minimum(least, weights[0]), torch.maximum(largest, weights[0])
        found.append(picture)
    return torch.cat([*found, *unsettled][:count]).permute(0, 2, 3, 1).byte().numpy()


def _climb(model: DMF, picture: Tensor, weights: Tensor, added: Callable[[Tensor], Tensor]) -> list[Climbed]:
    """From a picture to one that adds more, every step of the way."""
    step, trail = FIRST_STEP, [(picture, weights)]
    for _ in range(CLIMB):
        with torch.enable_grad():
            pixels = picture.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(added(routing_weights(model, pixels)).sum(), pixels)
        while step >= 1:
            moved = (picture + step * gradient.sign()).clamp(0, 255)
            routed = routing_weights(model, moved)
            if added(routed) > added(weights):
                picture, weights = moved, routed
                trail.append((picture, weights))
                break
            step /= 2
    return trail


def is_settled(model: DMF, oracle: DMF, pixels: Tensor) -> bool:
    """Whether float32 suffices to tell what a picture (1, 3, H, W) gives: where it doesn't, any budget is idle.

    `oracle` is the model in float64.
    """
    pixels = pixels.contiguous(memory_format=torch.channels_last)  # as the reference has it: it rounds in its own way
    exact, found = _last(oracle, standardized(pixels.double())), _last(model, standardized(pixels))
    return bool((found - exact).abs().max() <= SETTLED * exact.abs().max())


def _last(model: DMF, images: Tensor) -> Tensor:
    """The logits, or of a backbone the last feature map."""
    given: Tensor | list[Tensor] = model(images)
    return given if isinstance(given, Tensor) else given[-1]


def _routed(model: DMF, pixels: Tensor) -> Tensor:
    """(N, L, K), each picture by itself."""
    return torch.cat([routing_weights(model, picture) for picture in pixels.split(1)])


def routing_weights(model: DMF, pixels: Tensor) -> Tensor:
    """(1, 3, H, W) of 0..255 -> (1, L, K)"""
    collected: list[Tensor] = []
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, pi: collected.append(pi))
        for module in model.modules()
        if isinstance(module, KernelAttention)
    ]
    try:
        model(standardized(pixels))
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(collected, 1)


def to_pixels(images: NDArray[np.uint8]) -> Tensor:
    """uint8 (N, H, W, 3) -> float32 (N, 3, H, W) of 0..255"""
    return torch.from_numpy(images.copy()).permute(0, 3, 1, 2).float()


def standardized(pixels: Tensor) -> Tensor:
    """(N, 3, H, W) of 0..255 -> (x / 255 - mean) / std, in its own dtype"""
    return (pixels / 255 - _column(MEAN, pixels.dtype)) / _column(STD, pixels.dtype)


def _column(values: Sequence[float], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor(values, dtype=dtype)[:, None, None]
