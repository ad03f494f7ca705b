"""The README's table of phones, from result files that the app would write."""

import dataclasses

import pytest

from benchmarks import readme
from runtime.latency import (
    Conditions,
    Device,
    DeviceState,
    LatencyReport,
    Results,
    RuntimeInfo,
    percentiles_ms,
    write_results,
)

STATE = DeviceState(0, 31.2, 80, False, False, True, (1_800_000, None))


def report(samples_ms, **changes):
    device = Device("Maker", "Phone 1", None, 34, "org.dmf.demo 0.1.0", STATE, STATE)
    conditions = Conditions(
        "2026-11-23T08:00:00+00:00", "arm64-v8a", "soc", 8, "Android 14 (API 34)", None, None, None, None, device
    )
    whole = LatencyReport(
        package="tiny-tflite",
        artifact_sha256="0" * 64,
        model="tiny",
        format="tflite",
        precision="fp32",
        target="litert-cpu",
        on="android",
        runtime=RuntimeInfo("litert", "1.4.2", None),
        accelerator="cpu",
        threads=1,
        input="golden image 0: noise",
        post_processing=None,
        warmup_count=10,
        cold_load_ms=12.4,
        samples_ms=tuple(samples_ms),
        **percentiles_ms(samples_ms),
        baseline_memory_bytes=1 << 20,
        peak_memory_bytes=50 << 20,
        golden=None,
        compute_plan=None,
        invalid_because=(),
        conditions=conditions,
    )
    return dataclasses.replace(whole, **changes)


@pytest.fixture
def results(tmp_path, monkeypatch):
    (tmp_path / "devices").mkdir()
    monkeypatch.setattr(readme, "RESULTS", tmp_path)

    def write(name, *reports):
        write_results(tmp_path / "devices" / name, Results(reports=reports))

    return write


def test_runs_of_one_phone_are_one_row_and_invalid_ones_are_none(results):
    results("first.json", report([5.0] * 40), report([3.0] * 40, accelerator="gpu"))
    results("second.json", report([5.4] * 40), report([1.0] * 40, invalid_because=("throttled",)))
    results("third.json", report([5.2] * 40, cold_load_ms=11.6, peak_memory_bytes=52 << 20))
    assert readme.devices_table().splitlines()[2:] == [
        f"| Maker Phone 1 | Android 14 (API 34) | tiny-tflite | litert 1.4.2 | {row} |"
        for row in ("cpu | 1 | 5.20 (5.00 to 5.40) | 12 | 52 | 3", "gpu | 1 | 3.00 (3.00 to 3.00) | 12 | 50 | 1")
    ]


def test_no_phone_yet(results):
    results("only.json", report([1.0] * 40, invalid_because=("wrong_answers",)))
    assert "No phone has been measured yet" in readme.devices_table()
