"""What artifacts are proven on."""

import numpy as np
import pytest
import torch

import dmf
from dmf.dynamic_conv import KernelAttention
from export.verify.inputs import (
    CANDIDATES,
    MEAN,
    PHOTOGRAPHS,
    STD,
    normalize,
    photograph,
    search_routing,
    verification_inputs,
)


def routing_weights(model, images):
    """(N, H, W, 3) -> (N, L * K), one sample at a time, read from the layers themselves."""
    rows = []
    for image in images:
        collected = []
        hooks = [
            module.register_forward_hook(lambda _m, _i, pi, into=collected: into.append(pi[0]))
            for module in model.modules()
            if isinstance(module, KernelAttention)
        ]
        with torch.no_grad():
            model(normalize(image[None]))
        for hook in hooks:
            hook.remove()
        rows.append(torch.cat(collected))
    return torch.stack(rows)


@pytest.mark.parametrize("routing", ["sigmoid", "softmax"])
@pytest.mark.parametrize("variant", ["dmf_nano", "dmf_xxs"])
def test_the_search_parts_the_routing_further_than_photographs_do(variant, routing):
    model = dmf.seed_weights(dmf.create_model(variant, routing=routing, image_size=64), 0)
    pair, apart = search_routing(model, 0)
    first, second = routing_weights(model, pair)
    assert float((first - second).abs().mean()) == pytest.approx(apart, rel=0.05)  # as rounded to 8 bits
    shots = routing_weights(model, [photograph(name, 64) for name in PHOTOGRAPHS])
    assert apart > 1.5 * float((shots[0] - shots[1]).abs().mean())
    assert apart > 0.2 * (1 if routing == "sigmoid" else 2 / 8)


def test_the_climb_helps():
    from export.verify import inputs

    model = dmf.seed_weights(dmf.create_model("dmf_nano"), 0)
    _, apart = search_routing(model, 0)
    steps, inputs.SEARCH_STEPS = inputs.SEARCH_STEPS, 0
    try:
        _, at_first = search_routing(model, 0)
    finally:
        inputs.SEARCH_STEPS = steps
    assert apart > 1.02 * at_first
    assert CANDIDATES > 2


def test_inputs_are_five_different_pictures_the_same_every_time():
    model = dmf.seed_weights(dmf.create_model("dmf_nano"), 0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    inputs, again = verification_inputs(model), verification_inputs(model)
    assert inputs.images.shape == (5, 64, 64, 3)
    assert inputs.images.dtype == np.uint8
    assert (inputs.images == again.images).all()
    assert inputs.names == again.names
    for i in range(5):
        for j in range(i):
            assert np.abs(inputs.images[i].astype(int) - inputs.images[j]).mean() > 5
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_normalize_is_its_formula():
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8)
    expected = ((images / 255.0 - np.array(MEAN)) / np.array(STD)).transpose(0, 3, 1, 2)
    assert np.abs(normalize(images, torch.float64).numpy() - expected).max() < 1e-15 * 10
    assert np.abs(normalize(images).numpy() - expected).max() < 1e-6
    assert np.abs(normalize(images[..., ::-1]).numpy() - expected).max() > 0.1  # BGR
