"""What `make instructions` lets pass and what it does not."""

import pytest

from benchmarks.instructions import regressions

STORED = {"dmf_nano tflite": {"dynamic": 1_000_000, "twin": 900_000, "ratio": 1_000_000 / 900_000}}


def found(dynamic: int, twin: int) -> dict[str, dict[str, float]]:
    return {"dmf_nano tflite": {"dynamic": dynamic, "twin": twin, "ratio": dynamic / twin}}


@pytest.mark.parametrize(("dynamic", "twin"), [(1_000_000, 900_000), (1_029_000, 926_000), (500_000, 450_000)])
def test_up_to_three_per_cent_pass(dynamic, twin):
    assert regressions(found(dynamic, twin), STORED) == []


def test_a_higher_count_fails():
    (fault,) = regressions(found(1_031_000, 950_000), STORED)
    assert fault.startswith("dmf_nano tflite: dynamic 1.031e+06 was 1e+06")


def test_a_higher_ratio_to_the_twin_fails_even_if_the_count_is_lower():
    (fault,) = regressions(found(990_000, 860_000), STORED)
    assert fault.startswith("dmf_nano tflite: ratio")


def test_what_is_not_stored_fails():
    assert "store it with --store" in regressions({"dmf_s tflite": STORED["dmf_nano tflite"]}, STORED)[0]
