"""Golden vectors.

A few images and the float64 reference's logits for them, in ``golden.safetensors``.

Tensors ``images`` uint8 ``(N, H, W, 3)`` RGB, cropped and not yet normalised, ``logits`` float64
``(N, classes)``, and, whenever the exporter knew them, ``frozen_logits`` float64: what a network would
answer that routed every image like the first one. The metadata's ``names`` is a JSON array of N
names. One file serves the Python, Kotlin and Swift tests.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime.errors import UsageError
from runtime.extras import require


@dataclass(frozen=True, eq=False)
class Golden:
    """``images`` uint8 (N, H, W, 3), ``logits`` float64 (N, classes), ``names`` N; ``frozen_logits``
    like ``logits`` or None.

    ValueError for anything else.
    """

    images: NDArray[np.uint8]
    logits: NDArray[np.float64]
    names: tuple[str, ...]
    frozen_logits: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[-1] != 3:
            raise ValueError(f"images must be uint8 (N, H, W, 3), not {self.images.dtype} {self.images.shape}")
        if self.logits.dtype != np.float64 or self.logits.ndim != 2:
            raise ValueError(f"logits must be float64 (N, classes), not {self.logits.dtype} {self.logits.shape}")
        if self.frozen_logits is not None and self.frozen_logits.shape != self.logits.shape:
            raise ValueError(f"frozen_logits are {self.frozen_logits.shape}, logits {self.logits.shape}")
        if not len(self.images) == len(self.logits) == len(self.names) > 0:
            raise ValueError(
                f"{len(self.images)} images, {len(self.logits)} rows of logits and "
                f"{len(self.names)} names must be as many, and at least one"
            )


def write_golden(path: Path | str, golden: Golden) -> None:
    """Write the vectors to ``path``."""
    safetensors = require("safetensors.numpy", extra="onnx")
    tensors = {
        "images": np.ascontiguousarray(golden.images),
        "logits": np.ascontiguousarray(golden.logits),
    }
    if golden.frozen_logits is not None:
        tensors["frozen_logits"] = np.ascontiguousarray(golden.frozen_logits)
    names = json.dumps(golden.names, ensure_ascii=False)
    Path(path).write_bytes(safetensors.save(tensors, metadata={"names": names}))


def read_golden(path: Path | str) -> Golden:
    """The vectors at ``path``. UsageError: no such file, or not golden vectors."""
    safetensors = require("safetensors", extra="onnx")
    try:
        with safetensors.safe_open(str(path), framework="numpy") as file:
            names = json.loads((file.metadata() or {})["names"])
            frozen = file.get_tensor("frozen_logits") if "frozen_logits" in file.keys() else None  # noqa: SIM118 (not a dict)
            return Golden(file.get_tensor("images"), file.get_tensor("logits"), tuple(names), frozen)
    except (OSError, KeyError, ValueError, TypeError, safetensors.SafetensorError) as error:
        raise UsageError(f"{path}: not golden vectors: {error}") from error
