"""What an artifact's weights are stored in and what it computes in: one axis with one meaning in every format.

- fp32: everything is float32.
- fp16: weights are stored in fp16. Core ML computes in it, too; the others compute in float32.
- w8: weights are stored in int8, a scale per output channel; activations are float. Kernels that are generated from such
  weights are float, and so is the mixing.
- w8a8: as w8, and activations are int8 where a layer has constant weights, with ranges from calibration images.
"""

from typing import Literal, get_args

Precision = Literal["fp32", "fp16", "w8", "w8a8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
BITS: dict[Precision, int] = {"fp32": 32, "fp16": 16, "w8": 8, "w8a8": 8}  # of a stored weight
