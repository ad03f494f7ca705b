"""A float artifact -> the same in fewer bits: its weights, and perhaps its activations. Each format by its own tool."""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.quantize.weights import Left, Weights

Quantize = Callable[[Path, Weights, Sequence[NDArray[np.float32]] | None], list[Left]]


def quantizer(format: str) -> Quantize:
    """What rewrites an artifact of this format: in place, with inputs like the artifact's if activations are int8."""
    quantize: Quantize = importlib.import_module(f"export.quantize.{format}").quantize
    return quantize
