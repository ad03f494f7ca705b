"""The converters: static graph in, artifact out. Each imports its heavy packages only when it converts."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor, nn

from export.convert.options import Options
from export.layout import NCHW, NHWC, Layout
from export.lowering import DEPTHWISE, POINTWISE
from runtime.errors import UsageError
from runtime.extras import DISTRIBUTION

Convert = Callable[[nn.Module, Tensor, Path, Options], None]


@dataclass(frozen=True)
class Converter:
    """One way to a format. `module` has the function `convert`; `packages` must be importable."""

    name: str
    format: str
    module: str
    artifact: str  # file or folder name inside a package
    extra: str
    packages: tuple[str, ...]
    layout: Layout  # of the graph it gets
    input_layout: Layout  # of the artifact's input, unless another is asked for
    pointwise: tuple[str, ...] = tuple(POINTWISE)
    depthwise: tuple[str, ...] = tuple(DEPTHWISE)
    any_input: bool = True  # False: batch 1 and its own layout only

    def check_installed(self) -> None:
        """`UsageError` that says what to install."""
        if missing := [name for name in self.packages if find_spec(name) is None]:
            raise UsageError(
                f"{self.format} by {self.name} needs {', '.join(missing)}: pip install '{DISTRIBUTION}[{self.extra}]'"
            )

    def load(self) -> Convert:
        convert: Convert = importlib.import_module(self.module).convert
        return convert


CONVERTERS: dict[str, Converter] = {
    converter.name: converter
    for converter in (
        Converter(
            "torch-onnx",
            "onnx",
            "export.convert.onnx",
            "model.onnx",
            "onnx",
            ("onnx", "onnxscript", "onnxruntime"),
            NCHW(largest_norm=2**17),
            NCHW(),
        ),
        Converter(
            "coremltools",
            "coreml",
            "export.convert.coreml",
            "model.mlpackage",
            "coreml",
            ("coremltools",),
            NCHW(),
            NCHW(),
        ),
        Converter(
            "litert-torch",
            "tflite",
            "export.convert.litert_torch",
            "model.tflite",
            "tflite",
            ("litert_torch", "ai_edge_litert", "ai_edge_quantizer"),
            NHWC(),
            NHWC(),
        ),
        Converter(
            "onnx2tf",
            "tflite",
            "export.convert.onnx2tf",
            "model.tflite",
            "onnx2tf",
            (
                "onnx2tf",
                "tensorflow",
                "tf_keras",
                "onnx_graphsurgeon",
                "sng4onnx",
                "psutil",
                "onnxslim",
                "onnxscript",
                "onnxruntime",
                "ai_edge_litert",
                "ai_edge_quantizer",
            ),
            NHWC(tuned=False),  # a piece of 16 channels of a 16 x 16 map would hide its layout from onnx2tf
            NHWC(),
            pointwise=("matmul", "twin"),
            depthwise=("taps", "bank", "twin"),
            any_input=False,
        ),
    )
}
FORMATS = {"onnx": "torch-onnx", "coreml": "coremltools", "tflite": "litert-torch"}  # and their default converters
