"""Reports as text for people."""

from collections.abc import Sequence

from runtime.instructions import InstructionReport
from runtime.latency import FEWEST_SAMPLES, Comparison, Flag, LatencyReport

HEADER = ("package", "on", "runtime", "threads", "p50 ms", "p90 ms", "p99 ms", "load ms", "peak MiB")
REMEDIES: dict[Flag, str] = {
    "throttled": "the phone was too hot: let it cool, off its charger",
    "battery_saver": "battery saver was on: turn it off",
    "screen_off": "the screen went off: keep it on",
    "too_few_samples": f"fewer than {FEWEST_SAMPLES} samples: give more --repeats",
    "not_foreground": "not measured by an app in front: use the app, and leave it in front",
    "wrong_answers": "the answers are not the golden ones: this accelerator computes something else",
}


def _row(report: LatencyReport) -> tuple[str, ...]:
    device = report.conditions.device
    peak_bytes = report.peak_memory_bytes
    chosen = " + objects" if report.post_processing == "runner" else ""
    return (
        f"{report.package}{chosen}",
        report.on if device is None else f"{device.model} {report.accelerator}",
        f"{report.runtime.name} {report.runtime.version}",
        str(report.threads),
        *(_milliseconds(each) for each in (report.p50_ms, report.p90_ms, report.p99_ms, report.cold_load_ms)),
        "-" if peak_bytes is None else f"{peak_bytes / 2**20:.0f}",
    )


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def latency_text(reports: Sequence[LatencyReport]) -> str:
    """The reports as aligned columns, numbers to the right; below them Core ML's plans, and what makes some invalid."""
    table = _aligned([HEADER, *map(_row, reports)], left=3)
    notes = [
        f"not valid: {' '.join(_row(report)[:2])}: {REMEDIES[flag]}"
        for report in reports
        for flag in report.invalid_because
    ]
    plans = [
        f"{' '.join(_row(report)[:2])}: Core ML plans {plan.cpu} operations on the CPU, {plan.gpu} on the GPU, "
        f"{plan.neural_engine} on the Neural Engine"
        for report in reports
        if (plan := report.compute_plan) is not None
    ]
    return "\n".join([table, *plans, *notes])


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
