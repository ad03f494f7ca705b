"""model.onnx in float32 -> the same with its weights, and perhaps its activations, in fewer bits; standard ops only.

Unless activations are int8, too, only constants change. How one is stored says what ONNX Runtime's CPU makes of it:

- fp16 is followed by Cast, which is folded when the model is loaded: from then on it's the fp32 model.
- An int8 filter is followed by Cast and Mul, folded as well: a convolution is slower if its filter is no constant.
- int8 of a linear layer is followed by DequantizeLinear, which isn't folded but run each time. That costs what is saved
  by reading a quarter from memory, and halves the memory of the whole model.

Int8 activations are by `onnxruntime.quantization`: QuantizeLinear and DequantizeLinear in front of a linear layer, all
fused at load. ARM64 computes with signed ones, x86 makes them unsigned at load; on an x86 CPU without VNNI sums of two
products may then saturate, unless the session has `session.x64quantprecision` set to 1.

Not used for w8: quantize_dynamic, a tenth faster, for it rounds activations, too; MatMulNBits of com.microsoft, whose
scales are for blocks of inputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.precision import Precision
from export.quantize.weights import Left, Weight, Weights

INPUT = "image"
INT8 = 127  # symmetric
GENERATES = "its kernels would be as coarse as int8 attentions"
CONVOLUTION = "ONNX Runtime's int8 convolutions round their outputs, too, and are no faster"
NO_CHANNELS = "an op takes it that is neither a convolution nor a matrix product"
MISSING = "no constant of the graph has its values"


@dataclass(frozen=True)
class _Constant:
    """A weight in the graph, and the first node that takes it; several do if a head is shared by feature maps."""

    weight: Weight
    node: Any
    axis: int | None  # of the output channels; None: the node is no product

    @property
    def left(self) -> Left | None:
        asked = self.weight.precision
        if self.axis is None and asked in ("w8", "w8a8"):
            return Left(self.weight.module, "fp32", NO_CHANNELS)
        if asked == "w8a8" and self.weight.generates:
            return Left(self.weight.module, "w8", GENERATES)
        if asked == "w8a8" and self.node.op_type == "Conv":
            return Left(self.weight.module, "w8", CONVOLUTION)
        return None

    @property
    def precision(self) -> Precision:
        return self.weight.precision if self.left is None else self.left.precision


def quantize(artifact: Path, weights: Weights, calibration: Sequence[NDArray[np.float32]] | None) -> list[Left]:
    """Rewrite the .onnx file. `calibration` is inputs (B, ...) of the model, for the ranges of w8a8's activations.

    Raises `ValueError` for w8a8 without calibration, and what onnxruntime raises.
    """
    import onnx
    from onnxscript.optimizer import fold_constants

    model = onnx.load(artifact)
    # the exporter leaves it to the runtime to reshape and slice large weights
    fold_constants(model, input_size_limit=1 << 31, output_size_limit=1 << 31)
    constants = _constants(model.graph, weights)
    found = {constant.weight for constant in constants.values()}
    missing = [weight for weight in weights.all if weight.precision != "fp32" and weight not in found]
    int8 = [constant.node.name for constant in constants.values() if constant.precision == "w8a8"]
    if int8:
        if calibration is None:
            raise ValueError("w8a8 takes the ranges of activations from calibration inputs, but there are none")
        model = _with_int8_activations(model, artifact, int8, calibration)
    _encode_weights(model.graph, {name: each for name, each in constants.items() if each.precision in ("fp16", "w8")})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, artifact)
    left = [constant.left for constant in constants.values() if constant.left is not None]
    return list(dict.fromkeys([*left, *(Left(weight.module, "fp32", MISSING) for weight in missing)]))


def _constants(graph: Any, weights: Weights) -> dict[str, _Constant]:
    """By the name of the initializer."""
    from onnx import TensorProto, numpy_helper

    operands: dict[str, list[tuple[Any, int | None]]] = {}
    for node in graph.node:
        for index, name in enumerate(node.input):
            operands.setdefault(name, []).append((node, _output_channels(node) if index == 1 else None))
    constants = {}
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        weight = weights.find(values) if tensor.data_type == TensorProto.FLOAT else None
        if weight is not None:
            (node, axis), *others = operands[tensor.name]
            alike = all((other.op_type, where) == (node.op_type, axis) for other, where in others)
            constants[tensor.name] = _Constant(weight, node, axis if alike else None)
    return constants


def _output_channels(node: Any) -> int | None:
    """Their axis in operand 1; None: `node` is no product."""
    if node.op_type == "Gemm":
        return 0 if any(each.name == "transB" and each.i for each in node.attribute) else 1
    return {"Conv": 0, "MatMul": 1}.get(node.op_type)


def _with_int8_activations(
    model: Any, artifact: Path, nodes: Sequence[str], calibration: Sequence[NDArray[np.float32]]
) -> Any:
    """The model with inputs and weights of these nodes in int8, a scale per output channel; it's left in `artifact`."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Inputs(CalibrationDataReader):  # type: ignore[misc]  # untyped
        def __init__(self) -> None:
            self.left = iter(calibration)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(({INPUT: x} for x in self.left), None)

    quantize_static(
        model,
        artifact,
        Inputs(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        nodes_to_quantize=nodes,
        op_types_to_quantize=["Gemm", "MatMul"],
        extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
    )
    quantized = onnx.load(artifact)
    del quantized.metadata_props[:]  # onnxruntime's own are among them
    quantized.metadata_props.extend(model.metadata_props)
    return quantized


def _encode_weights(graph: Any, constants: dict[str, _Constant]) -> None:
    """Store these initializers in fewer bits; nodes in front of all others make float32 tensors of their names."""
    from onnx import numpy_helper

    initializers, decoders = [], []
    for tensor in graph.initializer:
        if tensor.name in constants:
            stored, nodes = _encoded(tensor.name, numpy_helper.to_array(tensor), constants[tensor.name])
            initializers += [numpy_helper.from_array(values, name) for name, values in stored.items()]
            decoders += nodes
        else:
            initializers.append(tensor)
    nodes = [*decoders, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(initializers)
    graph.node.extend(nodes)


def _encoded(name: str, values: NDArray[np.float32], constant: _Constant) -> tuple[dict[str, NDArray[Any]], list[Any]]:
    """What is stored, by name, and the nodes that make `name` of it."""
    from onnx import TensorProto, helper

    if constant.precision == "fp16":
        half = f"{name}_fp16"
        return {half: values.astype(np.float16)}, [helper.make_node("Cast", [half], [name], half, to=TensorProto.FLOAT)]
    one = constant.weight.generates
    sharing = tuple(axis for axis in range(values.ndim) if one or axis != constant.axis)
    peaks = np.abs(values).max(sharing, keepdims=True)
    scale = np.where(peaks > 0, peaks / INT8, 1).astype(np.float32)
    whole, scales, steps = f"{name}_int8", f"{name}_scale", f"{name}_steps"
    int8 = np.rint(values / scale).astype(np.int8)
    if constant.node.op_type == "Conv":
        cast = helper.make_node("Cast", [whole], [steps], steps, to=TensorProto.FLOAT)
        return {whole: int8, scales: scale}, [cast, helper.make_node("Mul", [steps, scales], [name], whole)]
    stored = {whole: int8, scales: scale.reshape(() if one else -1)}
    axis = None if one else constant.axis
    return stored, [helper.make_node("DequantizeLinear", [whole, scales], [name], whole, axis=axis)]
