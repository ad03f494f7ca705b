"""Stochastic depth."""

import pytest
import torch

import dmf
from dmf.model import DropPath

SAMPLES = 20_000


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_training_drops_samples_and_keeps_the_mean(probability):
    torch.manual_seed(0)
    x = torch.randn(SAMPLES, 2, 3, dtype=torch.float64) + 3
    y = DropPath(probability).train()(x)
    ratio = y / x
    kept = ratio[:, 0, 0] != 0
    assert torch.equal(ratio != 0, kept[:, None, None].expand_as(ratio))  # a sample as a whole
    torch.testing.assert_close(ratio[kept], torch.full_like(ratio[kept], 1 / (1 - probability)))
    mean = ratio.mean().item()
    assert mean == pytest.approx(kept.double().mean().item() / (1 - probability), abs=1e-12)
    five_sigma = 5 * (probability / (1 - probability) / SAMPLES) ** 0.5
    assert mean == pytest.approx(1, abs=five_sigma)
    assert mean * (1 - probability) != pytest.approx(1, abs=five_sigma)  # dropped but not scaled up


@pytest.mark.parametrize(("probability", "training"), [(0.9, False), (0.0, True)])
def test_nothing_is_dropped(probability, training):
    x = torch.randn(100, 4)
    assert torch.equal(DropPath(probability).train(training)(x), x)
    assert not torch.equal(DropPath(0.9).train()(x), x)


def test_probabilities_grow_linearly():
    model = dmf.create_model("dmf_xxs")
    for i, block in enumerate(model.blocks):
        parts = [m.probability for m in block.modules() if isinstance(m, DropPath)]
        assert len(parts) == 3
        assert parts == pytest.approx([0.1 * i / 12] * 3, abs=1e-7)
    assert model.end_mobile2former.drop[1].probability == pytest.approx(0.1 * 11 / 12, abs=1e-7)
    assert model.end_former.drop_path.probability == pytest.approx(0.1, abs=1e-7)
