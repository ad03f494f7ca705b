"""The table of targets against the measurements it rests on."""

import json
from pathlib import Path

import pytest

from export.target import TARGETS
from runtime.meter import Meter

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_a_rows_evidence_is_there(target):
    assert target.evidence and all((ROOT / each).is_file() for each in target.evidence)


def rows(file):
    return json.loads((ROOT / "benchmarks" / "results" / file).read_text())


def test_litert_has_the_fastest_lowering():
    """By its ratio to the twin; and the next best is beyond the noise."""
    ratios = {
        row["lowering"]: row["ratio"]
        for row in rows("lowerings.json")
        if row["converter"] == "litert-torch" and row["lowering"] != "twin/twin"
    }
    assert len(ratios) == 4
    best, second, *_ = sorted(ratios, key=ratios.__getitem__)
    assert best == str(TARGETS["litert-cpu"].lowering)
    assert ratios[second] > Meter().noise * ratios[best]


def test_onnx_runtime_has_the_faster_of_two():
    """Its two best, by each other: the quartiles of matmul/conv's ratio to conv/conv are above 1."""
    (row,) = (row for row in rows("latency.json") if row["against"] in ("dmf_xxs-onnx", "dmf_xxs-onnx-conv_conv"))
    assert (row["lowering"], row["batch"], row["threads"]) == ("matmul/conv", 1, 1)
    assert str(TARGETS["onnxruntime-cpu"].lowering) == "conv/conv"
    assert 1 < row["ratio_q25"] < row["ratio_q75"]
