"""An artifact is run and judged: by this host's runtimes, by those of an emulated ARM64 CPU, and Core ML op by op, for
Apple's runtime is Apple's only.
"""

import os
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.captured import captured, interruptible
from export.verify.parity import ORACLE, Run, Verdict, verify
from export.verify.reference import Answers, Reference
from runtime.arm64.runner import EmulatedRunner, open_emulated
from runtime.errors import CommandError, ParityError, RunnerError
from runtime.extras import require
from runtime.manifest import InputSpec, Tolerance
from runtime.preprocess import to_input
from runtime.runners import Runner, open_runner

Way = Callable[[Path, InputSpec], AbstractContextManager[tuple[Run, str]]]
"""Opens an artifact; what runs it while it's open, and in words what that is."""


def verify_artifact(
    format: str,
    path: Path,
    spec: InputSpec,
    reference: Reference,
    tolerance: Tolerance,
    oracle: str = ORACLE,
    cpu: str | None = None,
) -> Verdict:
    """Judge an artifact by every means this host has of running it, or on an emulated ARM64 `cpu`.

    Raises `UsageError` for a runtime that isn't installed, `ParityError` for outputs that can't be compared,
    `RunnerError` for an artifact that can't be opened or run.
    """
    specs = [replace(spec, shape=(batch, *spec.shape[1:])) for batch in spec.batches or spec.shape[:1]]
    verdicts = []
    try:
        for way, each in product(ways_to_run(format, cpu), specs):
            batch = None if each.shape[0] == -1 else each.shape[0]
            with ExitStack() as opened:
                with captured(Path(os.devnull)), interruptible():
                    run, checked_by = opened.enter_context(way(path, each))
                with interruptible():
                    verdicts.append(verify(run, reference, tolerance, checked_by, batch, oracle))
    except (CommandError, OSError, MemoryError):
        raise
    except ValueError as error:  # outputs of another shape
        raise ParityError(f"{path}: {error}") from error
    except Exception as error:  # whatever the interpreter of Core ML programs can't read
        raise RunnerError(f"{path} can't be run: {error}") from error
    worst = max(verdicts, key=_badness)
    ways = dict.fromkeys(verdict.parity.checked_by for verdict in verdicts)
    told = [v.parity.batch_consistent for v in verdicts if v.parity.batch_consistent is not None]
    consistent = all(told) if told else None
    return replace(worst, parity=replace(worst.parity, batch_consistent=consistent, checked_by=", ".join(ways)))


def run_artifact(format: str, path: Path, spec: InputSpec, images: NDArray[np.uint8]) -> tuple[Answers, str]:
    """What an artifact gives for images (N, H, W, 3) on this host, and what ran it. Raises as `open_runner`."""
    with ExitStack() as opened:
        with captured(Path(os.devnull)), interruptible():
            run, checked_by = opened.enter_context(ways_to_run(format)[0](path, spec))
        with interruptible():
            return run(images), checked_by


def _badness(verdict: Verdict) -> tuple[int, float]:
    outputs, detections = verdict.parity.outputs, verdict.parity.detections
    errors = [output.max_abs_error for output in outputs]
    if detections is not None and detections.max_score_error is not None:
        errors.append(detections.max_score_error)
    return len(verdict.failures), max(errors, default=0)


def ways_to_run(format: str, cpu: str | None = None) -> list[Way]:
    """Core ML is interpreted op by op everywhere, and on a Mac run by Apple's runtime too."""
    if cpu is not None:
        return [partial(_run_emulated, format, cpu)]
    if format == "coreml":
        return [_interpreted, partial(_run_here, format)] if platform.system() == "Darwin" else [_interpreted]
    return [partial(_run_here, format)]


@contextmanager
def _run_here(format: str, path: Path, spec: InputSpec) -> Iterator[tuple[Run, str]]:
    runner = open_runner(format, path, function=spec.function)
    yield _answers_of(runner, spec), runner.description


@contextmanager
def _run_emulated(format: str, cpu: str, path: Path, spec: InputSpec) -> Iterator[tuple[Run, str]]:
    with open_emulated(format, path, cpu) as runner:
        yield _answers_of(runner, spec), runner.description


def _answers_of(runner: Runner | EmulatedRunner, spec: InputSpec) -> Run:
    names = ("logits",) if len(runner.output_names) == 1 else runner.output_names  # not every converter names it

    def infer(x: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        return dict(zip(names, runner.run(x), strict=True))

    return lambda images: _in_batches(to_input(images, spec), spec.shape[0], infer)


@contextmanager
def _interpreted(path: Path, spec: InputSpec) -> Iterator[tuple[Run, str]]:
    from export.verify.coreml_pipeline import CoreMLPipeline, is_pipeline
    from export.verify.mil_interpreter import MilInterpreter

    require("coremltools", extra="coreml")
    suppresses = is_pipeline(path)
    interpreter = CoreMLPipeline(path) if suppresses else MilInterpreter(path, function=spec.function)

    def run(images: NDArray[np.uint8]) -> Answers:
        return _in_batches(to_input(images, spec), spec.shape[0], lambda x: interpreter.run({spec.name: x}))

    by = "MIL interpreter, suppression as documented" if suppresses else "MIL interpreter"
    yield run, by if platform.system() == "Darwin" else f"{by}; Apple's runtime was not run"


def _in_batches(
    x: NDArray[np.float32], batch: int, infer: Callable[[NDArray[np.float32]], Mapping[str, NDArray[Any]]]
) -> Answers:
    """Rows of `x` through `infer`, `batch` at a time (-1: all at once); the last batch is filled up by repetition."""
    size = len(x) if batch == -1 else batch
    answers: dict[str, list[NDArray[Any]]] = {}
    for start in range(0, len(x), size):
        rows = x[start : start + size]
        filled = rows if len(rows) == size else np.resize(rows, (size, *rows.shape[1:]))
        for name, output in infer(filled).items():
            # a network of batch 1 may give something that has no batch: as many rows as it finds objects
            samples = [output] if size == 1 else [output[i : i + 1] for i in range(len(rows))]
            answers.setdefault(name, []).extend(samples)
    return answers
