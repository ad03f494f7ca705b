"""Latency results as a document: reports with their raw samples and conditions, and comparisons of pairs.

The schema (``schemas/latency-v3.schema.json``) describes each field; the Android app writes the same document.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from runtime import documents

SCHEMA = "latency-v3"
ComputeUnits = Literal["all", "cpu_and_neural_engine", "cpu_and_gpu", "cpu_only"]
Accelerator = Literal["cpu", "gpu", "nnapi", ComputeUnits]
PostProcessing = Literal["none", "graph", "runner"]
Flag = Literal["throttled", "battery_saver", "screen_off", "too_few_samples", "not_foreground", "wrong_answers"]
FEWEST_SAMPLES = 30


@dataclass(frozen=True)
class RuntimeInfo:
    """The inference runtime; ``delegate_partitions`` is None for any but LiteRT."""

    name: str
    version: str
    delegate_partitions: int | None


@dataclass(frozen=True)
class DeviceState:
    """A phone's state at one moment; None is what its system does not tell."""

    thermal_status: int | None
    battery_temperature_c: float | None
    battery_percent: int | None
    charging: bool | None
    battery_saver: bool | None
    screen_on: bool | None
    frequencies_khz: tuple[int | None, ...]


@dataclass(frozen=True)
class Device:
    """A phone, ``before`` the artifact was opened and ``after`` the last sample."""

    manufacturer: str
    model: str
    soc: str | None
    sdk: int
    app: str
    before: DeviceState
    after: DeviceState


@dataclass(frozen=True)
class GoldenCheck:
    """How the golden vectors fared in the engine that was then measured; ``image`` is the worst."""

    passed: bool
    max_abs_error: float
    budget_abs_error: float
    image: str


@dataclass(frozen=True)
class PlannedOps:
    """Operations of one kind and module, by the unit that Core ML prefers for them."""

    op: str
    module: str | None
    cpu: int
    gpu: int
    neural_engine: int


@dataclass(frozen=True)
class ComputePlan:
    """How many operations Core ML prefers to run where."""

    cpu: int
    gpu: int
    neural_engine: int
    by_op: tuple[PlannedOps, ...]


@dataclass(frozen=True)
class Conditions:
    """The device and the state it was in.

    Load averages are over one minute, before the worker and after the samples; ``device`` is a phone's.
    """

    measured_at: str
    machine: str
    cpu: str
    logical_cores: int
    os: str
    python: str | None
    governor: str | None
    load_average_before: float | None
    load_average_after: float | None
    device: Device | None


@dataclass(frozen=True)
class LatencyReport:
    """One package measured on one accelerator of one device; the schema describes each field."""

    package: str
    artifact_sha256: str
    model: str
    format: str
    precision: str
    target: str
    on: str
    runtime: RuntimeInfo
    accelerator: Accelerator
    threads: int
    input: str
    post_processing: PostProcessing | None
    warmup_count: int
    cold_load_ms: float
    samples_ms: tuple[float, ...] | None
    p50_ms: float
    p90_ms: float | None
    p99_ms: float | None
    mean_ms: float
    min_ms: float
    baseline_memory_bytes: int | None
    peak_memory_bytes: int | None
    golden: GoldenCheck | None
    compute_plan: ComputePlan | None
    invalid_because: tuple[Flag, ...]
    conditions: Conditions


@dataclass(frozen=True)
class Comparison:
    """Two packages measured in alternation.

    Ratios are package / against, above 1 where the package is slower.
    """

    package: LatencyReport
    against: LatencyReport
    block_count: int
    latency_ratio: float
    round_ratios: tuple[float, ...]
    ratio_q25: float
    ratio_q75: float
    ratio_min: float
    ratio_max: float


@dataclass(frozen=True)
class Results:
    """The document ``dmf-bench --json`` writes."""

    schema_version: int = field(default=3, kw_only=True)
    reports: tuple[LatencyReport, ...] = ()
    comparisons: tuple[Comparison, ...] = ()

    def render(self) -> str:
        """The document as validated text."""
        return documents.render_json(documents.to_json(self), SCHEMA, "latency results")


def write_results(path: Path | str, results: Results) -> None:
    """Write the results whole or not at all."""
    documents.write_json(Path(path), documents.to_json(results), SCHEMA)


def read_results(path: Path | str) -> Results:
    """The results at ``path``. UsageError: not JSON, or a violation of the schema."""
    return documents.from_json(Results, documents.read_json(Path(path), SCHEMA))


def percentiles_ms(samples_ms: Sequence[float]) -> dict[str, float]:
    """p50, p90, p99 (linearly interpolated), mean and minimum, under the report's names."""
    p50, p90, p99 = (float(value) for value in np.percentile(samples_ms, [50, 90, 99]))
    return {
        "p50_ms": p50,
        "p90_ms": p90,
        "p99_ms": p99,
        "mean_ms": math.fsum(samples_ms) / len(samples_ms),
        "min_ms": min(samples_ms),
    }
