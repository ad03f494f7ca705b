"""Suppression in TFLite, by the custom operator TFLite_Detection_PostProcess, which LiteRT's default resolver knows.

What its kernel does (tensorflow/lite/kernels/detection_postprocess.cc):

- It decodes: boxes are shifts from anchors, as SSD's are. Here the shifts are zero and the anchors are the boxes, as
  centre and size, which one product with a constant makes of corners. Anchors need not be constant. Corners again, a
  coordinate can be off by its last bits.
- A score that equals the threshold stays, so it gets the next float32.
- "Regular" suppression is class by class over all anchors, so one anchor can be two objects. It keeps 100 of a class
  unless told otherwise.
- There is no background: it reads as many classes as the scores have.
- Equal scores of different classes have no order, and no rule says which of them are the last to be kept.
- A box that is upside down is an error of the whole run. None is: the converted detector clips to the image.
- What is behind `count` is zero.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.detection.suppression import count_anchors, least_above
from export.verify.intermediates import read_tflite
from runtime.extras import require
from runtime.manifest import Detection

OPERATOR = "TFLite_Detection_PostProcess"
CENTRE_AND_SIZE = np.array(  # of x1, y1, x2, y2: yc, xc, h, w
    [[0, 0.5, 0, 0.5], [0.5, 0, 0.5, 0], [0, -1, 0, 1], [-1, 0, 1, 0]], np.float32
)


def append(artifact: Path, detection: Detection, num_classes: int) -> None:
    """Rewrite the .tflite file. `ConverterError`: its outputs can't be suppressed."""
    from ai_edge_litert import schema_py_generated as schema

    flatbuffers = require("flatbuffers", extra="tflite")
    model = read_tflite(artifact)
    (graph,), (signature,) = model.subgraphs, model.signatureDefs
    dense = {entry.name.decode(): int(entry.tensorIndex) for entry in signature.outputs}
    given = {name: graph.tensors[index].shape for name, index in dense.items()}
    anchors, most = count_anchors(artifact, given, num_classes), detection.max_detections
    code, kinds = schema.BuiltinOperator, schema.BuiltinOptions

    # filled when it runs, for a constant would be stored: 1.2 MB of zeros for images of 640 x 640
    shape, zero = np.array([1, anchors, 4], np.int32), np.zeros((), np.float32)
    filled = [_constant(model, "shape", shape), _constant(model, "zero", zero)]
    shifts = _tensor(graph, "shifts", (1, anchors, 4))
    fill = _operator(model, code.FILL, filled, [shifts])
    fill.builtinOptionsType, fill.builtinOptions = kinds.FillOptions, schema.FillOptionsT()

    matrix = _constant(model, "centre_and_size", CENTRE_AND_SIZE)
    places = _tensor(graph, "anchors", (anchors, 4))
    product = _operator(model, code.FULLY_CONNECTED, [dense["boxes"], matrix, -1], [places])
    product.builtinOptionsType, product.builtinOptions = kinds.FullyConnectedOptions, schema.FullyConnectedOptionsT()

    shapes = {"boxes": (1, most, 4), "labels": (1, most), "scores": (1, most), "count": (1,)}  # in the operator's order
    outputs = {name: _tensor(graph, name, shape) for name, shape in shapes.items()}
    suppress = _operator(model, code.CUSTOM, [shifts, dense["scores"], places], list(outputs.values()))
    suppress.customOptions = _settings(detection, num_classes)

    graph.outputs = list(outputs.values())
    signature.outputs = [schema.TensorMapT(name=name, tensorIndex=index) for name, index in outputs.items()]
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    artifact.write_bytes(builder.Output())


def _settings(detection: Detection, num_classes: int) -> NDArray[np.uint8]:
    flexbuffers = require("flatbuffers.flexbuffers", extra="tflite")
    settings = {
        "max_detections": detection.max_detections,
        "detections_per_class": detection.max_detections,
        "max_classes_per_detection": 1,  # of the other method, but the outputs' length is a multiple of it
        "use_regular_nms": True,
        "nms_score_threshold": least_above(detection.score_threshold),
        "nms_iou_threshold": float(detection.nms_iou),
        "num_classes": num_classes,
        **dict.fromkeys(("y_scale", "x_scale", "h_scale", "w_scale"), 1.0),
    }
    return np.frombuffer(flexbuffers.Dumps(settings), np.uint8)


def _tensor(graph: Any, name: str, shape: Sequence[int]) -> int:
    """A new float32 tensor's number."""
    from ai_edge_litert import schema_py_generated as schema

    graph.tensors.append(
        schema.TensorT(shape=list(shape), type=schema.TensorType.FLOAT32, name=f"suppression/{name}", hasRank=True)
    )
    return len(graph.tensors) - 1


def _constant(model: Any, name: str, value: NDArray[Any]) -> int:
    from ai_edge_litert import schema_py_generated as schema

    (graph,) = model.subgraphs
    index = _tensor(graph, name, value.shape)
    if value.dtype == np.int32:
        graph.tensors[index].type = schema.TensorType.INT32
    model.buffers.append(schema.BufferT(data=np.frombuffer(value.tobytes(), np.uint8)))
    graph.tensors[index].buffer = len(model.buffers) - 1
    return index


def _operator(model: Any, code: int, inputs: Sequence[int], outputs: Sequence[int]) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    (graph,) = model.subgraphs
    custom = OPERATOR if code == schema.BuiltinOperator.CUSTOM else None
    model.operatorCodes.append(schema.OperatorCodeT(deprecatedBuiltinCode=code, builtinCode=code, customCode=custom))
    operator = schema.OperatorT(len(model.operatorCodes) - 1, list(inputs), list(outputs))
    graph.operators.append(operator)
    return operator
