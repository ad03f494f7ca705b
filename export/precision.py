"""What an artifact's weights are stored in and what it computes in: one axis with one meaning in every format.

- fp32: everything is float32.
- fp16: weights are stored in fp16. Core ML computes in it, too; the others compute in float32.
- w8: weights are stored in int8, a scale per output channel; activations are float. Kernels that are generated from
  such weights are float, and so is the mixing. (Core ML computes in fp16.)
- w8a8: as w8, and activations are int8, with ranges from calibration images, where a format's runtime gains by it: in
  convolutions of constant weights (LiteRT, Core ML) or in linear layers (ONNX Runtime). The manifest names the others.
"""

from collections.abc import Mapping
from typing import Literal, get_args

from export.scopes import is_within

Precision = Literal["fp32", "fp16", "w8", "w8a8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
BITS: dict[Precision, int] = {"fp32": 32, "fp16": 16, "w8": 8, "w8a8": 8}  # of a stored weight

Exceptions = Mapping[str, Precision]
"""Modules, by their PyTorch names, that have another precision than the rest, with all that is inside them."""


def precision_of(module: str, precision: Precision, exceptions: Exceptions) -> Precision:
    """What the innermost exception says that the module is in, or what everything else has."""
    within = [name for name in exceptions if is_within(module, [name])]
    return exceptions[max(within, key=len)] if within else precision
