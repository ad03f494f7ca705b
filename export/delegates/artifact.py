"""The operations of an artifact, read from the file, and what of the prediction it does not bear out."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from export.delegates.op import Op, Value
from export.delegates.rule import Refusal
from runtime.partitions import Operator, scope_of

Found = Op | Operator


def operations(format: str, artifact: Path) -> list[Op]:
    """Of a .tflite file or an .mlpackage. Of ONNX none are read: ONNX Runtime refuses none."""
    readers = {"tflite": _tflite, "coreml": _coreml}
    return readers[format](artifact) if format in readers else []


def differences(predicted: Iterable[Refusal], found: Iterable[Found]) -> list[str]:
    """A line for each kind of operation, and the modules that it is in, of which not as many fell off as predicted.

    Files that name no modules (onnx2tf's) are compared by kind only.
    """
    found = list(found)
    named = any(each.scope for each in found)
    expected = Counter((refusal.op.kind, refusal.op.scope if named or not found else "") for refusal in predicted)
    actual = Counter((each.kind, each.scope) for each in found)
    return [
        f"{kind} in {scope or 'the network'}: predicted {expected[kind, scope]}, found {actual[kind, scope]}"
        for kind, scope in sorted(expected.keys() | actual.keys())
        if expected[kind, scope] != actual[kind, scope]
    ]


def _tflite(path: Path) -> list[Op]:
    from ai_edge_litert import schema_py_generated as schema

    kinds = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    (graph,) = model.subgraphs
    codes = [kinds[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in model.operatorCodes]

    def data(index: int) -> Any:
        content = model.buffers[graph.tensors[index].buffer].data
        return None if content is None or len(content) == 0 else content

    def value(index: int) -> Value:
        shape = graph.tensors[index].shape
        return Value(() if shape is None else tuple(map(int, shape)), data(index) is not None)

    ops = []
    for operator in graph.operators:
        kind, options = codes[operator.opcodeIndex], operator.builtinOptions
        indices = [int(i) for i in operator.inputs if i >= 0]
        inputs, outputs = tuple(map(value, indices)), tuple(value(int(i)) for i in operator.outputs)
        scope = scope_of(graph.tensors[int(operator.outputs[0])].name.decode())
        groups = step = 1
        int8 = graph.tensors[indices[0]].type == schema.TensorType.INT8
        if kind == "CONV_2D":
            groups = inputs[0].shape[3] // inputs[1].shape[3]
        if kind == "DEPTHWISE_CONV_2D":
            groups = inputs[0].shape[3]
        if kind == "STRIDED_SLICE":
            import numpy as np

            step = int(np.frombuffer(bytes(data(indices[3])), np.int32).max())
        dilation = getattr(options, "dilationHFactor", 1)
        ops.append(Op(kind, scope, scope, inputs, outputs, groups=groups, dilation=dilation, step=step, int8=int8))
    return ops


def _coreml(path: Path) -> list[Op]:
    """Convolutions only with what the rules ask of them; coremltools names operations, not modules."""
    import coremltools as ct

    spec = ct.utils.load_spec(str(path))
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    constants = {
        output.name
        for operation in block.operations
        if operation.type == "const" or operation.type.startswith("constexpr")
        for output in operation.outputs
    }
    values: dict[str, Value] = {}
    numbers: dict[str, list[int]] = {}
    ops = []
    for operation in block.operations:
        for output in operation.outputs:
            dimensions = output.type.tensorType.dimensions
            shape = tuple(int(dimension.constant.size) for dimension in dimensions)
            values[output.name] = Value(shape, output.name in constants)
        if operation.type == "const":
            tensor = operation.attributes["val"].immediateValue.tensor
            numbers[operation.outputs[0].name] = list(tensor.ints.values)
            continue
        names = {key: [each.name for each in argument.arguments] for key, argument in operation.inputs.items()}
        order = ["x", "weight", "bias"] if operation.type == "conv" else sorted(names)
        inputs = tuple(values[name] for key in order for name in names.get(key, []) if name in values)
        dilations = numbers.get(names.get("dilations", [""])[0], [1]) or [1]
        groups = numbers.get(names.get("groups", [""])[0], [1]) or [1]
        ops.append(
            Op(
                operation.type.split(".")[-1],
                "",
                "",
                inputs,
                tuple(values[output.name] for output in operation.outputs),
                groups=groups[0],
                dilation=max(dilations),
            )
        )
    return ops
