"""Small artifacts measured side by side, to choose between them."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

import numpy as np

from runtime.arm64.runner import Workload, count_instructions
from runtime.arm64.setup import Say
from runtime.errors import UsageError
from runtime.measure import TIMEOUT_S, cpu_model
from runtime.worker import Worker

EMULATED_CPU = "cortex-a76"
ROUNDS, BLOCK_S = 8, 0.02  # as many blocks of each artifact, one after the other; a block lasts as long, or one invoke


@dataclass(frozen=True)
class Meter:
    """A device and how it is used. On the host it measures milliseconds, on emulated ARM64 it counts instructions."""

    on: Literal["host", "arm64"] = "host"
    threads: int = 1

    def __post_init__(self) -> None:
        if self.on not in ("host", "arm64"):
            raise UsageError(f"on is {self.on!r}; choose from host, arm64")
        if self.threads < 1:
            raise UsageError(f"threads is {self.threads}, it must be >= 1")
        if self.on == "arm64" and self.threads != 1:
            raise UsageError(f"instructions are counted on one thread, not on {self.threads}; give --threads 1")

    @property
    def unit(self) -> Literal["ms", "instructions"]:
        return "ms" if self.on == "host" else "instructions"

    @property
    def noise(self) -> float:
        """Figures that are less apart than this ratio are equal."""
        return 1.03 if self.on == "host" else 1.002

    @property
    def device(self) -> str:
        """What a figure belongs to."""
        if self.on == "arm64":
            return f"ARM64 {EMULATED_CPU}, emulated"
        return cpu_model()

    def compare(self, workloads: Sequence[Workload], say: Say = lambda line: None) -> list[float]:
        """A figure for each, lower is better: the median of its blocks' medians, or its count.

        Raises `RunnerError` for a runtime that fails, or an emulation that can't be had.
        """
        if self.on == "arm64":
            return [float(each.instructions) for each in count_instructions(workloads, EMULATED_CPU, say=say)]
        with ExitStack() as stack:
            workers, counts = [], []
            for workload in workloads:
                worker = stack.enter_context(Worker(workload.artifact.name, timeout_s=TIMEOUT_S))
                worker.open(workload.format, workload.artifact, workload.x, self.threads)
                workers.append(worker)
                counts.append(max(1, round(BLOCK_S * 1e3 / min(worker.invoke(5)))))
            medians = np.zeros((ROUNDS, len(workers)))
            for round_ in range(ROUNDS):
                for i in np.roll(np.arange(len(workers)), round_):  # none is always the first, or behind the same one
                    workers[i].invoke(1)  # another had the caches
                    medians[round_, i] = np.median(workers[i].invoke(counts[i]))
            return [float(figure) for figure in np.median(medians, 0)]
