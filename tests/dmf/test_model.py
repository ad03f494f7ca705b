"""The whole network: shapes, image sizes, batches, and what eval mode switches off."""

from dataclasses import replace

import pytest
import torch
from released_forward import features, forward
from released_layout import WIDTHS, random_state

import dmf

CHANNELS = {
    "dmf_nano": (12, 16, 24, 40),
    "dmf_xxs": (20, 36, 88, 120),
    "dmf_xs": (30, 54, 132, 180),
    "dmf_s": (40, 72, 176, 240),
}


@pytest.mark.parametrize("variant", CHANNELS)
def test_features_have_strides_4_to_32(variant):
    model = dmf.create_model(variant)
    with torch.no_grad():
        maps = model.forward_features(torch.zeros(2, 3, 64, 96))
        logits = model(torch.zeros(2, 3, 64, 96))
    expected = [(2, c, 64 // s, 96 // s) for c, s in zip(CHANNELS[variant], (4, 8, 16, 32), strict=True)]
    assert [tuple(m.shape) for m in maps] == expected
    assert logits.shape == (2, model.config.num_classes)


@pytest.mark.parametrize("size", [(32, 32), (96, 32), (64, 160), (224, 224)])
def test_any_divisible_size(size, images, scratch):
    widths, batch = WIDTHS["dmf_nano"], images(2, *size)
    state = random_state(widths, seed=5)
    torch.save(state, scratch / "weights.pth")
    model = dmf.load_checkpoint(scratch / "weights.pth").double()
    with torch.no_grad():
        logits, maps = model(batch), model.forward_features(batch)
    expected = forward(state, widths, batch)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-9)
    all_maps = features(state, widths, batch)
    for i, found in zip((0, 1, 3, 4), maps, strict=True):
        torch.testing.assert_close(found, all_maps[i], rtol=0, atol=1e-9)
    assert (logits - forward(state, widths, batch.flip(3))).abs().max() > 1e-3  # mirrored images


@pytest.mark.parametrize("size", [(48, 64), (64, 65), (31, 32), (16, 16), (0, 32)])
def test_indivisible_sizes(size, nano):
    with pytest.raises(ValueError, match=f"images are {size[0]} x {size[1]}; both sides must be multiples of 32"):
        nano()(torch.zeros(1, 3, *size))
    with pytest.raises(ValueError, match="multiples of 32"):
        nano().forward_features(torch.zeros(1, 3, *size))


@pytest.mark.parametrize(
    "changes",
    [{}, {"grn": "spatial"}, {"token_input": False, "routing": "softmax"}],
    ids=["paper", "spatial GRN", "ablated"],
)
def test_a_batch_is_its_samples(changes, nano, images):
    model, batch = nano(**changes).double(), images(4)
    with torch.no_grad():
        logits, maps = model(batch), model.forward_features(batch)
        each = torch.cat([model(batch[i : i + 1]) for i in range(4)])
        each_map = [torch.cat(m) for m in zip(*(model.forward_features(b[None]) for b in batch), strict=True)]
    torch.testing.assert_close(logits, each, rtol=0, atol=1e-9)
    for found, expected in zip(maps, each_map, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    assert min((logits[i] - each[j]).abs().max() for i in range(4) for j in range(4) if i != j) > 1e-3


def test_eval_mode_drops_nothing(nano, images):
    model = nano()
    without = dmf.DMF(replace(model.config, dropout=0.0, drop_path=0.0)).eval()
    much = dmf.DMF(replace(model.config, dropout=0.9, drop_path=0.9)).eval()
    without.load_state_dict(model.state_dict())
    much.load_state_dict(model.state_dict())
    batch = images(4).float()
    with torch.no_grad():
        expected = without(batch)
        assert torch.equal(model(batch), expected)
        assert torch.equal(much(batch), expected)
        torch.manual_seed(0)
        much.train()
        assert not torch.allclose(much(batch), much(batch))


def test_eval_mode_keeps_statistics(nano, images):
    model, batch = nano(), images(4).float()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model(batch)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    model.train()(batch)
    changed = {key for key, value in model.state_dict().items() if not torch.equal(before[key], value)}
    assert changed == {key for key in before if key.endswith(("running_mean", "running_var", "num_batches_tracked"))}


def test_fresh_models_are_in_eval_mode_and_every_parameter_learns(nano, images):
    assert not dmf.create_model("dmf_nano").training
    model = nano()
    model(images(2).float()).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())
