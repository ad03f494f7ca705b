"""What will fall off: which operations a target's delegate refuses, said before converting and checked afterwards.

The rules are data, one table per delegate, each with its source. They are asked twice: about the operations that
`predict` expects from the graph, and about those that `artifact` reads from the file.
"""

from export.delegates import coreml, gpu, nnapi, xnnpack
from export.delegates.op import Op, Value
from export.delegates.rule import Delegate, Refusal, Rule

DELEGATES: dict[str, Delegate] = {
    "onnxruntime-cpu": Delegate("ONNX Runtime on the CPU", (), checked="it runs every operation of the file"),
    "litert-cpu": xnnpack.XNNPACK,
    "litert-gpu": gpu.GPU,
    "nnapi": nnapi.NNAPI,
    "coreml-ane": coreml.NEURAL_ENGINE,
    "coreml-cpu": coreml.CPU,
}

__all__ = ["DELEGATES", "Delegate", "Op", "Refusal", "Rule", "Value"]
