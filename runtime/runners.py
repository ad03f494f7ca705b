"""Inference runtimes of this host: an artifact is opened once and run on one array at a time.

A runner needs no manifest, so that an artifact can be run before it is packaged: inputs and outputs
are positional, in the order in which the network returns them.
"""

import platform
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import RunnerError, UsageError
from runtime.extras import require

Array = NDArray[Any]


class Runner(ABC):
    """An opened artifact.

    ``runtime`` and ``version`` name the inference runtime, ``output_names`` are the artifact's own,
    and ``delegate_partitions`` counts the parts of the graph that a TFLite delegate runs (None for
    other runtimes).
    """

    runtime: str
    version: str
    output_names: tuple[str, ...]
    delegate_partitions: int | None = None

    @abstractmethod
    def __init__(self, artifact: Path, threads: int, function: str | None) -> None:
        """Open the artifact, or this function of it. RunnerError: the runtime cannot."""

    @property
    def description(self) -> str:
        """Runtime and version, as in ``onnxruntime 1.31.0 CPU``."""
        return f"{self.runtime} {self.version} CPU"

    @abstractmethod
    def run(self, x: NDArray[np.float32]) -> list[Array]:
        """The outputs, in order, for one input in the artifact's layout.

        RunnerError: the runtime refuses it.
        """


class OnnxRunner(Runner):
    """ONNX Runtime on the CPU, ``threads`` within an operator and one operator at a time."""

    runtime = "onnxruntime"

    def __init__(self, artifact: Path, threads: int, function: str | None) -> None:
        ort = require("onnxruntime", extra="onnx")
        self.version = ort.__version__
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors only
        providers = ["CPUExecutionProvider"]
        try:
            self._session = ort.InferenceSession(str(artifact), options, providers=providers)
        except Exception as error:  # its exceptions share no base class but Exception
            raise _cannot("open", self.runtime, artifact, error) from error
        self._artifact = artifact
        self._input = _single([tensor.name for tensor in self._session.get_inputs()], artifact)
        self.output_names = tuple(tensor.name for tensor in self._session.get_outputs())

    def run(self, x: NDArray[np.float32]) -> list[Array]:
        try:
            outputs: list[Array] = self._session.run(None, {self._input: x})
        except Exception as error:
            raise _cannot("run", self.runtime, self._artifact, error) from error
        return outputs


class LiteRTRunner(Runner):
    """LiteRT on the CPU with its default XNNPACK delegate and ``threads`` threads."""

    runtime = "litert"

    def __init__(self, artifact: Path, threads: int, function: str | None) -> None:
        litert = require("ai_edge_litert.interpreter", extra="tflite")
        self.version = version("ai-edge-litert")
        self._artifact = artifact
        try:
            self._interpreter = litert.Interpreter(model_path=str(artifact), num_threads=threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise _cannot("open", self.runtime, artifact, error) from error
        inputs = self._interpreter.get_input_details()
        self._input = _single([tensor["index"] for tensor in inputs], artifact)
        self._shape = tuple(inputs[0]["shape"])
        outputs = self._named_outputs()
        self.output_names = tuple(outputs)
        self._outputs = tuple(outputs.values())
        operators = self._interpreter._get_ops_details()
        self.delegate_partitions = sum(node["op_name"] == "DELEGATE" for node in operators)

    def _named_outputs(self) -> dict[str, int]:
        """Name -> tensor index, in the network's order.

        The signature's names are the exporter's; litert-torch's ``output_<k>`` are put in the order
        of k, for a signature sorts ``output_10`` before ``output_2``. Without a signature, the
        order is the subgraph's.
        """
        signatures = list(self._interpreter.get_signature_list())
        if not signatures:
            details = self._interpreter.get_output_details()
            return {tensor["name"]: tensor["index"] for tensor in details}
        details = self._interpreter.get_signature_runner(signatures[0]).get_output_details()
        names = list(details)
        if all(re.fullmatch(r"output_\d+", name) for name in names):
            names.sort(key=lambda name: int(name.removeprefix("output_")))
        return {name: details[name]["index"] for name in names}

    def run(self, x: NDArray[np.float32]) -> list[Array]:
        try:
            if x.shape != self._shape:
                self._interpreter.resize_tensor_input(self._input, x.shape, strict=True)
                self._interpreter.allocate_tensors()
                self._shape = x.shape
            self._interpreter.set_tensor(self._input, x)
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise _cannot("run", self.runtime, self._artifact, error) from error
        return [self._interpreter.get_tensor(index) for index in self._outputs]


class CoreMLRunner(Runner):
    """Core ML on this Mac, on whichever compute units it chooses; ``threads`` is not its to set.

    Its outputs are the model's multi-arrays, not a classifier's label and probabilities by label.
    """

    runtime = "coreml"

    def __init__(self, artifact: Path, threads: int, function: str | None) -> None:
        if platform.system() != "Darwin":
            raise RunnerError(
                f"{artifact}: Core ML runs on Apple devices, this host is {platform.system()}; "
                "run the same command on a Mac"
            )
        coremltools = require("coremltools", extra="coreml")
        self.version = f"macOS {platform.mac_ver()[0]}"
        self._artifact = artifact
        try:
            self._model = coremltools.models.MLModel(str(artifact), function_name=function)
        except Exception as error:
            raise _cannot("open", self.runtime, artifact, error) from error
        whole = self._model.get_spec().description
        description = next((each for each in whole.functions if each.name == function), whole)
        self._input = _single([feature.name for feature in description.input], artifact)
        self._takes_image = _feature_type(description.input[0]) == "imageType"
        self.output_names = tuple(
            feature.name for feature in description.output if _feature_type(feature) == "multiArrayType"
        )

    @property
    def description(self) -> str:
        return f"Core ML of {self.version}"

    def run(self, x: NDArray[np.float32]) -> list[Array]:
        try:
            if not self._takes_image:
                results = [self._model.predict({self._input: x})]
            else:  # one image at a time
                results = [self._model.predict({self._input: _to_pillow(image)}) for image in x]
        except Exception as error:
            raise _cannot("run", self.runtime, self._artifact, error) from error
        return [np.concatenate([result[name] for result in results]) for name in self.output_names]


def _feature_type(feature: Any) -> Any:
    return feature.type.WhichOneof("Type")


def _to_pillow(pixels: NDArray[np.float32]) -> Any:
    """A Pillow image from raw 0..255 values, (H, W, 3) or (3, H, W)."""
    from PIL import Image

    interleaved = pixels if pixels.shape[-1] == 3 else pixels.transpose(1, 2, 0)
    return Image.fromarray(interleaved.round().astype(np.uint8))


_RUNNERS: dict[str, type[Runner]] = {
    "onnx": OnnxRunner,
    "tflite": LiteRTRunner,
    "coreml": CoreMLRunner,
}
_LIBRARIES = {
    "onnx": ("onnxruntime", "onnx"),
    "tflite": ("ai_edge_litert.interpreter", "tflite"),
}


def import_runtime(format: str) -> None:
    """Import the inference runtime of ``format``, so that opening can be timed alone."""
    if format in _LIBRARIES:
        module, extra = _LIBRARIES[format]
        require(module, extra=extra)


def open_runner(format: str, artifact: Path | str, threads: int = 1, function: str | None = None) -> Runner:
    """Open an artifact, packaged or not, in this host's runtime for its format; ``function`` if it has several.

    UsageError: an unknown format, no such artifact, or a runtime that is not installed.
    RunnerError: the runtime cannot open it, or this host cannot run the format at all.
    """
    artifact = Path(artifact)
    if format not in _RUNNERS:
        raise UsageError(f"format {format!r} is not one of {', '.join(_RUNNERS)}")
    if not artifact.exists():
        raise UsageError(f"{artifact}: no such artifact")
    return _RUNNERS[format](artifact, threads, function)


def _single(inputs: Sequence[Any], artifact: Path) -> Any:
    if len(inputs) != 1:
        raise RunnerError(f"{artifact}: takes {len(inputs)} inputs; a runner feeds exactly one")
    return inputs[0]


def _cannot(verb: str, runtime: str, artifact: Path, error: Exception) -> RunnerError:
    reason = " ".join(str(error).split())
    return RunnerError(f"{artifact}: {runtime} cannot {verb} it: {reason[:300]}")
