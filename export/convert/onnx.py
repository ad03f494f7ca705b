"""Static graph -> .onnx by PyTorch's exporter, opset 20: GELU, layer norm and hard-swish stay single ops."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import export.detection.mask_rcnn  # noqa: F401 (registers the ops that are translated)
from export.convert.options import Options
from export.static import StaticDMF

OPSET = 20  # the first with Gelu
DECOMPOSED = {"Erf": "GELU", "Tanh": "GELU", "Loop": "control flow", "If": "control flow"}


def convert(graph: nn.Module, example: Tensor, path: Path, options: Options) -> None:
    """Write the .onnx file for inputs like `example`. Raises what the exporter raises, and `RuntimeError`."""
    import onnx

    dynamic_shapes = ({0: torch.export.Dim.DYNAMIC},) if options.dynamic_batch else None
    program = torch.onnx.export(
        graph,
        (example,),
        dynamo=True,
        opset_version=OPSET,
        input_names=["image"],
        output_names=list(options.outputs),
        dynamic_shapes=dynamic_shapes,
        custom_translation_table=translations(),
        external_data=False,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    for key, value in options.metadata.items():
        model.metadata_props.add(key=key, value=value)
    for node in model.graph.node:  # names of source lines and hosts are nobody's business, and change the hash
        del node.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    for node in model.graph.node:
        if isinstance(graph, StaticDMF) and node.op_type in DECOMPOSED:  # a user's own network may hold these
            raise RuntimeError(f"the exporter decomposed {DECOMPOSED[node.op_type]}: {node.op_type} at {node.name}")
    onnx.save(model, path)


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Our own ops, and what writes each in ONNX's."""
    return {torch.ops.dmf.nms.default: write_nms, torch.ops.dmf.roi_align.default: write_roi_align}


def write_nms(boxes: Any, scores: Any, groups: Any, num_groups: int, threshold: float, most: int) -> Any:
    """As a group's scores, those of the others are too low for NonMaxSuppression, which answers group by group."""
    op = opset()
    lowest = op.Constant(value_float=float("-inf"))
    own = op.Equal(op.Unsqueeze(groups, [0]), op.Unsqueeze(op.Constant(value_ints=list(range(num_groups))), [1]))
    by_group = op.Unsqueeze(op.Where(own, op.Unsqueeze(scores, [0]), lowest), [0])  # (1, groups, N)
    above = op.Constant(value_float=torch.finfo(torch.float32).min)
    found = op.NonMaxSuppression(op.Unsqueeze(boxes, [0]), by_group, [most], [threshold], above)
    kept = op.Squeeze(op.Slice(found, [2], [3], [1]), [1])
    kept_scores = op.ScatterElements(op.Expand(lowest, op.Shape(scores)), kept, op.Gather(scores, kept))
    _, order = op.TopK(kept_scores, op.Min(op.Shape(kept), op.Constant(value_ints=[most])))  # of equal scores the first
    return order


def write_roi_align(features: Any, boxes: Any, stride: int, size: int) -> Any:
    op = opset()
    image = op.Expand(op.Constant(value_ints=[0]), op.Shape(boxes, start=0, end=1))
    return op.RoiAlign(
        features,
        boxes,
        image,
        coordinate_transformation_mode="half_pixel",
        output_height=size,
        output_width=size,
        sampling_ratio=2,
        spatial_scale=1 / stride,
    )


def opset() -> Any:
    """ONNX's ops, which are typed for the values of a script, not for what is traced here."""
    from onnxscript import opset20

    return opset20
