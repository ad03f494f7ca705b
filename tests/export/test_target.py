"""The table of targets against the measurements it rests on."""

import json
from pathlib import Path

import pytest

from export.convert import FORMATS
from export.target import TARGETS
from runtime.meter import Meter

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_a_rows_evidence_is_there(target):
    assert (ROOT / target.evidence).is_file()


@pytest.mark.parametrize("name", ["onnxruntime-cpu", "litert-cpu"])
def test_a_measured_row_is_the_fastest_that_was_measured(name):
    """To within the noise of a measurement; and the slowest would not be."""
    target = TARGETS[name]
    ratios = {
        row["lowering"]: row["ratio"]
        for row in json.loads((ROOT / target.evidence).read_text())
        if row["converter"] == FORMATS[target.format] and row["lowering"] != "twin/twin"
    }
    assert len(ratios) == 4
    assert ratios[str(target.lowering)] <= Meter().noise * min(ratios.values())
    assert max(ratios.values()) > Meter().noise * min(ratios.values())
