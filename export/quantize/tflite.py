"""A .tflite in fewer bits, by Google's ai-edge-quantizer. A recipe says in which of four ways each op is quantised:

- half: its weight is stored in fp16, and cast when the file is loaded;
- stored: its weight is stored in int8, and dequantised when the file is loaded;
- in flight: int8 arithmetic; the runtime quantises each row of activations as it comes;
- static: int8 arithmetic on activations whose ranges come from calibration images.

Quantising a row of K and dequantising N results pays where there are products enough between them: see `WORTHWHILE`.

A w8a8 GELU is a table of 256 entries; its exact float form is a quarter of all instructions. Dynamic convolutions stay
float: as int8 they were measured to take twice the instructions of float32, and a generated depthwise filter of one
scale lost the digits (33 % right instead of 99).
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from export.quantize.weights import Left, Weight, Weights

Way = Literal["half", "stored", "in flight", "static"]
PRODUCTS = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D")  # whose second input is a weight
WORTHWHILE = 24  # K * N / (K + N) of a product that is faster in flight: XNNPACK on ARM64 and x86, DMF-XXS
SIGNATURE, INPUT = "serving_default", "image"


def quantize(artifact: Path, weights: Weights, calibration: Sequence[NDArray[np.float32]] | None) -> list[Left]:
    """Quantise a float32 .tflite in place, and say which modules got more bits than they were to get.

    `calibration` has inputs like the artifact's, of which static ranges are taken; only w8a8 needs it.
    Raises what ai-edge-quantizer raises.
    """
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.quantizer import Quantizer

    ops = list(_ops(artifact, weights))
    quantizer = Quantizer(str(artifact))
    scopes: dict[tuple[str, Way, bool], list[str]] = defaultdict(list)
    for op in ops:
        if (way := _way(op)) is not None:
            scopes[op.kind, way, op.weight is not None and op.weight.generates].append(op.scope)
    for (kind, way, one_scale), names in scopes.items():
        scope = f"^(?:{'|'.join(map(re.escape, names))})$"
        granularity = qtyping.QuantGranularity.TENSORWISE if one_scale else qtyping.QuantGranularity.CHANNELWISE
        operation = qtyping.TFLOperationName(kind)
        if way == "half":
            quantizer.update_quantization_recipe(scope, operation, _half(), "float_casting")
        elif way == "stored":
            quantizer.add_weight_only_config(scope, operation, num_bits=8, granularity=granularity)
        elif way == "in flight":
            quantizer.add_dynamic_config(scope, operation, num_bits=8, granularity=granularity)
        else:
            quantizer.add_static_config(scope, operation, activation_num_bits=8, weight_num_bits=8)
    if not scopes:  # a recipe of nothing is refused
        return _left(ops, weights)
    samples = [{INPUT: x} for x in calibration or ()]
    ranges = quantizer.calibrate({SIGNATURE: samples}) if quantizer.need_calibration else None
    quantizer.quantize(ranges).export_model(str(artifact), overwrite=True)
    return _left(ops, weights)


@dataclass(frozen=True)
class _Op:
    """`scope` is what the quantiser knows it by; `weight` whose constant it multiplies with, if with one."""

    kind: str
    scope: str
    weight: Weight | None
    shape: tuple[int, ...]  # of the weight
    static: bool  # of an op without a weight: it stands behind or before convolutions that are to be int8


def _ops(artifact: Path, weights: Weights) -> Iterator[_Op]:
    from ai_edge_litert import schema_py_generated as schema

    kinds = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    model = schema.ModelT.InitFromPackedBuf(artifact.read_bytes(), 0)
    (graph,) = model.subgraphs
    producers = {int(index): op for op in graph.operators for index in op.outputs}
    consumers = defaultdict(list)
    for op in graph.operators:
        for index in op.inputs:
            consumers[int(index)].append(op)

    def kind(op: Any) -> str:
        return kinds[model.operatorCodes[op.opcodeIndex].builtinCode]

    def weight(op: Any) -> Weight | None:
        if kind(op) not in PRODUCTS:
            return None
        data = model.buffers[graph.tensors[op.inputs[1]].buffer].data
        return None if data is None or not len(data) else weights.find(np.asarray(data, np.uint8).view(np.float32))

    found = {id(op): weight(op) for op in graph.operators}

    def nearest(op: Any) -> set[Weight]:
        """The weights of the nearest products before an op."""
        passed, waiting, result = set(), [op], set()
        while waiting:
            current = waiting.pop()
            if (weight := found[id(current)]) is not None:
                result.add(weight)
            elif id(current) not in passed:
                passed.add(id(current))
                waiting += [producers[int(index)] for index in current.inputs if int(index) in producers]
        return result

    for op in graph.operators:
        own = found[id(op)]
        shape = tuple(graph.tensors[op.inputs[1]].shape) if own is not None else ()
        near: set[Weight | None] = set()
        if kind(op) == "GELU":
            near.update(nearest(op))
        elif kind(op) == "PAD":
            near.update(found[id(each)] for each in consumers[int(op.outputs[0])])
        static = all(each is not None and each.precision == "w8a8" for each in near)
        static = static and any(each is not None and each.kind != "linear" for each in near)
        yield _Op(kind(op), _scope(op, graph), own, shape, static)


def _scope(op: Any, graph: Any) -> str:
    return "".join(f"{graph.tensors[index].name.decode()};" for index in op.outputs)


def _way(op: _Op) -> Way | None:
    """None: it stays in float32."""
    if op.weight is None:
        return "static" if op.static else None
    if op.weight.precision == "fp32":
        return None
    if op.weight.precision == "fp16":
        return "half"
    if op.weight.precision == "w8a8" and op.weight.kind == "convolution":
        return "static"
    return "in flight" if op.weight.generates or _is_worthwhile(op) else "stored"


def _is_worthwhile(op: _Op) -> bool:
    if op.kind != "FULLY_CONNECTED":
        return False
    outputs, inputs = op.shape
    return inputs * outputs >= WORTHWHILE * (inputs + outputs)


def _half() -> Any:
    from ai_edge_quantizer import qtyping

    return qtyping.OpQuantizationConfig(
        weight_tensor_config=qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT),
        compute_precision=qtyping.ComputePrecision.FLOAT,
        explicit_dequantize=True,
    )


def _left(ops: Sequence[_Op], weights: Weights) -> list[Left]:
    held = {op.weight for op in ops}
    left = [
        Left(each.module, "fp32", "its weight is not a constant of the artifact")
        for each in weights.all
        if each.precision != "fp32" and each not in held
    ]
    for each in weights.all:
        if each.precision == "w8a8" and each in held and each.kind == "linear":
            left.append(Left(each.module, "w8", "its rows are few: quantised as they come, they lose less"))
        elif each.precision == "w8a8" and each in held and each.kind == "generation":
            left.append(Left(each.module, "w8", "its kernels are computed: as an int8 convolution it is slower"))
    return left
