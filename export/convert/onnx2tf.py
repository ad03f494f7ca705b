"""Static graph -> ONNX -> .tflite by onnx2tf 1.28.8, in a process of its own that needs no network.

onnx2tf takes every tensor for NCHW and guesses, operator by operator, how to turn it into NHWC. It reads an operator
literally where the tensors that it has built have the shapes that the ONNX graph gives them. So the graph that it gets
lies in NHWC already, its input is declared as it is, and only convolutions stand between transposes. Nothing is left to
guess then, and "strict mode", which looks for permutations by running the graph built so far, can be off: two minutes
for DMF-XXS. The result is one XNNPACK partition without transposes.

What 1.28.8 gets wrong, and what is done about it here:

- (B, n, n) and (B, n, n, n) look the same in both layouts, and it takes them for transposed: `tokens_in_two_dimensions`
  avoids the first, `refuse_ambiguous` refuses the second.
- Of two operands of different ranks, the constant one first, it transposes the wrong one: `equal_ranks`.
- It makes a depthwise convolution behind a transpose a grouped one, which is slow: `keep_layout` takes the transpose
  away.
- Gather of one index, and Split into more than four, become ops that XNNPACK leaves out: `slices_for_gathers`,
  `slices_for_splits`.
- It downloads pictures unless a file of a certain name lies in the working directory: a stand-in does.
- If it can run the graph on those pictures it tries all permutations of each MatMul. It resizes them as NCHW, so here
  it can't, and says so in the log.
- If a conversion fails and it knows the graph's path, it looks for parameters for minutes: it is given the graph alone.
- It declares no requirements: `CONVERTERS` and the extra in pyproject.toml name them.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import accumulate, count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from export.convert import onnx as to_onnx
from export.convert.options import Options
from export.layout import NHWC, Layout
from export.lowering.conv import Conv
from export.static import StaticDMF

LAYOUT: Layout = NHWC(tuned=False)
LOWERING = "matmul/taps"
REFUSED = "a convolution whose filter is computed, which onnx2tf 1.28.8 can't convert"  # the conv forms
INPUT = "image"
TOLERANCE = 1e-3  # of the largest logit: float32 graphs of the same operations; a wrong layout is off by about 1

# Run with the directory of model.onnx as the working directory.
PROGRAM = f"""
import numpy as np, onnx
np.save("calibration_image_sample_data_20x128x128x3_float32.npy", np.zeros((20, 128, 128, 3), np.float32))
import onnx2tf
onnx2tf.convert(
    onnx_graph=onnx.load("model.onnx"),
    output_folder_path="converted",
    output_signaturedefs=True,
    not_use_onnxsim=True,
    not_use_opname_auto_generate=True,
    keep_shape_absolutely_input_names=["{INPUT}"],
    disable_strict_mode=True,
    param_replacement_file="parameters.json",
    verbosity="info",
)
from tensorflow.lite.tools import flatbuffer_utils
model = flatbuffer_utils.read_model("converted/model_float32.tflite")
(graph,) = model.subgraphs
graph.tensors[graph.inputs[0]].name, graph.tensors[graph.outputs[0]].name = b"{INPUT}", b"logits"  # not Identity
flatbuffer_utils.write_model(model, "converted/model_float32.tflite")
"""


def convert(graph: StaticDMF, example: Tensor, path: Path, options: Options) -> None:
    """Write the .tflite file of a graph lowered with `LAYOUT`, for inputs like `example` (1, H, W, 3).

    Raises `ValueError` for a graph that onnx2tf can't convert, before any work;
    `RuntimeError` if onnx2tf fails, or if its result is not the graph.
    """
    check(graph, example)
    with tempfile.TemporaryDirectory(prefix="onnx2tf-", dir=options.log.parent) as directory:
        traced = Path(directory) / "traced.onnx"
        to_onnx.convert(graph, example, traced, options)
        shape_for_onnx2tf(traced, Path(directory) / "model.onnx", Path(directory) / "parameters.json")
        converted = run_onnx2tf(Path(directory), options.log)
        try:
            verify(converted, traced)
        except RuntimeError as error:
            raise RuntimeError(f"{error}; see {options.log}") from error
        path.write_bytes(converted.read_bytes())


def check(graph: StaticDMF, example: Tensor) -> None:
    layouts = (graph.layout.name, graph.input_layout.name)
    if layouts != ("NHWC", "NHWC"):
        raise ValueError(f"onnx2tf needs an NHWC graph with NHWC input, not {', '.join(layouts)}")
    if example.ndim != 4 or example.shape[0] != 1 or example.shape[3] != 3:
        raise ValueError(f"onnx2tf needs an example (1, H, W, 3), not {tuple(example.shape)}")
    if computed := [name for name, module in graph.named_modules() if isinstance(module, Conv)]:
        raise ValueError(f"{computed[0]} is {REFUSED}; lower with {LOWERING} or matmul/bank")


def shape_for_onnx2tf(traced: Path, shaped: Path, parameters: Path) -> None:
    """Write `traced` again so that nothing is left to guess, and the file of parameters that goes with it."""
    import onnx
    import onnx_ir as ir
    import onnxslim
    from onnx_ir.passes import common

    model = ir.from_proto(onnxslim.slim(onnx.load(traced)))  # folds what is constant, a bank's kernels for one
    for rewrite in PASSES:
        rewrite(model.graph)
        common.RemoveUnusedNodesPass()(model)
    common.NameFixPass()(model)
    for i, node in enumerate(model.graph):
        node.name = f"node_{i}"  # what the parameters go by
    operations = [keep_layout(node) for node in transposes_to_nchw(model.graph)]
    ir.save(model, shaped)
    parameters.write_text(json.dumps({"format_version": 1, "operations": operations}))


def static_reshapes(graph: Any) -> None:
    """Unsqueeze, Squeeze, Flatten and Reshape are all written as Reshape to a constant shape."""
    for node in list(graph):
        if node.op_type in ("Unsqueeze", "Squeeze", "Flatten", "Reshape"):
            replace(node, reshape(graph, node, node.inputs[0], dims(node.outputs[0])))


def slices_for_gathers(graph: Any) -> None:
    """Gather of one constant index -> Slice, whose length-1 axis a Reshape drops."""
    for node in list(graph):
        if node.op_type == "Gather" and is_constant(node.inputs[1]) and node.inputs[1].const_value.size == 1:
            x, axis = node.inputs[0], node.attributes.get_int("axis", 0)
            index = int(node.inputs[1].const_value.numpy().item()) % dims(x)[axis]
            shape = [1 if i == axis else d for i, d in enumerate(dims(x))]
            ends = [constant(graph, [v]) for v in (index, index + 1, axis)]
            replace(node, reshape(graph, node, insert(node, "Slice", [x, *ends], {}, shape), dims(node.outputs[0])))


def slices_for_splits(graph: Any) -> None:
    """Split into more than four -> Slices."""
    for node in list(graph):
        if node.op_type == "Split" and len(node.outputs) > 4:
            x = node.inputs[0]
            axis = node.attributes.get_int("axis", 0) % len(dims(x))
            ends = [0, *accumulate(dims(o)[axis] for o in node.outputs)]
            where = [[constant(graph, [v]) for v in (*ends[i : i + 2], axis)] for i in range(len(node.outputs))]
            parts = zip(where, node.outputs, strict=True)
            replace(node, *(insert(node, "Slice", [x, *w], {}, dims(o)) for w, o in parts))


def tokens_in_two_dimensions(graph: Any) -> None:
    """What has to do with an ambiguous (1, n, n) works on (n, n), between reshapes that `merge_reshapes` joins.

    Not everything does, because a delegate takes a product with a computed transposed operand from rank 3 only.
    """
    for node in list(graph):
        operands = operands_of(node)
        values = [*operands, *node.outputs]
        if not any(map(ambiguous, values)) or any(len(dims(v)) != 3 or dims(v)[0] != 1 for v in values):
            continue
        attributes = dict(node.attributes)
        inputs = list(node.inputs)
        if node.op_type == "Transpose" and node.attributes.get_ints("perm") == (0, 2, 1):
            attributes = {"perm": [1, 0]}
        elif node.op_type in ("Concat", "Split", "Softmax") and node.attributes.get_int("axis", -1) % 3:
            attributes["axis"] = node.attributes.get_int("axis", -1) % 3 - 1
        elif node.op_type == "Slice" and (axes := node.inputs[3].const_value.numpy() % 3).all():
            inputs[3] = constant(graph, [int(axis) - 1 for axis in axes])
        elif node.op_type not in ("Add", "Sub", "Mul", "Div", "Gelu", "Sqrt", "Reciprocal"):
            continue
        inputs = [reshape(graph, node, v, dims(v)[1:]) if any(v is o for o in operands) else v for v in inputs]
        results = insert_all(node, node.op_type, inputs, attributes, [dims(o)[1:] for o in node.outputs])
        replace(node, *(reshape(graph, node, r, dims(o)) for r, o in zip(results, node.outputs, strict=True)))


def equal_ranks(graph: Any) -> None:
    """Operands of Add, Sub, Mul and Div get leading ones up to the rank of the result, a scalar constant excepted."""
    for node in list(graph):
        if node.op_type in ("Add", "Sub", "Mul", "Div"):
            rank = len(dims(node.outputs[0]))
            for i, value in enumerate(node.inputs):
                if 0 < len(dims(value)) < rank:
                    shape = [1] * (rank - len(dims(value))) + dims(value)
                    node.replace_input_with(i, reshape(graph, node, value, shape))


def merge_reshapes(graph: Any) -> None:
    """A Reshape of a Reshape is one Reshape; one that changes nothing is none."""
    for node in list(graph):
        if node.op_type == "Reshape":
            source = node.inputs[0]
            while (producer := source.producer()) is not None and producer.op_type == "Reshape":
                source = producer.inputs[0]
            node.replace_input_with(0, source)
            if dims(source) == dims(node.outputs[0]) and not node.outputs[0].is_graph_output():
                node.outputs[0].replace_all_uses_with(source)


def refuse_ambiguous(graph: Any) -> None:
    """Raise `ValueError` if an ambiguous tensor is left. `MatMul` is excepted: onnx2tf takes it literally."""
    for node in graph:
        for value in node.outputs:
            read_by = [user.op_type for user in value.consumers()]
            if ambiguous(value) and node.op_type != "MatMul" and set(read_by) != {"MatMul"}:
                raise ValueError(
                    f"onnx2tf can't tell the layout of {tuple(dims(value))}, the output of {node.op_type} {node.name}:"
                    " its sides are all the same. Choose another image size, or another converter"
                )


PASSES: list[Callable[[Any], None]] = [
    static_reshapes,
    slices_for_gathers,
    slices_for_splits,
    tokens_in_two_dimensions,
    equal_ranks,
    merge_reshapes,  # after all that insert reshapes
    refuse_ambiguous,  # last, about the graph that onnx2tf gets
]


def transposes_to_nchw(graph: Any) -> list[Any]:
    """The transposes before the convolutions. Raises `ValueError` for any other of feature maps to NCHW."""
    found = [n for n in graph if n.op_type == "Transpose" and n.attributes.get_ints("perm") == (0, 3, 1, 2)]
    for node in found:
        if others := [user.op_type for user in node.outputs[0].consumers() if user.op_type != "Conv"]:
            raise ValueError(f"{node.name} makes an NCHW feature map for {others[0]}; only convolutions may read one")
    return found


def keep_layout(transpose: Any) -> dict[str, Any]:
    """An operation of the parameter file: this transpose does nothing, as TensorFlow's convolution reads NHWC."""
    return {
        "op_name": transpose.name,
        "param_target": "attributes",
        "param_name": "perm",
        "values": [0, 1, 2, 3],
    }


def dims(value: Any) -> list[int]:
    """The static shape of a value. Raises `ValueError` if it has none."""
    if value.shape is None or not value.shape.is_static():
        raise ValueError(f"{value.name} has no static shape")
    return list(value.shape.numpy())


def ambiguous(value: Any) -> bool:
    """Whether the shape is the same with the channels first or last."""
    return len(dims(value)) > 2 and len(set(dims(value)[1:])) == 1 and dims(value)[1] > 1


def is_constant(value: Any) -> bool:
    return value.const_value is not None


def operands_of(node: Any) -> list[Any]:
    """The inputs that are data, not indices."""
    return list(node.inputs[:1] if node.op_type in ("Slice", "Split") else node.inputs)


def constant(graph: Any, values: Any) -> Any:
    """A new initializer."""
    import numpy as np
    import onnx_ir as ir

    array = np.asarray(values, dtype=np.int64 if isinstance(values, list) else None)
    name = next(name for i in count(len(graph.initializers)) if (name := f"shaped_{i}") not in graph.initializers)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), const_value=ir.tensor(array, name=name))
    graph.register_initializer(value)
    return value


def insert_all(node: Any, op: str, inputs: list[Any], attributes: dict[str, Any], shapes: list[list[int]]) -> Any:
    """The outputs, of these shapes, of a new operator that stands before `node`."""
    import onnx_ir as ir

    new = ir.node(op, inputs, attributes, num_outputs=len(shapes))
    for value, shape in zip(new.outputs, shapes, strict=True):
        value.shape, value.dtype = ir.Shape(shape), node.outputs[0].dtype
    node.graph.insert_before(node, new)
    return new.outputs


def insert(node: Any, op: str, inputs: list[Any], attributes: dict[str, Any], shape: list[int]) -> Any:
    return insert_all(node, op, inputs, attributes, [shape])[0]


def reshape(graph: Any, before: Any, value: Any, shape: list[int]) -> Any:
    if is_constant(value):
        return constant(graph, value.const_value.numpy().reshape(shape))
    return insert(before, "Reshape", [value, constant(graph, shape)], {}, shape)


def replace(node: Any, *values: Any) -> None:
    """Give the consumers of `node` these values instead."""
    for old, new in zip(node.outputs, values, strict=True):
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    node.graph.remove(node, safe=True)


def run_onnx2tf(directory: Path, log: Path) -> Path:
    """The float32 .tflite file that onnx2tf makes in `directory` of the files there."""
    with log.open("w") as output:
        process = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            cwd=directory,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    converted = directory / "converted" / "model_float32.tflite"
    if process.returncode or not converted.is_file():
        raise RuntimeError(f"onnx2tf failed with exit status {process.returncode}; see {log}")
    return converted


def verify(tflite: Path, onnx: Path) -> None:
    """Raise `RuntimeError` unless LiteRT, with its own operators only, agrees with ONNX Runtime on one random input."""
    import numpy as np
    import onnxruntime
    from ai_edge_litert.interpreter import Interpreter

    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    image = torch.randn(session.get_inputs()[0].shape, generator=torch.Generator().manual_seed(0)).numpy()
    (expected,) = session.run(None, {INPUT: image})
    try:
        interpreter = Interpreter(str(tflite), num_threads=1)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:  # a Flex or custom operator, for one
        raise RuntimeError(f"LiteRT refuses what onnx2tf wrote: {error}") from error
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    for name, detail, array in (("input", source, image), ("output", result, expected)):
        if tuple(detail["shape"]) != array.shape or detail["dtype"] != np.float32:
            raise RuntimeError(f"onnx2tf made the {name} {detail['dtype']} {tuple(detail['shape'])}, not {array.shape}")
    interpreter.set_tensor(source["index"], image)
    interpreter.invoke()
    difference = float(np.abs(interpreter.get_tensor(result["index"]) - expected).max())
    if not difference <= TOLERANCE * np.abs(expected).max():
        raise RuntimeError(
            f"onnx2tf's file is off by {difference:.3g}, where logits reach {np.abs(expected).max():.3g}"
        )
