"""The annealed temperature of the routing, against its closed form."""

import numpy as np
import pytest
import torch

from dmf.dynamic_conv import KernelAttention


def numpy_routing(attention: KernelAttention, x: np.ndarray, z: np.ndarray, temperature: float) -> np.ndarray:
    p = {key: value.numpy() for key, value in attention.state_dict().items()}
    h = np.concatenate([z, x.mean((2, 3))], 1) @ p["net1.weight"].T
    h = (h - p["bn.running_mean"]) / np.sqrt(p["bn.running_var"] + 1e-5) * p["bn.weight"] + p["bn.bias"]
    logits = np.maximum(h, 0) @ p["net2.weight"].T / temperature
    if attention.routing == "sigmoid":
        return 1 / (1 + np.exp(-logits))
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0, 30.0])
@pytest.mark.parametrize("routing", ["sigmoid", "softmax"])
def test_closed_form(routing, temperature, nano):
    model = nano(routing=routing).double()
    attention = model.blocks[2].dynamic_mobile.dw_conv.kernel_attention
    generator = np.random.default_rng(0)
    x, z = generator.normal(size=(3, 72, 5, 6)), generator.normal(size=(3, 64))
    model.set_temperature(temperature)
    with torch.no_grad():
        pi = attention(torch.from_numpy(x), torch.from_numpy(z)).numpy()
    np.testing.assert_allclose(pi, numpy_routing(attention, x, z, temperature), rtol=0, atol=1e-12)
    assert np.abs(pi - numpy_routing(attention, x, z, 2 * temperature)).max() > 1e-3


@pytest.mark.parametrize(("routing", "uniform"), [("sigmoid", 0.5), ("softmax", 1 / 8)])
def test_a_high_temperature_makes_the_routing_uniform(routing, uniform, nano, images):
    model = nano(routing=routing).double()
    found = []
    attentions = [module for module in model.modules() if isinstance(module, KernelAttention)]
    for attention in attentions:
        attention.register_forward_hook(lambda _module, _inputs, pi: found.append(pi))
    with torch.no_grad():
        model(images())
        assert all((pi - uniform).abs().max() > 0.01 for pi in found)
        found.clear()
        model.set_temperature(1e9)
        model(images())
    assert len(found) == len(attentions) == 3 * 5 + 1
    assert all((pi - uniform).abs().max() < 1e-6 for pi in found)


def test_the_temperature_changes_the_logits_and_can_be_set_back(nano, images):
    model = nano().double()
    with torch.no_grad():
        before = model(images())
        model.set_temperature(2)
        assert (model(images()) - before).abs().max() > 1e-3
        model.set_temperature(1)
        assert torch.equal(model(images()), before)


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf")])
def test_invalid(temperature, nano):
    model = nano()
    model.set_temperature(2.0)
    with pytest.raises(ValueError, match=r"temperature is .*; it must be positive and finite"):
        model.set_temperature(temperature)
    assert all(m.temperature == 2.0 for m in model.modules() if isinstance(m, KernelAttention))
