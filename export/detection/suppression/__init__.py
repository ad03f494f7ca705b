"""Non-maximum suppression appended to a converted detector, which then answers with objects, not with every anchor.

It is each format's own operator, so that a phone runs no code of ours for it; each module says what its operator does
differently. What the artifact answered before, `scores` (1, A, K) from 0 to 1 and `boxes` (1, A, 4) as x1, y1, x2, y2
in pixels, becomes internal. What it answers then (`runtime/detections.py` reads it):

- ONNX: `boxes` (N, 4), `scores` (N), `labels` (N) int64, by falling score;
- TFLite: `boxes` (1, M, 4) as y1, x1, y2, x2, `labels` (1, M), `scores` (1, M), `count` (1), all float32;
- Core ML: `confidence` (N, K) and `coordinates` (N, 4), shares of the image's sides.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from runtime.errors import ConverterError
from runtime.manifest import Detection


def append_suppression(
    format: str,
    artifact: Path,
    detection: Detection,
    size: tuple[int, int],
    num_classes: int,
    labels: Sequence[str] | None = None,
) -> None:
    """Rewrite `artifact` in place. `size` is its images' height and width; only Core ML takes names of the classes.

    `ConverterError`: its outputs are not the `scores` (1, A, `num_classes`) and `boxes` (1, A, 4) of one image.
    """
    if format == "onnx":
        from export.detection.suppression import onnx

        onnx.append(artifact, detection, num_classes)
    elif format == "tflite":
        from export.detection.suppression import tflite

        tflite.append(artifact, detection, num_classes)
    else:
        from export.detection.suppression import coreml

        coreml.append(artifact, detection, size, num_classes, labels)


def count_anchors(artifact: Path, shapes: Mapping[str, Sequence[int]], num_classes: int) -> int:
    """A, by the shapes of what a detector answers. `ConverterError`: it isn't what can be suppressed."""
    found = {name: tuple(map(int, shape)) for name, shape in shapes.items()}
    anchors = found.get("boxes", (1, 0))[1]
    if found != {"scores": (1, anchors, num_classes), "boxes": (1, anchors, 4)}:
        answers = ", ".join(f"{name} {shape}" for name, shape in found.items())
        raise ConverterError(
            f"{artifact}: its outputs are {answers}; suppression needs scores (1, A, {num_classes}) and"
            " boxes (1, A, 4): export the detector decoded, for batch 1"
        )
    return anchors


def least_above(threshold: float) -> float:
    """The least float32 score above a threshold, for operators that keep what equals theirs."""
    return float(np.nextafter(np.float32(threshold), np.float32(np.inf)))
