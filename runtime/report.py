"""Reports as text for people."""

from collections.abc import Sequence

from runtime.instructions import InstructionReport
from runtime.measure import Comparison, LatencyReport

HEADER = ("package", "runtime", "threads", "p50 ms", "p90 ms", "p99 ms", "load ms", "peak MiB")


def _row(report: LatencyReport) -> tuple[str, ...]:
    times_ms = (report.p50_ms, report.p90_ms, report.p99_ms, report.cold_load_ms)
    return (
        report.package,
        f"{report.runtime.name} {report.runtime.version}",
        str(report.threads),
        *(f"{time_ms:.3f}" for time_ms in times_ms),
        f"{report.peak_memory_bytes / 2**20:.0f}",
    )


def latency_text(reports: Sequence[LatencyReport]) -> str:
    """The reports as aligned columns, numbers to the right."""
    return _aligned([HEADER, *map(_row, reports)], left=2)


def comparison_text(comparison: Comparison) -> str:
    """The ratio of the two medians and its spread over the rounds, on one line."""
    return (
        f"{comparison.package.package} takes {comparison.latency_ratio:.3f} x the time of "
        f"{comparison.against.package} "
        f"(quartiles {comparison.ratio_q25:.3f} to {comparison.ratio_q75:.3f}, "
        f"range {comparison.ratio_min:.3f} to {comparison.ratio_max:.3f}, "
        f"{len(comparison.round_ratios)} rounds)"
    )


def instructions_text(reports: Sequence[InstructionReport]) -> str:
    """The counts as aligned columns, under a line that says what they are."""
    rows = [("package", "runtime", "CPU", "instructions")]
    rows += [
        (each.package, f"{each.runtime.name} {each.runtime.version}", each.cpu, f"{each.instructions:,}")
        for each in reports
    ]
    title = f"Instructions of one inference, one thread, on {reports[0].on}. A count, not latency."
    return f"{title}\n{_aligned(rows, left=3)}"


def _aligned(rows: Sequence[Sequence[str]], left: int) -> str:
    """Columns, the first ``left`` to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
