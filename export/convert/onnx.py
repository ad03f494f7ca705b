"""Static graph -> .onnx by PyTorch's exporter, opset 20: GELU, layer norm and hard-swish stay single ops."""

from pathlib import Path

import torch
from torch import Tensor, nn

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
