"""LiteRT's own ``benchmark_model`` on a phone: its command line, its summary, and the phone's state around it.

It runs from a shell, not from an activity in front, and keeps no samples: its figures are for a first look.
"""

import re
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath

from runtime.adb import Phone
from runtime.detections import where_chosen
from runtime.latency import (
    FEWEST_SAMPLES,
    Accelerator,
    Conditions,
    Device,
    DeviceState,
    Flag,
    LatencyReport,
    RuntimeInfo,
)
from runtime.manifest import Package

FLAGS = {"cpu": "xnnpack", "gpu": "gpu", "nnapi": "nnapi"}
NAMES = {"cpu": "XNNPACK", "gpu": "GPU", "nnapi": "NNAPI"}
STATISTICS = re.compile(
    r"count=(?P<count>\d+) first=\S+ curr=\S+ min=(?P<min>\S+) max=\S+ avg=(?P<mean>\S+) std=\S+"
    r" p5=\S+ median=(?P<median>\S+) p95=\S+"
)


@dataclass(frozen=True)
class Summary:
    """What ``benchmark_model`` prints of the timed runs. ``partitions`` of the graph ran on ``accelerator``."""

    accelerator: Accelerator
    partitions: int
    load_ms: float
    count: int
    median_ms: float
    mean_ms: float
    min_ms: float
    peak_memory_bytes: int | None


def command(
    tool: PurePosixPath,
    artifact: PurePosixPath,
    accelerator: Accelerator,
    threads: int,
    warmup: int,
    repeats: int,
    *,
    half: bool,
) -> str:
    """The command line: exactly ``repeats`` timed runs after ``warmup``; on a GPU in fp16 only if ``half``."""
    options = {
        "graph": artifact,
        "num_threads": threads,
        "warmup_runs": warmup,
        "warmup_min_secs": 0,
        "num_runs": repeats,
        "min_secs": 0,
        "max_secs": 3600,
        "report_peak_memory_footprint": "true",
        "gpu_precision_loss_allowed": str(half).lower(),
        **{f"use_{flag}": str(name == accelerator).lower() for name, flag in FLAGS.items()},
    }
    return shlex.join([str(tool), *(f"--{name}={value}" for name, value in options.items())])


def parse(output: str, accelerator: Accelerator, repeats: int) -> Summary:
    """The summary in what it printed.

    ValueError: something is missing, or the graph was not run by ``accelerator``, in which case the tool goes on
    silently on the CPU.
    """
    name = NAMES[accelerator]
    if not re.search(rf"Explicitly applied {name} delegate", output):
        raise ValueError(f"the {name} delegate was not applied")
    partly = re.search(rf"Explicitly applied {name} delegate, .* partially executed by the delegate w/ (\d+)", output)
    load = re.search(r"Inference timings in us: Init: (\d+)", output)
    timed = [match for match in STATISTICS.finditer(output) if int(match["count"]) == repeats]
    if load is None or not timed:
        raise ValueError(f"no statistics of {repeats} runs with their median; use one of LiteRT 1.0 or later")
    peak = re.search(r"Overall peak memory footprint \(MB\) via periodic monitoring: ([\d.]+)", output)
    median_ms, mean_ms, min_ms = (float(timed[-1][key]) / 1e3 for key in ("median", "mean", "min"))
    return Summary(
        accelerator,
        int(partly[1]) if partly else 1,
        float(load[1]) / 1e3,
        repeats,
        median_ms,
        mean_ms,
        min_ms,
        round(float(peak[1]) * 2**20) if peak else None,
    )


def device_state(phone: Phone) -> DeviceState:
    """What ``dumpsys``, ``settings`` and ``/sys`` tell of the phone now."""
    battery = phone.shell("dumpsys battery").stdout
    thermal = phone.shell("dumpsys thermalservice").stdout
    power = phone.shell("dumpsys power").stdout
    saver = phone.shell("settings get global low_power").stdout.strip()
    frequencies = phone.shell(
        "for core in /sys/devices/system/cpu/cpu[0-9]*; do cat $core/cpufreq/scaling_cur_freq || echo -; done"
    ).stdout.split()

    def number(pattern: str, text: str) -> int | None:
        match = re.search(pattern, text)
        return int(match[1]) if match else None

    temperature, awake = number(r"temperature: (-?\d+)", battery), re.search(r"mWakefulness=(\w+)", power)
    return DeviceState(
        thermal_status=number(r"Thermal Status: (\d+)", thermal),
        battery_temperature_c=None if temperature is None else temperature / 10,
        battery_percent=number(r"level: (\d+)", battery),
        charging="powered: true" in battery if "powered:" in battery else None,
        battery_saver={"0": False, "1": True}.get(saver),
        screen_on=None if awake is None else awake[1] == "Awake",
        frequencies_khz=tuple(int(word) if word.isdigit() else None for word in frequencies),
    )


def report(
    package: Package,
    summary: Summary,
    threads: int,
    warmup: int,
    properties: dict[str, str],
    before: DeviceState,
    after: DeviceState,
) -> LatencyReport:
    """The summary as a report, which is never valid: not from an activity in front. ValueError: no API level."""
    sdk = properties.get("ro.build.version.sdk", "")
    if not sdk.isdigit():
        raise ValueError(f"getprop says that the API level is {sdk!r}")
    manifest, states = package.manifest, (before, after)
    flags: dict[Flag, bool] = {
        "throttled": any(state.thermal_status for state in states),
        "battery_saver": any(state.battery_saver for state in states),
        "screen_off": any(state.screen_on is False for state in states),
        "too_few_samples": summary.count < FEWEST_SAMPLES,
        "not_foreground": True,
    }
    return LatencyReport(
        package=manifest.name,
        artifact_sha256=package.artifact_sha256,
        model=manifest.model.variant,
        format=manifest.format,
        precision=manifest.precision,
        target=manifest.target,
        on="android",
        runtime=RuntimeInfo("litert", "of benchmark_model", summary.partitions),
        accelerator=summary.accelerator,
        threads=threads,
        input="benchmark_model's own random values",
        post_processing=where_chosen(manifest.detection, by_runner=False),
        warmup_count=warmup,
        cold_load_ms=summary.load_ms,
        samples_ms=None,
        p50_ms=summary.median_ms,
        p90_ms=None,
        p99_ms=None,
        mean_ms=summary.mean_ms,
        min_ms=summary.min_ms,
        baseline_memory_bytes=None,
        peak_memory_bytes=summary.peak_memory_bytes,
        golden=None,
        compute_plan=None,
        invalid_because=tuple(flag for flag, raised in flags.items() if raised),
        conditions=Conditions(
            measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
            machine=properties.get("ro.product.cpu.abi", ""),
            cpu=properties.get("ro.soc.model") or properties.get("ro.hardware", ""),
            logical_cores=max(1, len(after.frequencies_khz)),
            os=f"Android {properties.get('ro.build.version.release', '?')} "
            f"(API {properties.get('ro.build.version.sdk', '?')})",
            python=None,
            governor=None,
            load_average_before=None,
            load_average_after=None,
            device=Device(
                manufacturer=properties.get("ro.product.manufacturer", ""),
                model=properties.get("ro.product.model", "unknown"),
                soc=properties.get("ro.soc.model") or None,
                sdk=int(sdk),
                app="benchmark_model",
                before=before,
                after=after,
            ),
        ),
    )
