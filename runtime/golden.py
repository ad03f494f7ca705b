"""Golden vectors: what an artifact must answer, and what its modules must compute, for a few images.

``golden.safetensors`` can be read in any language: Python, Kotlin and Swift do. Its tensors, for N images:

- ``images`` uint8 ``(N, H, W, 3)`` RGB, cropped or padded and not yet normalised;
- of a classifier, ``logits`` float64 ``(N, classes)`` of the float64 reference; ``budgets`` float64 ``(N)``, by how
  much a logit of each image may differ from them; whenever the exporter knew them, ``frozen_logits`` float64
  ``(N, classes)``: what a network would answer that routed every image like the first one;
- of a detector, up to M objects of each image (``runtime/detections.py``): ``object_boxes`` float64 ``(N, M, 4)``,
  ``object_scores`` float64 ``(N, M)``, ``object_labels`` int64 ``(N, M)``, -1 where there is none, ``object_decided``
  uint8 ``(N, M)``, and ``object_masks`` uint8 ``(N, M, 28, 28)``, 0 or 1, if it has masks; ``score_budgets`` float64
  ``(N)``, by how much a score may differ; ``output_sketches`` float32 ``(O, N, 64)`` and ``output_budgets`` float64
  ``(O, N)`` of O outputs;
- ``module_sketches`` float32 ``(T, N, 64)`` of the outputs of T modules (``runtime/sketch.py``), and ``module_budgets``
  float64 ``(T, N)``, by how much the norm of a sketch may differ from them.

Its metadata holds JSON: ``names`` of the N images; of a detector, ``iou``, from which on two boxes match, and
``outputs``, the names of the O outputs; ``modules``, T of ``{"module": ..., "tensors": [...]}`` in the order
in which PyTorch runs them; ``untapped``, the modules whose outputs the artifact does not hold.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.detections import Detections, Expected
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
        _check_images(self.images, self.names, self.taps)
        if self.logits.dtype != np.float64 or self.logits.ndim != 2:
            raise ValueError(f"logits must be float64 (N, classes), not {self.logits.dtype} {self.logits.shape}")
        if self.budgets.dtype != np.float64 or self.budgets.shape != self.logits.shape[:1]:
            raise ValueError(f"budgets must be float64 (N), not {self.budgets.dtype} {self.budgets.shape}")
        if self.frozen_logits is not None and self.frozen_logits.shape != self.logits.shape:
            raise ValueError(f"frozen_logits are {self.frozen_logits.shape}, logits {self.logits.shape}")
        if len(self.logits) != len(self.images):
            raise ValueError(f"{len(self.images)} images and {len(self.logits)} rows of logits must be as many")


@dataclass(frozen=True, eq=False)
class GoldenObjects:
    """What a detector must find: ``images`` uint8 (N, H, W, 3), ``names`` N, ``expected`` N, which match from ``iou``
    on if their scores differ by at most ``score_budgets`` float64 (N).

    Its O outputs, by name: ``sketches`` float32 (O, N, 64), ``budgets`` float64 (O, N), by how much a sketch's norm may
    differ; none where the graph suppresses. ``taps`` of the same N images, or None. ValueError for anything else.
    """

    images: NDArray[np.uint8]
    names: tuple[str, ...]
    expected: tuple[Expected, ...]
    iou: float
    score_budgets: NDArray[np.float64]
    outputs: tuple[str, ...]
    sketches: NDArray[np.float32]
    budgets: NDArray[np.float64]
    taps: Taps | None = None

    def __post_init__(self) -> None:
        _check_images(self.images, self.names, self.taps)
        count = len(self.images)
        if not len(self.expected) == len(self.score_budgets) == count:
            raise ValueError(
                f"{count} images have the objects of {len(self.expected)}, {len(self.score_budgets)} budgets"
            )
        if self.sketches.dtype != np.float32 or self.sketches.shape != (len(self.outputs), count, SUMS):
            raise ValueError(f"sketches must be float32 (O, {count}, {SUMS}), not {self.sketches.shape}")
        if self.budgets.dtype != np.float64 or self.budgets.shape != self.sketches.shape[:2]:
            raise ValueError(f"budgets must be float64 (O, {count}), not {self.budgets.dtype} {self.budgets.shape}")


def _check_images(images: NDArray[Any], names: tuple[str, ...], taps: Taps | None) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"images must be uint8 (N, H, W, 3), not {images.dtype} {images.shape}")
    if not len(images) == len(names) > 0:
        raise ValueError(f"{len(images)} images and {len(names)} names must be as many, and at least one")
    if taps is not None and taps.sketches.shape[1] != len(images):
        raise ValueError(f"the sketches are of {taps.sketches.shape[1]} images, not of {len(images)}")


def write_golden(path: Path | str, golden: Golden | GoldenObjects) -> None:
    """Write the vectors to ``path``."""
    safetensors = require("safetensors.numpy", extra="onnx")
    tensors: dict[str, NDArray[Any]] = {"images": golden.images}
    metadata: dict[str, Any] = {"names": golden.names}
    if isinstance(golden, GoldenObjects):
        tensors |= _object_tensors(golden.expected)
        tensors |= {"score_budgets": golden.score_budgets}
        tensors |= {"output_sketches": golden.sketches, "output_budgets": golden.budgets}
        metadata |= {"iou": golden.iou, "outputs": golden.outputs}
    else:
        tensors |= {"logits": golden.logits, "budgets": golden.budgets}
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


def read_golden(path: Path | str) -> Golden | GoldenObjects:
    """The vectors at ``path``, a detector's if it has objects. UsageError: no such file, or not golden vectors."""
    safetensors = require("safetensors", extra="onnx")
    try:
        with safetensors.safe_open(str(path), framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            metadata = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
        taps = _taps(tensors, metadata) if "modules" in metadata else None
        if "object_boxes" in tensors:
            return GoldenObjects(
                tensors["images"],
                tuple(metadata["names"]),
                _expected(tensors),
                float(metadata["iou"]),
                tensors["score_budgets"],
                tuple(metadata["outputs"]),
                tensors["output_sketches"],
                tensors["output_budgets"],
                taps,
            )
        return Golden(
            tensors["images"],
            tensors["logits"],
            tensors["budgets"],
            tuple(metadata["names"]),
            tensors.get("frozen_logits"),
            taps,
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


def _object_tensors(expected: tuple[Expected, ...]) -> dict[str, NDArray[Any]]:
    """The objects of every image as rows of one length; labels of rows that hold none are -1."""
    most = max(1, *(len(each.objects) for each in expected))

    def rows(values: list[NDArray[Any]], fill: int = 0) -> NDArray[Any]:
        padded = np.full((len(values), most, *values[0].shape[1:]), fill, values[0].dtype)
        for row, value in zip(padded, values, strict=True):
            row[: len(value)] = value
        return padded

    objects = [each.objects for each in expected]
    tensors = {
        "object_boxes": rows([each.boxes for each in objects]),
        "object_scores": rows([each.scores for each in objects]),
        "object_labels": rows([each.labels for each in objects], fill=-1),
        "object_decided": rows([each.decided.astype(np.uint8) for each in expected]),
    }
    masks = [(each.masks >= 0.5).astype(np.uint8) for each in objects if each.masks is not None]
    return tensors | {"object_masks": rows(masks)} if masks else tensors


def _expected(tensors: dict[str, NDArray[Any]]) -> tuple[Expected, ...]:
    boxes, scores, labels, decided = (tensors[f"object_{name}"] for name in ("boxes", "scores", "labels", "decided"))
    masks = tensors.get("object_masks")
    rows = {each.shape[:2] for each in (boxes, labels, decided, *([] if masks is None else [masks]))}
    if scores.ndim != 2 or boxes.shape[2:] != (4,) or rows != {scores.shape}:
        raise ValueError(f"object_boxes {boxes.shape}, object_scores {scores.shape} and the rest are not of one shape")
    return tuple(
        Expected(
            Detections(
                boxes[i, is_one],
                scores[i, is_one],
                labels[i, is_one],
                None if masks is None else masks[i, is_one].astype(np.float64),
            ),
            decided[i, is_one].astype(bool),
        )
        for i, is_one in enumerate(labels >= 0)
    )
