"""Suppression in Core ML: the package becomes a pipeline of the detector, a small program, and Apple's own model.

What Apple's NonMaximumSuppression does (NonMaximumSuppression.proto), unlike the other formats' operators: an anchor's
class is the one of its highest confidence. So no anchor is two objects, and it suppresses and is suppressed as that one
only. The output keeps the confidences of all classes.

- What falls below the threshold is discarded, so it gets the next float32.
- How many are kept could be limited by the range of the outputs' shape, but nothing says that these would be the
  surest. So all are, and the reader takes the surest.
- Confidence and coordinates must be of one type, double or, since iOS 14, float32 (NonMaximumSuppressionValidator.cpp).
  Programs have no doubles.
- Vision takes the sum of a box's confidences for that of any object and may normalise them; these are independent
  probabilities, whose sum can exceed 1. So it is the model's outputs that an app should read.

Not seen by any test here: Apple's runtime. An open report (github.com/apple/coremltools/issues/2445) has a pipeline of
a detector and this model answer otherwise than the two one after the other, so compare once on a device.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from export.detection.suppression import count_anchors, least_above
from export.verify.intermediates import PROGRAM
from runtime.manifest import Detection

CONFIDENCE, COORDINATES = "confidence", "coordinates"
RAW = {CONFIDENCE: "raw_confidence", COORDINATES: "raw_coordinates"}  # an output and what it is chosen from


def append(
    artifact: Path, detection: Detection, size: tuple[int, int], num_classes: int, labels: Sequence[str] | None
) -> None:
    """Rewrite the .mlpackage folder; its weights stay as they are. Without `labels` classes are 0, 1, ...

    `ConverterError`: its outputs can't be suppressed.
    """
    import coremltools as ct

    detector = ct.utils.load_spec(str(artifact))
    shapes = {each.name: each.type.multiArrayType.shape for each in detector.description.output}
    anchors = count_anchors(artifact, shapes, num_classes)
    shares = _shares(anchors, size, num_classes, detector.specificationVersion)
    suppression = _suppression(shares, detection, labels or range(num_classes))

    pipeline = ct.proto.Model_pb2.Model(specificationVersion=detector.specificationVersion)
    pipeline.description.input.extend(detector.description.input)
    pipeline.description.output.extend(suppression.description.output)
    pipeline.description.metadata.CopyFrom(detector.description.metadata)
    pipeline.pipeline.models.extend([detector, shares, suppression])
    pipeline.pipeline.names.extend(["detector", "shares", "suppression"])
    (artifact / PROGRAM).write_bytes(pipeline.SerializeToString())


def _shares(anchors: int, size: tuple[int, int], num_classes: int, version: int) -> Any:
    """The program that makes centres and sizes, as shares of the image's, of corners in pixels.

    It has no constant of more than two numbers, so none in a file of weights: the package's is the detector's.
    """
    import coremltools as ct
    import numpy as np
    from coremltools.converters.mil import Builder as mb

    target = ct.target(version)
    share = 1 / np.array([size[1], size[0]])

    @mb.program(  # type: ignore[untyped-decorator]
        [mb.TensorSpec((1, anchors, num_classes)), mb.TensorSpec((1, anchors, 4))], opset_version=target
    )
    def program(scores: Any, boxes: Any) -> Any:
        low, high = mb.split(x=mb.squeeze(x=boxes, axes=[0]), num_splits=2, axis=1)
        centre = mb.mul(x=mb.add(x=low, y=high), y=np.float32(share / 2))
        sides = mb.mul(x=mb.sub(x=high, y=low), y=np.float32(share))
        coordinates = mb.concat(values=[centre, sides], axis=1, name=RAW[COORDINATES])
        return mb.squeeze(x=scores, axes=[0], name=RAW[CONFIDENCE]), coordinates

    model = ct.convert(
        program,
        convert_to="mlprogram",
        compute_precision=ct.precision.FLOAT32,
        minimum_deployment_target=target,
        skip_model_load=True,
    )
    return model.get_spec()


def _suppression(shares: Any, detection: Detection, labels: Sequence[str | int]) -> Any:
    import coremltools as ct

    model = ct.proto.Model_pb2.Model(specificationVersion=shares.specificationVersion)
    raw = {each.name: each for each in shares.description.output}
    for name, source in RAW.items():
        model.description.input.append(raw[source])
        array = model.description.output.add(name=name).type.multiArrayType
        array.dataType = raw[source].type.multiArrayType.dataType
        columns = raw[source].type.multiArrayType.shape[1]
        array.shapeRange.sizeRanges.add(lowerBound=0, upperBound=-1)
        array.shapeRange.sizeRanges.add(lowerBound=columns, upperBound=columns)
    nms = model.nonMaximumSuppression
    nms.confidenceInputFeatureName, nms.coordinatesInputFeatureName = RAW[CONFIDENCE], RAW[COORDINATES]
    nms.confidenceOutputFeatureName, nms.coordinatesOutputFeatureName = CONFIDENCE, COORDINATES
    nms.iouThreshold, nms.confidenceThreshold = detection.nms_iou, least_above(detection.score_threshold)
    nms.pickTop.perClass = True
    classes = nms.stringClassLabels if isinstance(labels[0], str) else nms.int64ClassLabels
    classes.vector.extend(labels)
    return model
