"""Latency and memory of packages, with the raw samples and the conditions they were taken under.

Each package runs in a worker process of its own. A pair is compared in alternating blocks, so that
a device that slows down slows both, and the spread of the ratio over the rounds is kept with the
ratio.
"""

import os
import platform
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from runtime.detections import where_chosen
from runtime.errors import UsageError
from runtime.golden import read_golden
from runtime.latency import (
    FEWEST_SAMPLES,
    Comparison,
    Conditions,
    LatencyReport,
    RuntimeInfo,
    percentiles_ms,
)
from runtime.manifest import Detection, Package
from runtime.preprocess import to_input
from runtime.worker import Worker

TIMEOUT_S = 600.0


@dataclass(frozen=True, eq=False)
class Subject:
    """What is measured: an artifact that need not lie in a package, what it is, and the input it is run on."""

    name: str
    artifact_sha256: str
    model: str
    format: str
    precision: str
    target: str
    artifact: Path
    x: NDArray[np.float32]
    input: str
    function: str | None = None  # of an artifact that has several
    detection: Detection | None = None  # of a detector, how its outputs are read

    @classmethod
    def of(cls, package: Package) -> Self:
        """A package's artifact, on `bench_input`."""
        manifest = package.manifest
        return cls(
            manifest.name,
            package.artifact_sha256,
            manifest.model.variant,
            manifest.format,
            manifest.precision,
            manifest.target,
            package.artifact,
            *bench_input(package),
            manifest.inputs[0].function,
            manifest.detection,
        )


def measure(
    package: Package,
    *,
    threads: int = 1,
    warmup: int = 10,
    repeats: int = 100,
    post_processing: bool = False,
    timeout_s: float = TIMEOUT_S,
) -> LatencyReport:
    """Measure one package alone: ``warmup`` invokes untimed, then ``repeats`` timed.

    With ``post_processing`` a sample also has the choice of a detector's objects, where its graph doesn't make it.
    UsageError: a number out of range, or an inference runtime that is not installed. RunnerError:
    the runtime failed, its worker died, or it took longer than ``timeout_s`` over one request.
    """
    _check(threads, warmup, repeats)
    with _Bench(package, threads, warmup, post_processing, timeout_s) as bench:
        bench.sample(repeats)
        return bench.report()


def compare(
    package: Package | Subject,
    against: Package | Subject,
    *,
    threads: int = 1,
    warmup: int = 10,
    repeats: int = 100,
    block: int = 10,
    post_processing: bool = False,
    timeout_s: float = TIMEOUT_S,
) -> Comparison:
    """Measure two packages in alternation, ``repeats`` timed invokes of each.

    A round is a block of ``block`` invokes of each, its order swapped every round. A block starts
    with one more invoke that is not timed, for the other package has just had the caches. Raises
    what ``measure`` raises.
    """
    _check(threads, warmup, repeats)
    if block < 1:
        raise UsageError(f"block is {block}, it must be >= 1")
    blocks = [min(block, repeats - start) for start in range(0, repeats, block)]
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(_Bench(each, threads, warmup, post_processing, timeout_s))
            for each in (package, against)
        )
        round_ratios = []
        for index, count in enumerate(blocks):
            medians_ms = {}
            for bench in (first, second) if index % 2 == 0 else (second, first):
                bench.discard(1)
                medians_ms[bench] = float(np.median(bench.sample(count)))
            round_ratios.append(medians_ms[first] / medians_ms[second])
        a, b = first.report(), second.report()
    q25, q75 = np.percentile(round_ratios, [25, 75])
    return Comparison(
        package=a,
        against=b,
        block_count=block,
        latency_ratio=a.p50_ms / b.p50_ms,
        round_ratios=tuple(round_ratios),
        ratio_q25=float(q25),
        ratio_q75=float(q75),
        ratio_min=min(round_ratios),
        ratio_max=max(round_ratios),
    )


def bench_input(package: Package) -> tuple[NDArray[np.float32], str]:
    """The array to run and what it is.

    Golden image 0, or seeded noise where the package has no golden vectors.

    A fixed batch is filled with copies of the image; a dynamic one is run at 1.
    """
    spec = package.manifest.inputs[0]
    if package.golden is not None:
        golden = read_golden(package.golden)
        image, name = golden.images[:1], f"golden image 0: {golden.names[0]}"
    else:
        noise = np.random.default_rng(0).integers(0, 256, (1, *spec.crop, 3), dtype=np.uint8)
        image, name = noise, "noise, seed 0"
    return to_input(np.repeat(image, max(spec.shape[0], 1), axis=0), spec), name


class _Bench:
    """An artifact in its worker, opened and warmed up, and the samples taken of it so far."""

    def __init__(
        self, package: Package | Subject, threads: int, warmup: int, post_processing: bool, timeout_s: float
    ) -> None:
        self._subject = Subject.of(package) if isinstance(package, Package) else package
        self._threads, self._warmup, self._post_processing = threads, warmup, post_processing
        self._timeout_s = timeout_s
        self._samples_ms: list[float] = []

    def __enter__(self) -> Self:
        subject = self._subject
        self._load_before = os.getloadavg()[0]
        with ExitStack() as stack:
            self._worker = stack.enter_context(Worker(subject.name, timeout_s=self._timeout_s))
            self._opened = self._worker.open(
                subject.format,
                subject.artifact,
                subject.x,
                self._threads,
                subject.function,
                subject.detection if where_chosen(subject.detection, self._post_processing) == "runner" else None,
            )
            self._worker.invoke(self._warmup)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def discard(self, count: int) -> None:
        self._worker.invoke(count)

    def sample(self, count: int) -> list[float]:
        samples_ms = self._worker.invoke(count)
        self._samples_ms += samples_ms
        return samples_ms

    def report(self) -> LatencyReport:
        subject = self._subject
        return LatencyReport(
            package=subject.name,
            artifact_sha256=subject.artifact_sha256,
            model=subject.model,
            format=subject.format,
            precision=subject.precision,
            target=subject.target,
            on="host",
            runtime=RuntimeInfo(**self._opened["runtime"]),
            accelerator="all" if subject.format == "coreml" else "cpu",
            threads=self._threads,
            input=subject.input,
            post_processing=where_chosen(subject.detection, self._post_processing),
            warmup_count=self._warmup,
            cold_load_ms=self._opened["cold_load_ms"],
            samples_ms=tuple(self._samples_ms),
            **percentiles_ms(self._samples_ms),
            baseline_memory_bytes=self._opened["baseline_memory_bytes"],
            peak_memory_bytes=self._worker.peak_memory_bytes(),
            golden=None,  # dmf-verify checks them here
            compute_plan=None,
            invalid_because=("too_few_samples",) if len(self._samples_ms) < FEWEST_SAMPLES else (),
            conditions=_conditions(self._load_before),
        )


def _conditions(load_before: float) -> Conditions:
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return Conditions(
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=platform.machine(),
        cpu=cpu_model(),
        logical_cores=len(affinity(0)) if affinity else os.cpu_count() or 1,
        os=platform.platform(),
        python=platform.python_version(),
        governor=governor.read_text().strip() if governor.exists() else None,
        load_average_before=load_before,
        load_average_after=os.getloadavg()[0],
        device=None,
    )


def cpu_model() -> str:
    """The name of this host's CPU."""
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()  # ARM Linux names no model


def _check(threads: int, warmup: int, repeats: int) -> None:
    for name, value, least in (
        ("threads", threads, 1),
        ("warmup", warmup, 0),
        ("repeats", repeats, 1),
    ):
        if value < least:
            raise UsageError(f"{name} is {value}, it must be >= {least}")
