"""Instructions per inference of packages, counted on an emulated ARM64 CPU: exact, and not latency.

A count compares two variants of a network on one CPU and one runtime. It says nothing of caches, memory or issue width,
so it compares neither CPUs nor runtimes, and no time follows from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from runtime import documents
from runtime.arm64.runner import TIMEOUT_S, WARMUP, Workload, check_emulated, count_instructions, silent
from runtime.arm64.setup import Say
from runtime.latency import RuntimeInfo
from runtime.manifest import Package
from runtime.measure import bench_input

SCHEMA = "instructions-v1"


@dataclass(frozen=True)
class InstructionReport:
    """One package on one CPU; the schema describes each field."""

    package: str
    artifact_sha256: str
    model: str
    format: str
    precision: str
    target: str
    on: str
    cpu: str
    runtime: RuntimeInfo
    threads: int
    input: str
    warmup_count: int
    instructions: int
    counted_at: str


@dataclass(frozen=True)
class InstructionResults:
    """The document ``dmf-bench --count instructions --json`` writes."""

    schema_version: int = field(default=1, kw_only=True)
    reports: tuple[InstructionReport, ...]

    def render(self) -> str:
        """The document as validated text."""
        return documents.render_json(documents.to_json(self), SCHEMA, "instruction counts")


def write_counts(path: Path | str, results: InstructionResults) -> None:
    """Write the counts whole or not at all."""
    documents.write_json(Path(path), documents.to_json(results), SCHEMA)


def read_counts(path: Path | str) -> InstructionResults:
    """The counts at ``path``. UsageError: not JSON, or a violation of the schema."""
    return documents.from_json(InstructionResults, documents.read_json(Path(path), SCHEMA))


def count(
    packages: Sequence[Package], cpu: str, *, timeout_s: float = TIMEOUT_S, say: Say = silent
) -> list[InstructionReport]:
    """Count one inference of each package on an emulated ``cpu``, all of them in one process.

    The input is the one that latency is measured with. Raises as `count_instructions` does.
    """
    for package in packages:
        check_emulated(package.manifest.format, package.artifact, cpu)
    inputs = [bench_input(package) for package in packages]
    workloads = [
        Workload(package.manifest.format, package.artifact, x) for package, (x, _) in zip(packages, inputs, strict=True)
    ]
    counts = count_instructions(workloads, cpu, timeout_s=timeout_s, say=say)
    return [
        InstructionReport(
            package=package.manifest.name,
            artifact_sha256=package.artifact_sha256,
            model=package.manifest.model.variant,
            format=package.manifest.format,
            precision=package.manifest.precision,
            target=package.manifest.target,
            on="arm64, emulated by qemu 7.2",
            cpu=cpu,
            runtime=each.runtime,
            threads=1,
            input=name,
            warmup_count=WARMUP,
            instructions=each.instructions,
            counted_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        for package, (_, name), each in zip(packages, inputs, counts, strict=True)
    ]
