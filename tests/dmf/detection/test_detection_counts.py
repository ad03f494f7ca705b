"""Parameters and multiply-accumulates of the detectors against the paper's Tables 4 and 5, and against fvcore's."""

import json
import logging

import pytest
import torch
from fvcore.nn import FlopCountAnalysis

from benchmarks.detection_counts import PAPER, SIZES, count, tables
from benchmarks.run import RESULTS
from dmf.detection import create_detector


@pytest.fixture(scope="module")
def counts():
    """Of each detector of the paper, for each size."""
    found = {}
    for name in PAPER:
        detector = create_detector(name)
        found[name] = [count(detector, *size) for size in SIZES]
    return found


@pytest.mark.parametrize("name", PAPER)
def test_parameters_are_the_papers(counts, name):
    """As its tool prints them, with two digits, of which the paper keeps one: without the frozen stages."""
    trained, paper = counts[name][0].trained_parameters / 1e6, PAPER[name][0]
    assert trained == pytest.approx(paper, abs=0.07)
    assert counts[name][0].parameters / 1e6 > paper + 1.5  # all of them


@pytest.mark.parametrize("name", PAPER)
def test_operations_are_the_papers(counts, name):
    padded, usual = (c.as_the_papers_tool / 1e9 for c in counts[name])
    assert int(padded) == PAPER[name][1]
    assert int(usual) != PAPER[name][1]
    assert int(counts[name][0].macs / 1e9) != PAPER[name][1]  # everything


def test_of_a_small_one_is_fvcores():
    """fvcore counts the same products, and nothing for biases."""
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    detector = create_detector("retinanet_dmf_nano")
    counter = FlopCountAnalysis(detector, torch.zeros(1, 3, 64, 96))
    by_operator = counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False).by_operator()
    products = sum(by_operator[name] for name in ("conv", "linear", "matmul", "einsum", "bmm"))
    found = count(detector, 64, 96)
    assert found.macs == pytest.approx(products, rel=1e-3)
    assert found.layers != pytest.approx(products, rel=1e-3)


def test_the_parts_by_hand(counts):
    """The heads of RetinaNet, which are most of it: both towers and outputs at every place of the pyramid."""
    places = 100 * 168 + 50 * 84 + 25 * 42 + 13 * 21 + 7 * 11
    heads = places * 256 * 9 * (8 * 256 + 9 * 80 + 9 * 4)
    xxs = counts["retinanet_dmf_xxs"][0]
    assert 0.85 < heads / xxs.macs < 0.95
    assert xxs.relu == places * 8 * 256


def test_stored_results(counts):
    """They are what the command would write now."""
    rows = json.loads((RESULTS / "detection_counts.json").read_text(encoding="utf-8"))["rows"]
    assert [row["as_the_papers_tool"] for row in rows] == [c.as_the_papers_tool for cs in counts.values() for c in cs]
    assert [row["parameters"] for row in rows] == [c.parameters for cs in counts.values() for c in cs]
    text = tables(rows)
    assert "| retinanet_dmf_s | 800 x 1344 | 26.00 | 23.66 | 23.6 | " in "\n".join(text)
