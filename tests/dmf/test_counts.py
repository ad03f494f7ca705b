"""Parameters and multiply-accumulates of every variant, against the paper's and the released code's."""

import logging
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from released_layout import WIDTHS, shapes

import dmf

# parameters, multiply-accumulates at 224 x 224, and both in millions as the paper prints them
COUNTS = {
    "dmf_xxs": (15_075_208, 198.56e6, 15.1, 198),
    "dmf_xs": (19_805_516, 284.79e6, 19.8, 285),
    "dmf_s": (25_145_252, 499.88e6, 25.1, 499),
}
NANO_MACS = 3.49e6  # at 64 x 64: ours, so only held to what it was
NEITHER = {"residual_kernel": False, "bank_init": "random", "routing": "softmax", "num_kernels": 4}
TABLE_3 = {  # AFKA is `token_input`, RCKS the residual kernel; parameters in millions
    "neither": ({**NEITHER, "token_input": False}, 10.0),
    "AFKA": (NEITHER, 12.6),
    "RCKS": ({"token_input": False}, 12.4),
    "both": ({}, 15.1),
}


def parameters(model: dmf.DMF) -> int:
    return sum(p.numel() for p in model.parameters())


def macs(model: dmf.DMF, side: int) -> float:
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    counter = FlopCountAnalysis(model, torch.zeros(1, 3, side, side))
    return counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()


@pytest.mark.parametrize("variant", COUNTS)
def test_parameters(variant):
    count, _, paper, _ = COUNTS[variant]
    assert parameters(dmf.create_model(variant)) == count
    assert round(count / 1e6, 1) == paper
    assert parameters(dmf.create_model(variant, num_kernels=7)) != count


@pytest.mark.parametrize("variant", COUNTS)
def test_parameters_are_the_released_layouts(variant):
    """What is no parameter there is a BN statistic."""
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    layout = {k: torch.Size(s).numel() for k, s in shapes(WIDTHS[variant]).items() if not k.endswith(statistics)}
    assert sum(layout.values()) == COUNTS[variant][0]


def test_nano_is_small():
    assert parameters(dmf.create_model("dmf_nano")) <= 700_000


@pytest.mark.parametrize("variant", COUNTS)
def test_macs(variant):
    _, count, _, paper = COUNTS[variant]
    model = dmf.create_model(variant)
    assert macs(model, 224) == pytest.approx(count, rel=0.01)
    assert count / 1e6 == pytest.approx(paper, abs=1)
    assert macs(model, 256) != pytest.approx(count, rel=0.01)


def test_macs_of_nano():
    model = dmf.create_model("dmf_nano")
    assert macs(model, 64) == pytest.approx(NANO_MACS, rel=0.01)
    assert macs(dmf.create_model("dmf_nano", ffn_expansion=3), 64) != pytest.approx(NANO_MACS, rel=0.01)


@pytest.mark.parametrize("row", TABLE_3)
def test_table_3(row):
    changes, millions = TABLE_3[row]
    assert parameters(dmf.create_model("dmf_xxs", **changes)) / 1e6 == pytest.approx(millions, abs=0.1)


def test_table_3_rows_are_apart():
    """So that no row's model would pass for another's."""
    found = sorted(parameters(dmf.create_model("dmf_xxs", **changes)) / 1e6 for changes, _ in TABLE_3.values())
    assert min(b - a for a, b in pairwise(found)) > 0.1


def test_num_classes_changes_the_last_layer_alone():
    config = dmf.VARIANTS["dmf_nano"]
    more = dmf.DMF(replace(config, num_classes=config.num_classes + 1))
    assert parameters(more) - parameters(dmf.DMF(config)) == config.head_hidden + 1
