"""Golden vectors: what an artifact must answer, and what its modules must compute, for a few images.

``golden.safetensors`` can be read in any language: Python does, and Kotlin and Swift will. Its tensors, for N images:

- ``images`` uint8 ``(N, H, W, 3)`` RGB, cropped and not yet normalised; ``logits`` float64 ``(N, classes)`` of the
  float64 reference; ``budgets`` float64 ``(N)``, by how much a logit of each image may differ from them;
- whenever the exporter knew them, ``frozen_logits`` float64 ``(N, classes)``: what a network would answer that routed
  every image like the first one;
- ``module_sketches`` float32 ``(T, N, 64)`` of the outputs of T modules (``runtime/sketch.py``), and ``module_budgets``
  float64 ``(T, N)``, by how much the norm of a sketch may differ from them.

Its metadata holds JSON: ``names`` of the N images; ``modules``, T of ``{"module": ..., "tensors": [...]}`` in the order
in which PyTorch runs them; ``untapped``, the modules whose outputs the artifact does not hold.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import UsageError
from runtime.extras import require
from runtime.sketch import SUMS


@dataclass(frozen=True, eq=False)
class Taps:
    """Where an artifact holds its modules' outputs, and what they must be.

    Per module its PyTorch name, and the tensors that are its output, one after the other: names, in TFLite numbers.
    ``sketches`` float32 (T, N, 64), ``budgets`` float64 (T, N). ValueError for anything else.
    """

    modules: tuple[str, ...]
    tensors: tuple[tuple[str, ...], ...]
    sketches: NDArray[np.float32]
    budgets: NDArray[np.float64]
    untapped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = self.sketches.shape
        if self.sketches.dtype != np.float32 or len(shape) != 3 or shape[-1] != SUMS:
            raise ValueError(f"sketches must be float32 (T, N, {SUMS}), not {self.sketches.dtype} {shape}")
        if self.budgets.dtype != np.float64 or self.budgets.shape != shape[:2]:
            raise ValueError(f"budgets must be float64 (T, N), not {self.budgets.dtype} {self.budgets.shape}")
        if not len(self.modules) == len(self.tensors) == len(self.sketches):
            raise ValueError(f"{len(self.modules)} modules have {len(self.sketches)} sketches; they must be as many")


@dataclass(frozen=True, eq=False)
class Golden:
    """``images`` uint8 (N, H, W, 3), ``logits`` float64 (N, classes), ``budgets`` float64 (N), ``names`` N;
    ``frozen_logits`` like ``logits`` or None; ``taps`` of the same N images, or None.

    ValueError for anything else.
    """

    images: NDArray[np.uint8]
    logits: NDArray[np.float64]
    budgets: NDArray[np.float64]
    names: tuple[str, ...]
    frozen_logits: NDArray[np.float64] | None = None
    taps: Taps | None = None

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[-1] != 3:
            raise ValueError(f"images must be uint8 (N, H, W, 3), not {self.images.dtype} {self.images.shape}")
        if self.logits.dtype != np.float64 or self.logits.ndim != 2:
            raise ValueError(f"logits must be float64 (N, classes), not {self.logits.dtype} {self.logits.shape}")
        if self.budgets.dtype != np.float64 or self.budgets.shape != self.logits.shape[:1]:
            raise ValueError(f"budgets must be float64 (N), not {self.budgets.dtype} {self.budgets.shape}")
        if self.frozen_logits is not None and self.frozen_logits.shape != self.logits.shape:
            raise ValueError(f"frozen_logits are {self.frozen_logits.shape}, logits {self.logits.shape}")
        if self.taps is not None and self.taps.sketches.shape[1] != len(self.images):
            raise ValueError(f"the sketches are of {self.taps.sketches.shape[1]} images, not of {len(self.images)}")
        if not len(self.images) == len(self.logits) == len(self.names) > 0:
            raise ValueError(
                f"{len(self.images)} images, {len(self.logits)} rows of logits and "
                f"{len(self.names)} names must be as many, and at least one"
            )


def write_golden(path: Path | str, golden: Golden) -> None:
    """Write the vectors to ``path``."""
    safetensors = require("safetensors.numpy", extra="onnx")
    tensors: dict[str, NDArray[Any]] = {
        "images": golden.images,
        "logits": golden.logits,
        "budgets": golden.budgets,
    }
    metadata: dict[str, Any] = {"names": golden.names}
    if golden.frozen_logits is not None:
        tensors["frozen_logits"] = golden.frozen_logits
    if (taps := golden.taps) is not None:
        tensors |= {"module_sketches": taps.sketches, "module_budgets": taps.budgets}
        modules = zip(taps.modules, taps.tensors, strict=True)
        metadata["modules"] = [{"module": module, "tensors": names} for module, names in modules]
        metadata["untapped"] = taps.untapped
    content = safetensors.save(
        {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()},
        metadata={key: json.dumps(value, ensure_ascii=False) for key, value in metadata.items()},
    )
    Path(path).write_bytes(content)


def read_golden(path: Path | str) -> Golden:
    """The vectors at ``path``. UsageError: no such file, or not golden vectors."""
    safetensors = require("safetensors", extra="onnx")
    try:
        with safetensors.safe_open(str(path), framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            metadata = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
        return Golden(
            tensors["images"],
            tensors["logits"],
            tensors["budgets"],
            tuple(metadata["names"]),
            tensors.get("frozen_logits"),
            _taps(tensors, metadata) if "modules" in metadata else None,
        )
    except (OSError, KeyError, ValueError, TypeError, safetensors.SafetensorError) as error:
        raise UsageError(f"{path}: not golden vectors: {error}; export the package again") from error


def _taps(tensors: dict[str, NDArray[Any]], metadata: dict[str, Any]) -> Taps:
    return Taps(
        tuple(entry["module"] for entry in metadata["modules"]),
        tuple(tuple(entry["tensors"]) for entry in metadata["modules"]),
        tensors["module_sketches"],
        tensors["module_budgets"],
        tuple(metadata["untapped"]),
    )
