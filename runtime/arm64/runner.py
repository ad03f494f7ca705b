"""Artifacts on an emulated ARM64 CPU: run, and their instructions counted."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime.arm64.setup import CPUS, Say, prepare
from runtime.commandline import nearest
from runtime.errors import RunnerError, UsageError
from runtime.latency import RuntimeInfo
from runtime.runners import Array
from runtime.worker import Worker

FORMATS = ("onnx", "tflite")
TIMEOUT_S = 600.0
WARMUP = 2  # a runtime's first invokes pack weights and reserve memory
THREADS = 2  # of a process that counts: the program, and one of qemu's own


def silent(line: str) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class EmulatedRunner:
    """An artifact opened on an emulated CPU, as `runtime.runners.Runner` is on this host."""

    output_names: tuple[str, ...]
    description: str
    worker: Worker

    def run(self, x: NDArray[np.float32]) -> list[Array]:
        """The outputs, in order, for one input in the artifact's layout.

        RunnerError: the runtime refuses it, or the emulator died or took too long.
        """
        return self.worker.run(x)


@contextmanager
def open_emulated(
    format: str, artifact: Path | str, cpu: str, *, timeout_s: float = TIMEOUT_S, say: Say = silent
) -> Iterator[EmulatedRunner]:
    """Open an artifact in its runtime's aarch64 build, on one thread of an emulated ``cpu``.

    UsageError: a format or CPU that can't be emulated, or no such artifact. RunnerError: emulation can't be had here,
    the runtime cannot open the artifact, or the emulator died or was slower than ``timeout_s`` over one request.
    """
    artifact = Path(artifact)
    check_emulated(format, artifact, cpu)
    with Worker(f"{artifact} on {cpu}", timeout_s=timeout_s, launch=prepare(say).launch(cpu)) as worker:
        opened = worker.open(format, artifact, None, threads=1)
        runtime = opened["runtime"]
        description = f"{runtime['name']} {runtime['version']} on ARM64 {cpu}, emulated by qemu 10"
        yield EmulatedRunner(tuple(opened["output_names"]), description, worker)


@dataclass(frozen=True, eq=False)
class Workload:
    """What one inference is: the artifact, and its input in the artifact's layout."""

    format: str
    artifact: Path
    x: NDArray[np.float32]


@dataclass(frozen=True)
class Count:
    """Instructions that one inference executed, and the runtime that executed them."""

    instructions: int
    runtime: RuntimeInfo


def count_instructions(
    workloads: Sequence[Workload], cpu: str, *, timeout_s: float = TIMEOUT_S, say: Say = silent
) -> list[Count]:
    """Instructions that one inference of each workload executes on one thread of an emulated ``cpu``.

    Counted from the input handed over to the outputs copied out, after two inferences that are not, all workloads in
    one process and in order. Python's own instructions are among them, some 20,000, and 4,000 more for the first.
    Repeats to within 0.1 %. It is not latency: it knows no caches, no memory and no issue width.

    Raises what `open_emulated` raises, and RunnerError for a runtime that starts threads.
    """
    for workload in workloads:
        check_emulated(workload.format, workload.artifact, cpu)
    harness = prepare(say)
    counts = []
    with tempfile.TemporaryDirectory(prefix="dmf-icount-") as folder:
        marks = Path(folder) / "marks"
        with Worker(f"counting on {cpu}", timeout_s=timeout_s, launch=harness.launch(cpu, marks)) as worker:
            for workload in workloads:
                opened = worker.open(workload.format, workload.artifact, workload.x, threads=1)
                for _ in range(WARMUP + 1):
                    threads = worker.invoke_between_marks()
                if threads > THREADS:
                    raise RunnerError(f"{workload.artifact}: its runtime runs {threads} threads; one can be counted")
                before, after = (int(line) for line in marks.read_text().split()[-2:])
                counts.append(Count(after - before, RuntimeInfo(**opened["runtime"])))
    return counts


def check_emulated(format: str, artifact: Path, cpu: str) -> None:
    """UsageError: a format or CPU that can't be emulated, or no such artifact."""
    if cpu not in CPUS:
        raise UsageError(f"CPU {cpu!r} is not one of {', '.join(CPUS)}{nearest(cpu, CPUS)}")
    if format not in FORMATS:
        why = "; Core ML runs on Apple devices only" if format == "coreml" else ""
        raise UsageError(f"{artifact}: ARM64 is emulated for {' and '.join(FORMATS)}, not for {format}{why}")
    if not artifact.exists():
        raise UsageError(f"{artifact}: no such artifact")
