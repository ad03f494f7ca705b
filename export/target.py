"""What will run the artifact, and which lowering that runtime does best. A row changes when a measurement does.

`evidence` is where those measurements are, at a classifier's size and at a detector's. Some rows rest on the rules of a
delegate instead, and are unchecked until a device has run them.
"""

from dataclasses import dataclass

from export.lowering import Lowering


@dataclass(frozen=True)
class Target:
    name: str
    format: str
    lowering: Lowering
    evidence: tuple[str, ...]  # files of this project


# 640 x 640 and 800 x 1344 px: what is best at 224 is best there, too (docs/detection.md)
AT_DETECTION = "benchmarks/results/detection_lowerings.json"

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target(
            "onnxruntime-cpu",
            "onnx",
            Lowering("conv", "conv", "a few percent faster than matmul/conv, the next best of four measured"),
            ("benchmarks/results/latency.json", AT_DETECTION),
        ),
        Target(
            "litert-cpu",
            "tflite",
            Lowering(
                "matmul",
                "conv",
                "the fastest of five measured; only the depthwise convolutions leave XNNPACK",
            ),
            ("benchmarks/results/lowerings.json", AT_DETECTION),
        ),
        Target(
            "litert-gpu",
            "tflite",
            Lowering("matmul", "taps", "the GPU delegates refuse or misread computed filters"),
            ("export/delegates/gpu.py",),
        ),
        Target(
            "nnapi",
            "tflite",
            Lowering("matmul", "taps", "a grouped convolution falls off, and a driver may refuse any computed filter"),
            ("export/delegates/nnapi.py",),
        ),
        Target(
            "coreml-ane",
            "coreml",
            Lowering("matmul", "taps", "no convolution with a computed filter, channels second and heads apart"),
            ("export/delegates/coreml.py",),
        ),
        Target(
            "coreml-cpu",
            "coreml",
            Lowering("matmul", "conv", "on the CPU a computed depthwise filter is one op instead of nine products"),
            ("export/delegates/coreml.py",),
        ),
    )
}
DEFAULT_TARGETS = {"onnx": "onnxruntime-cpu", "tflite": "litert-cpu", "coreml": "coreml-ane"}
