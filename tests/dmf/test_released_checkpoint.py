"""Checkpoints of the released code: their layout, and logits equal to an independent forward pass."""

import argparse
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from released_forward import RELEASED, features, forward
from released_layout import KEYS, SHA256, WIDTHS, digest, random_state, shapes
from safetensors.torch import save_file

import dmf

NANO = WIDTHS["dmf_nano"]
LARGEST_ERROR = 1e-9  # of logits in float64

MISTAKES = {
    "bank not scaled by 0.1": replace(RELEASED, bank_scale=1.0),
    "pooled input before the token": replace(RELEASED, token_first=False),
    "residual on the raw tokens": replace(RELEASED, normalised_residual=False),
    "GRN over channels": replace(RELEASED, grn_over_channels=True),
    "no shortcut in the FFN": replace(RELEASED, inner_shortcut=False),
    "temperature 1.01": replace(RELEASED, temperature=1.01),
}


@pytest.mark.parametrize("variant", SHA256)
def test_layout_is_the_released_codes(variant):
    found = shapes(WIDTHS[variant])
    assert len(found) == KEYS
    assert digest(found) == SHA256[variant]
    assert digest({**found, "tokens": [1, 5, 192]}) != SHA256[variant]


@pytest.mark.parametrize("variant", SHA256)
def test_logits_are_the_released_codes(variant, scratch, images):
    widths, batch = WIDTHS[variant], images(3)
    state = random_state(widths, seed=1)
    torch.save(state, scratch / "weights.pth")
    model = dmf.load_checkpoint(scratch / "weights.pth", variant).double()
    with torch.no_grad():
        logits = model(batch)
        maps = model.forward_features(batch)
    expected, expected_maps = forward(state, widths, batch), features(state, widths, batch)
    assert expected.std() > 0.1
    torch.testing.assert_close(logits, expected, rtol=0, atol=LARGEST_ERROR)
    for i, found in zip((1, 3, 7, 10), maps, strict=True):
        torch.testing.assert_close(found, expected_maps[i], rtol=0, atol=LARGEST_ERROR)
    assert (logits[[1, 2, 0]] - expected).abs().max() > 0.01  # samples exchanged


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("variant", ["dmf_nano", "dmf_xxs"])
def test_each_mistake_is_noticed(variant, mistake, images):
    widths, batch = WIDTHS[variant], images(1)
    state = random_state(widths, seed=1)
    error = (forward(state, widths, batch, MISTAKES[mistake]) - forward(state, widths, batch)).abs().max()
    assert error > 1e5 * LARGEST_ERROR


def test_a_new_head_sets_the_number_of_classes(scratch, images):
    widths = replace(NANO, classes=7)
    state = random_state(widths, seed=2)
    torch.save(state, scratch / "weights.pth")
    model = dmf.load_checkpoint(scratch / "weights.pth")
    assert model.config == replace(dmf.VARIANTS["dmf_nano"], num_classes=7, grn="spatial")
    with torch.no_grad():
        logits = model.double()(images(2))
    torch.testing.assert_close(logits, forward(state, widths, images(2)), rtol=0, atol=LARGEST_ERROR)


STATE = random_state(NANO, seed=3)
OTHER = random_state(NANO, seed=4)
PARALLEL = {f"module.{key}": value for key, value in STATE.items()}
CONTAINERS = {
    "plain": STATE,
    "plain, module.": PARALLEL,
    "model": {"model": STATE, "epoch": 3},
    "model, module.": {"model": PARALLEL, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}},
    "state_dict": {"state_dict": STATE},
    "state_dict, module.": {"state_dict": PARALLEL, "best": 76.0},
    "model_ema": {"model_ema": STATE},
    "model_ema, module.": {"model_ema": PARALLEL},
    "model_ema before model": {"model": OTHER, "model_ema": STATE},
    "empty model_ema": {"model": STATE, "model_ema": None},
    "state_dict in model_ema": {"model_ema": {"state_dict": STATE, "decay": 0.9995}, "model": OTHER},
    "with the script's arguments": {"model": STATE, "args": argparse.Namespace(lr=1e-3, data=["train"])},
    "float64": {key: value.double() if value.is_floating_point() else value for key, value in STATE.items()},
}


@pytest.fixture(scope="module")
def expected_logits():
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(2, 3, 64, 64, generator=generator, dtype=torch.float64)
    return batch, forward(STATE, NANO, batch), forward(OTHER, NANO, batch)


def check_logits(path: Path, expected_logits) -> None:
    batch, expected, other = expected_logits
    model = dmf.load_checkpoint(path)
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    with torch.no_grad():
        logits = model.double()(batch)
    torch.testing.assert_close(logits, expected, rtol=0, atol=LARGEST_ERROR)
    assert (logits - other).abs().max() > 0.01


@pytest.mark.parametrize("container", CONTAINERS)
def test_containers(container, scratch, expected_logits):
    torch.save(CONTAINERS[container], scratch / "weights.pth")
    check_logits(scratch / "weights.pth", expected_logits)


def test_container_of_old_torch(scratch, expected_logits):
    torch.save(STATE, scratch / "weights.pth", _use_new_zipfile_serialization=False)
    check_logits(scratch / "weights.pth", expected_logits)


@pytest.mark.parametrize("state", [STATE, PARALLEL], ids=["plain", "module."])
def test_safetensors_without_config(state, scratch, expected_logits):
    save_file(state, scratch / "weights.safetensors")
    check_logits(scratch / "weights.safetensors", expected_logits)
