"""The yardstick of a precision, against a network rounded by hand."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import dmf
from dmf.dynamic_conv import DynamicConv2d
from export.verify import stored
from export.verify.inputs import normalize, verification_inputs
from export.verify.reference import compute_reference
from export.verify.stored import in_precision, stored_weight, with_stored_weights


@pytest.fixture(scope="module")
def model():
    """Trained, with random BN statistics: what is folded later must not matter here."""
    network = dmf.load_checkpoint(dmf.pretrained("dmf_nano"), "dmf_nano").eval()
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.mul_(torch.rand(module.running_var.shape, generator=generator) * 0.2 + 0.9)
    return network


@pytest.fixture(scope="module")
def reference(model):
    return compute_reference(model, verification_inputs(model))


def worst(model, reference):
    """The largest error of each input, one at a time."""
    with torch.no_grad():
        logits = [model(image)[0] for image in normalize(reference.inputs.images).split(1)]
    return np.array(
        [
            np.abs(each.double().numpy() - row).max()
            for each, row in zip(logits, reference.outputs[0].values, strict=True)
        ]
    )


def test_int8_has_a_scale_per_output_channel():
    weight = torch.tensor([[[1.0, -0.5]], [[100.0, 0.3]], [[0.0, 0.0]]])
    expected = [[127 / 127, -round(0.5 * 127) / 127], [100, 0], [0, 0]]
    assert stored_weight(weight, "w8").flatten(1).tolist() == [pytest.approx(row) for row in expected]
    assert stored_weight(torch.tensor([[1 + 2**-12]]), "fp16").item() == 1
    assert stored_weight(weight, "fp32") is weight


@pytest.mark.parametrize("precision", ["fp16", "w8"])
def test_the_first_is_the_error_of_the_network_with_rounded_weights(precision, model, reference, monkeypatch):
    by_hand = copy.deepcopy(model)
    for module in by_hand.modules():
        for name, tensor in module.named_parameters(recurse=False):
            if isinstance(module, DynamicConv2d) and name == "kernel_bank":
                tensor.data = torch.stack([rounded_by_rows(kernel, precision) for kernel in tensor.data])
            elif isinstance(module, nn.Linear | nn.Conv2d | DynamicConv2d) and name != "bias":
                tensor.data = rounded_by_rows(tensor.data, precision)
    monkeypatch.setattr(stored, "ROUNDINGS", 1)
    expected = worst(by_hand, reference)
    found = in_precision(reference, model, precision, {}).outputs[0].yardsticks
    assert found == pytest.approx(expected, rel=1e-2)
    assert found != pytest.approx(reference.outputs[0].yardsticks, rel=1e-2)


@pytest.mark.parametrize("precision", ["fp16", "w8"])
def test_random_rounding_is_to_either_neighbour_and_right_on_average(precision):
    weight = torch.rand(1, 50, generator=torch.Generator().manual_seed(1)) * 0.9 + 0.05
    weight[0, 0] = 1.27  # int8 in steps of 0.01
    step = 0.01 if precision == "w8" else 2.0 ** (weight.log2().floor() - 10)
    dither = torch.Generator().manual_seed(0)
    drawn = torch.stack([stored_weight(weight, precision, dither) for _ in range(2000)])
    assert ((drawn - weight).abs() < 1.001 * step).all()
    assert ((drawn.mean(0) - weight).abs() < 0.06 * step).all()
    assert not ((stored_weight(weight, precision) - weight).abs() < 0.06 * step).all()


def test_the_largest_of_several_roundings_counts(model, reference, monkeypatch):
    several = in_precision(reference, model, "w8", {}).outputs[0].yardsticks
    monkeypatch.setattr(stored, "ROUNDINGS", 1)
    nearest = in_precision(reference, model, "w8", {}).outputs[0].yardsticks
    assert (several >= nearest).all()
    assert (several > 2 * nearest).any()


def rounded_by_rows(tensor, precision):
    if precision == "fp16":
        return tensor.half().float()
    rows = []
    for row in tensor.double():
        step = row.abs().max() / 127
        rows.append(torch.floor(row / step + 0.5) * step if step else row)
    return torch.stack(rows).float()


def test_exceptions_are_not_rounded(model):
    rounded = with_stored_weights(model, "w8", {"head": "fp32", "blocks": "fp16", "blocks.1.ffn": "fp32"})
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear | nn.Conv2d):
            continue
        weight, after = module.weight, rounded.get_submodule(name).weight
        if name.startswith(("head", "blocks.1.ffn")):
            assert torch.equal(after, weight), name
        elif name.startswith("blocks"):
            assert torch.equal(after, weight.half().float()), name
        else:
            assert len(after[0].unique()) <= 255
            assert not torch.equal(after, weight), name


def test_int8_activations_cost_more_and_clip_at_the_range_of_the_calibration(model, reference):
    pictures = reference.inputs.images
    w8 = in_precision(reference, model, "w8", {}).outputs[0].yardsticks
    known = in_precision(reference, model, "w8a8", {}, pictures).outputs[0].yardsticks
    dark = in_precision(reference, model, "w8a8", {}, pictures // 8).outputs[0].yardsticks
    assert (known > 1.5 * w8).any()
    assert known.max() < 0.3 * np.abs(reference.outputs[0].values).max()
    assert dark.max() > 2 * known.max()


def test_int8_activations_of_one_convolution_are_those_of_torch(model, reference, monkeypatch):
    """All but one convolution are left out; torch's own fake quantisation of its input and output is the oracle."""
    name = "blocks.2.ffn.pw_conv1"
    monkeypatch.setattr(stored, "ROUNDINGS", 1)
    others = {each: "w8" for each, module in model.named_modules() if isinstance(module, nn.Conv2d) and each != name}
    pictures = reference.inputs.images
    oracle = with_stored_weights(model, "w8", {})
    conv, seen = oracle.get_submodule(name), {}

    def fake(x, key):
        least, largest = seen[key]
        step = (largest - least) / 255
        return torch.fake_quantize_per_tensor_affine(x, step, round(-least / step), 0, 255)

    def record(x, key):
        least, largest = seen.get(key, (0.0, 0.0))
        seen[key] = min(least, x.min().item()), max(largest, x.max().item())

    hooks = [
        conv.register_forward_pre_hook(lambda _, x: record(x[0], "in")),
        conv.register_forward_hook(lambda _, __, y: record(y, "out")),
    ]
    with torch.no_grad():
        oracle(normalize(pictures))
    for hook in hooks:
        hook.remove()
    conv.register_forward_pre_hook(lambda _, x: (fake(x[0], "in"),))
    conv.register_forward_hook(lambda _, __, y: fake(y, "out"))
    expected = worst(oracle, reference)
    found = in_precision(reference, model, "w8a8", others, pictures).outputs[0].yardsticks
    assert found == pytest.approx(expected, rel=0.05)
    assert in_precision(reference, model, "w8", {}).outputs[0].yardsticks != pytest.approx(expected, rel=0.05)
