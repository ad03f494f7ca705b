"""What will run the artifact, and which lowering that runtime does best. A row changes when a measurement does.

The measurements behind `onnxruntime-cpu` and `litert-cpu` are in benchmarks/results; the others rest on the rules in
export/delegates and are unchecked until they have run on a device.
"""

from dataclasses import dataclass

from export.lowering import Lowering


@dataclass(frozen=True)
class Target:
    name: str
    format: str
    lowering: Lowering


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target(
            "onnxruntime-cpu",
            "onnx",
            Lowering(
                "matmul",
                "conv",
                "with conv/conv, which ties with it, the fastest of five measured; a convolution less to unroll",
            ),
        ),
        Target(
            "litert-cpu",
            "tflite",
            Lowering(
                "matmul",
                "conv",
                "the fastest of five measured; only the depthwise convolutions leave XNNPACK",
            ),
        ),
        Target(
            "litert-gpu",
            "tflite",
            Lowering("matmul", "taps", "the GPU delegates refuse or misread computed filters"),
        ),
        Target(
            "nnapi",
            "tflite",
            Lowering("matmul", "taps", "a grouped convolution falls off, and a driver may refuse any computed filter"),
        ),
        Target(
            "coreml-ane",
            "coreml",
            Lowering("matmul", "taps", "a convolution with a computed filter keeps Core ML off the Neural Engine"),
        ),
        Target(
            "coreml-cpu",
            "coreml",
            Lowering("matmul", "conv", "on the CPU a computed depthwise filter is one op instead of nine products"),
        ),
    )
}
DEFAULT_TARGETS = {"onnx": "onnxruntime-cpu", "tflite": "litert-cpu", "coreml": "coreml-ane"}
