"""`seed_weights`: reproducible, and no tensor hides a mistake."""

import pytest
import torch
from torch import Tensor, nn

import dmf
from dmf.dynamic_conv import KernelAttention

CHANGES = {
    "paper": {},
    "pooled input only": {"token_input": False},
    "vanilla": {"residual_kernel": False, "bank_init": "random", "routing": "softmax", "num_kernels": 4},
    "released GRN": {"grn": "spatial"},
}


def same(a: dmf.DMF, b: dmf.DMF) -> dict[str, bool]:
    other = b.state_dict()
    return {key: torch.equal(value, other[key]) for key, value in a.state_dict().items()}


def constant(key: str) -> bool:
    return key.endswith(("temperature", "num_batches_tracked"))


def test_the_seed_alone_decides():
    torch.manual_seed(1)
    first = dmf.seed_weights(dmf.create_model("dmf_nano"), 5)
    torch.manual_seed(2)
    fresh = dmf.create_model("dmf_nano").train()
    fresh.set_temperature(7)
    state = torch.get_rng_state()
    second = dmf.seed_weights(fresh, 5)
    assert second is fresh
    assert not second.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(same(first, second).values())
    third = dmf.seed_weights(dmf.create_model("dmf_nano"), 6)
    assert not any(equal for key, equal in same(first, third).items() if not constant(key))
    assert all(same(first, dmf.seed_weights(third, 5)).values())  # whatever the weights were before


@pytest.mark.parametrize("changes", CHANGES)
def test_nothing_stays_at_its_initial_value(changes):
    model = dmf.create_model("dmf_nano", **CHANGES[changes])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for key, value in dmf.seed_weights(model, 0).state_dict().items():
        assert value.isfinite().all(), key
        if constant(key):
            assert torch.equal(value, before[key])
        else:
            assert (value == before[key]).double().mean() < 0.05, key  # statistics are rounded: 1.0 may come up
            assert value.numel() == 1 or value.std() > 0, key


def test_statistics_are_those_of_the_activations(nano):
    """So every BN gives values of the order of 1, for other pictures than those it was measured on."""
    model = nano(image_size=64)
    found = []
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.register_forward_hook(lambda norm, _, y: found.append((y.std() / norm.weight.abs().mean()).item()))
    generator = torch.Generator().manual_seed(99)
    with torch.no_grad():
        model(dmf.seeded.pictures(8, (64, 64), generator))
        assert min(found) > 0.2
        assert max(found) < 5
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.running_var.mul_(1e4)
        found.clear()
        model(dmf.seeded.pictures(8, (64, 64), generator))
    assert min(found) < 0.2


def spreads(model: dmf.DMF, images: Tensor) -> list[float]:
    """Of each kernel attention, how far the routing weights of the images lie apart at most."""
    found = []
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, pi: found.append((pi.amax(0) - pi.amin(0)).max().item()))
        for module in model.modules()
        if isinstance(module, KernelAttention)
    ]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("changes", CHANGES)
def test_the_routing_follows_the_input(changes, nano, images):
    model = nano(**CHANGES[changes]).double()
    found = spreads(model, images(4))
    assert len(found) == 16
    assert min(found) > 0.005
    assert max(spreads(model, images(1).expand(4, -1, -1, -1))) < 1e-9  # one image four times


def test_the_banks_matter(nano, images):
    """The dynamic part is no rounding error beside the agnostic kernel."""
    model = nano().double()
    with torch.no_grad():
        before = model(images())
        for module in model.modules():
            if isinstance(module, dmf.DynamicConv2d):
                module.kernel_bank.zero_()
        assert (model(images()) - before).abs().max() > 0.1


def test_a_float64_model_gets_the_same_weights():
    narrow = dmf.seed_weights(dmf.create_model("dmf_nano"), 3)
    wide = dmf.seed_weights(dmf.create_model("dmf_nano").double(), 3)
    other = dict(dmf.seed_weights(dmf.create_model("dmf_nano"), 4).named_parameters())
    for (name, a), b in zip(narrow.named_parameters(), wide.parameters(), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-6, atol=1e-7)
        assert not torch.allclose(other[name].double(), b, rtol=1e-3)
    for a, b in zip(narrow.buffers(), wide.buffers(), strict=True):
        torch.testing.assert_close(a.double(), b.double(), rtol=0.01, atol=0.01)  # rounded to half precision
