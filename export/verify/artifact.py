"""Run an artifact on images: with this host's runtimes, and Core ML op by op where Apple's runtime is not at hand."""

import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.captured import captured
from export.verify.parity import Run
from runtime.manifest import InputSpec
from runtime.preprocess import to_input
from runtime.runners import open_runner


def open_artifact(format: str, path: Path, spec: InputSpec) -> tuple[Run, str]:
    """A function from images to logits, and what computes it. Raises what opening the artifact raises."""
    with captured(Path(os.devnull)):
        return _open(format, path, spec)


def _open(format: str, path: Path, spec: InputSpec) -> tuple[Run, str]:
    if format == "coreml" and platform.system() != "Darwin":
        return _interpret(path, spec), "MIL interpreter; Apple's runtime was not run"
    runner = open_runner(format, path)
    position = runner.output_names.index("logits") if "logits" in runner.output_names else 0
    batch = spec.shape[0]

    def run(images: NDArray[np.uint8]) -> NDArray[np.float64]:
        return _in_batches(to_input(images, spec), batch, lambda x: runner.run(x)[position])

    return run, runner.description


def _interpret(path: Path, spec: InputSpec) -> Run:
    from export.verify.mil_interpreter import MilInterpreter

    interpreter = MilInterpreter(path)

    def run(images: NDArray[np.uint8]) -> NDArray[np.float64]:
        return _in_batches(to_input(images, spec), spec.shape[0], lambda x: interpreter.run({spec.name: x})["logits"])

    return run


def _in_batches(
    x: NDArray[np.float32], batch: int, infer: Callable[[NDArray[np.float32]], NDArray[Any]]
) -> NDArray[np.float64]:
    """Rows of `x` through `infer`, `batch` at a time (-1: all at once); the last batch is filled up by repetition."""
    size = len(x) if batch == -1 else batch
    outputs = []
    for start in range(0, len(x), size):
        rows = x[start : start + size]
        filled = rows if len(rows) == size else np.resize(rows, (size, *rows.shape[1:]))
        outputs.append(np.asarray(infer(filled), np.float64)[: len(rows)])
    return np.concatenate(outputs)
