"""The values inside an artifact: a copy of it gives them as outputs, too, and is run like any artifact.

So it is the runtime's own kernels that compute them, delegates and emulated CPUs included; only what a runtime would
fuse across such a value stays apart. Values of .onnx and .mlpackage have names, those of .tflite tensors' numbers.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.captured import captured, interruptible
from runtime.arm64.runner import EmulatedRunner, open_emulated
from runtime.extras import require
from runtime.runners import Runner, open_runner

Infer = Callable[[NDArray[np.float32]], dict[str, NDArray[Any]]]
"""An input in the artifact's layout -> the values that were asked for, by name."""


def all_values(format: str, artifact: Path, function: str | None = None) -> list[str]:
    """What the artifact's operations compute, in the order of execution; where types are known, floats only.

    `function` is one of the artifact's, if it has several.
    """
    if format == "coreml":
        return list(_floats(_read_coreml(artifact), function))
    return {"onnx": _of_onnx, "tflite": _of_tflite}[format](artifact)


@contextmanager
def open_with(
    format: str, artifact: Path, names: Sequence[str], cpu: str | None = None, function: str | None = None
) -> Iterator[Infer]:
    """Run the artifact with these values as outputs, on this host or an emulated ARM64 `cpu`; Core ML op by op.

    Raises `UsageError` for a runtime that isn't installed, `RunnerError` for an artifact that can't be opened or run.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        copy = Path(folder) / artifact.name
        with captured(Path(os.devnull)), interruptible():
            runner: Runner | EmulatedRunner
            if format == "coreml":
                _coreml_with(artifact, names, copy, function)
                infer = _interpreted(copy, function)
            else:
                {"onnx": _onnx_with, "tflite": _tflite_with}[format](artifact, names, copy)
                runner = opened.enter_context(open_emulated(format, copy, cpu)) if cpu else open_runner(format, copy)
                infer = partial(_named_outputs, runner)
        yield infer


def _named_outputs(runner: Runner | EmulatedRunner, x: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    return dict(zip(runner.output_names, runner.run(x), strict=True))


def _of_onnx(artifact: Path) -> list[str]:
    onnx = require("onnx", extra="onnx")
    return [name for node in onnx.load(artifact).graph.node for name in node.output if name]


def _onnx_with(artifact: Path, names: Sequence[str], copy: Path) -> None:
    onnx = require("onnx", extra="onnx")
    model = onnx.load(artifact)
    given = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in given)
    onnx.save(model, copy)


def _of_tflite(artifact: Path) -> list[str]:
    schema = require("ai_edge_litert.schema_py_generated", extra="tflite")
    model = read_tflite(artifact)
    (graph,) = model.subgraphs

    def is_constant(index: int) -> bool:
        data = model.buffers[graph.tensors[index].buffer].data
        return data is not None and len(data) > 0

    # what is computed of constants alone, as dequantised weights are, a delegate need not compute
    operators = [operator for operator in graph.operators if not all(map(is_constant, operator.inputs))]
    computed = [int(index) for operator in operators for index in operator.outputs]
    return [str(index) for index in computed if graph.tensors[index].type == schema.TensorType.FLOAT32]


def _tflite_with(artifact: Path, names: Sequence[str], copy: Path) -> None:
    """Under a signature of its own, whose names are the tensors' numbers."""
    schema = require("ai_edge_litert.schema_py_generated", extra="tflite")
    flatbuffers = require("flatbuffers", extra="tflite")
    model = read_tflite(artifact)
    (graph,) = model.subgraphs
    graph.outputs = list(dict.fromkeys([*map(int, graph.outputs), *map(int, names)]))
    signature = schema.SignatureDefT()
    signature.signatureKey = "values"
    signature.inputs = [_named(schema.TensorMapT(), index) for index in graph.inputs]
    signature.outputs = [_named(schema.TensorMapT(), index) for index in graph.outputs]
    model.signatureDefs = [signature]
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    copy.write_bytes(builder.Output())


def _named(entry: Any, index: int) -> Any:
    entry.name, entry.tensorIndex = str(index), int(index)
    return entry


def read_tflite(artifact: Path) -> Any:
    """The model as an object, with the constants that a quantiser wrote behind the flatbuffer inside it."""
    schema = require("ai_edge_litert.schema_py_generated", extra="tflite")
    content = artifact.read_bytes()
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    for buffer in model.buffers:
        if buffer.offset > 1:  # 0 and 1 mean inside
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


PROGRAM = "Data/com.apple.CoreML/model.mlmodel"  # inside an .mlpackage


def _coreml_with(artifact: Path, names: Sequence[str], copy: Path, function: str | None) -> None:
    from coremltools.proto.FeatureTypes_pb2 import ArrayFeatureType
    from coremltools.proto.MIL_pb2 import DataType

    from export.verify.mil_interpreter import description

    spec = _read_coreml(artifact)
    (block,) = spec.mlProgram.functions[function or "main"].block_specializations.values()
    described, known = description(spec, function).output, _floats(spec, function)
    for name in names:
        if name not in block.outputs:
            block.outputs.append(name)
            array, sizes = described.add(name=name).type.multiArrayType, known[name].dimensions
            if all(size.HasField("constant") for size in sizes):  # one that is flexible is left open
                array.shape.extend(size.constant.size for size in sizes)
            array.dataType = ArrayFeatureType.ArrayDataType.Value(DataType.Name(known[name].dataType))
    shutil.copytree(artifact, copy)
    (copy / PROGRAM).write_bytes(spec.SerializeToString())


def _floats(spec: Any, function: str | None) -> dict[str, Any]:
    """What operations compute in floating point, in order, by name -> the type of the tensor; constants are not."""
    from coremltools.proto.MIL_pb2 import DataType

    (block,) = spec.mlProgram.functions[function or "main"].block_specializations.values()
    return {
        output.name: output.type.tensorType
        for operation in block.operations
        for output in operation.outputs
        if not operation.type.startswith("const")
        and output.type.tensorType.dataType in (DataType.FLOAT16, DataType.FLOAT32)
    }


def _read_coreml(artifact: Path) -> Any:
    return require("coremltools.models.utils", extra="coreml").load_spec(str(artifact))


def _interpreted(artifact: Path, function: str | None) -> Infer:
    from export.verify.mil_interpreter import MilInterpreter

    interpreter = MilInterpreter(artifact, function=function)
    (image,) = interpreter.inputs
    return lambda x: interpreter.run({image.name: x})
