"""Runs a saved Core ML pipeline on a machine without Core ML: its programs op by op, its suppression as documented.

`MilInterpreter` runs the programs; NonMaximumSuppression is written here from the comments of its proto file, in
float64. Where those leave it open, this is what is assumed: what overlaps by the threshold exactly stays, of equal
confidences the first row is the surest, and an output whose number of rows is limited holds the surest.

What this does not prove: Apple's runtime was not run.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.verify.mil_interpreter import Compute, MilInput, MilInterpreter

Array = NDArray[Any]


def is_pipeline(package: Path) -> bool:
    """Whether it holds several models, one behind the other."""
    from coremltools.models.utils import load_spec

    return bool(load_spec(str(package)).WhichOneof("Type") == "pipeline")


class CoreMLPipeline:
    """A saved pipeline, ready to run: `CoreMLPipeline(package).run({"image": array})`.

    Raises `ValueError` for a package that is none, or that holds a model of another type than a program or suppression.
    """

    def __init__(self, package: Path, compute: Compute = "float32") -> None:
        from coremltools.models.utils import load_spec

        spec = load_spec(str(package))
        if spec.WhichOneof("Type") != "pipeline":
            raise ValueError(f"{package} is not a pipeline")
        self._models = [_opened(package, model, compute) for model in spec.pipeline.models]
        self.inputs: tuple[MilInput, ...] = self._models[0].inputs
        self.outputs: tuple[str, ...] = tuple(feature.name for feature in spec.description.output)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Every output of the pipeline by name, in its declared type."""
        values = dict(inputs)
        for model in self._models:
            values |= model.run({each.name: values[each.name] for each in model.inputs})
        return {name: values[name] for name in self.outputs}


class Suppression:
    """A NonMaximumSuppression model: confidences (N, K) and coordinates (N, 4) -> those of the rows that are kept."""

    def __init__(self, spec: Any) -> None:
        self._model = spec.nonMaximumSuppression
        if self._model.WhichOneof("SuppressionMethod") != "pickTop":
            raise ValueError("the suppression of a pipeline is not of the method pickTop")
        self.inputs = tuple(
            MilInput(each.name, tuple(each.type.multiArrayType.shape), "fp32") for each in spec.description.input
        )
        (self._limit,) = {
            each.type.multiArrayType.shapeRange.sizeRanges[0].upperBound for each in spec.description.output
        }

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        model = self._model
        confidence, coordinates = (
            inputs[name] for name in (model.confidenceInputFeatureName, model.coordinatesInputFeatureName)
        )
        best = confidence.astype(np.float64).max(1)
        groups = confidence.argmax(1) if model.pickTop.perClass else np.zeros(len(best), np.int64)
        order, kept = np.argsort(-best, kind="stable"), list[np.int64]()
        left = order[best[order] >= model.confidenceThreshold]
        while len(left) and (self._limit < 0 or len(kept) < self._limit):
            top, left = left[0], left[1:]
            kept.append(top)
            near = _overlaps(coordinates[top], coordinates[left]) > model.iouThreshold
            left = left[~(near & (groups[left] == groups[top]))]
        rows = np.array(kept, np.int64)
        return {
            model.confidenceOutputFeatureName: confidence[rows],
            model.coordinatesOutputFeatureName: coordinates[rows],
        }


def _opened(package: Path, model: Any, compute: Compute) -> MilInterpreter | Suppression:
    kind = model.WhichOneof("Type")
    if kind == "mlProgram":
        return MilInterpreter(package, compute, spec=model)
    if kind == "nonMaximumSuppression":
        return Suppression(model)
    raise ValueError(f"{package} holds a model of type {kind}; only mlProgram and nonMaximumSuppression are run")


def _overlaps(box: Array, boxes: Array) -> NDArray[np.float64]:
    """Intersection over union of one box (4) and others (N, 4), all centre x, y, width, height; 0 without an area."""
    (x, y, w, h), (xs, ys, ws, hs) = box.astype(np.float64), boxes.astype(np.float64).T
    wide = np.minimum(x + w / 2, xs + ws / 2) - np.maximum(x - w / 2, xs - ws / 2)
    high = np.minimum(y + h / 2, ys + hs / 2) - np.maximum(y - h / 2, ys - hs / 2)
    intersection = wide.clip(0) * high.clip(0)
    return intersection / np.maximum(w * h + ws * hs - intersection, np.finfo(np.float64).tiny)
