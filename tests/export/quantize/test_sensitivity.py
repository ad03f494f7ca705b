"""The damage of one module against a float64 graph that had just its weights rounded by hand, sample by sample."""

import copy
from dataclasses import replace
from math import inf

import numpy as np
import pytest
import torch
from PIL import Image

import dmf
from export.lowering import Lowering, lower
from export.quantize.sensitivity import HEADER, Damage, draw, sensitivity, table
from export.reparameterize import reparameterize
from export.verify.inputs import PHOTOGRAPHS, normalize, photograph

MODULES = {  # the model's -> the lowered graph's that hold its weights
    "stem.conv": ["stem.0"],
    "blocks.1.dynamic_mobile.pw_conv1": ["blocks.1.pw_conv1.generate.0.linear"],
    "blocks.2.dynamic_mobile.dw_conv": ["blocks.2.dw_conv.generate.0.linear"],
    "blocks.3.dynamic_mobile.dw_conv.kernel_attention.net1": ["blocks.3.dw_conv.routing.net1"],
    "blocks.4.former.token_attention.qkv": ["blocks.4.former.qkv"],
    "head.fc2": ["fc2"],
}


@pytest.fixture(scope="module")
def model():
    """BN statistics and kernel banks are random."""
    return dmf.seed_weights(dmf.create_model("dmf_nano"), 0)


@pytest.fixture(scope="module")
def graph(model):
    return lower(reparameterize(copy.deepcopy(model).double()).float(), Lowering.parse("matmul/taps"), equalize=True)


@pytest.fixture(scope="module")
def images():
    return normalize(np.stack([photograph(name, 64, 64) for name in PHOTOGRAPHS]))


@pytest.fixture(scope="module")
def damages(graph, images):
    return {precision: sensitivity(graph, images, precision) for precision in ("fp16", "w8")}


def round_by_hand(weight, precision, one_scale):
    values = weight.numpy()
    if precision == "fp16":
        return values.astype(np.float16).astype(np.float64)
    rows = values.reshape(1 if one_scale else len(values), -1)
    return np.stack([np.rint(row / (m := np.abs(row).max() / 127)) * m for row in rows]).reshape(values.shape)


@torch.no_grad()
def by_hand(graph, images, names, precision):
    """Mean square of the logits' change, number of weights, bytes saved."""
    exact, changed, count, saved = copy.deepcopy(graph).double(), copy.deepcopy(graph).double(), 0, 0
    for name in names:
        weight = changed.get_submodule(name).weight
        weight.copy_(torch.from_numpy(round_by_hand(weight.detach(), precision, name.endswith("linear"))))
        count += weight.numel()
        saved += 2 * weight.numel() if precision == "fp16" else 3 * weight.numel()
        saved -= 0 if precision == "fp16" else 4 * (1 if name.endswith("linear") else len(weight))
    change = torch.cat([changed(image) - exact(image) for image in images.double().split(1)])
    return float(change.square().mean()), count, saved


@pytest.mark.parametrize("precision", ["fp16", "w8"])
def test_damage_is_that_of_one_module_alone(precision, graph, images, damages):
    found = {each.module: each for each in damages[precision]}
    pieces = [name for name, _ in graph.named_modules() if name.startswith("blocks.1.pw_conv1.generate.")]
    assert [name for name in pieces if name.endswith("linear")] == MODULES["blocks.1.dynamic_mobile.pw_conv1"]
    expected = {module: by_hand(graph, images, names, precision) for module, names in MODULES.items()}
    for module, (mean_square, count, saved) in expected.items():
        assert found[module].mean_square == pytest.approx(mean_square, rel=0.05), module
        assert (found[module].weights, found[module].saved_bytes) == (count, saved)
    squares = [square for square, _, _ in expected.values()]
    for module, other in zip(expected, squares[1:] + squares[:1], strict=True):  # another module's is not it
        assert found[module].mean_square != pytest.approx(other, rel=0.05)


@torch.no_grad()
def test_decibels_are_of_the_peak_over_the_rms(graph, images):
    """Also where the largest logit is a negative one: the network is negated for it."""
    negated = copy.deepcopy(graph)
    negated.fc2.weight.data.neg_()
    negated.fc2.bias.data.neg_()
    peaks = []
    for network in (graph, negated):
        logits = network(images[:1]).numpy()
        peaks.append((logits.max(), -logits.min()))
        for each in sensitivity(network, images[:1], "w8"):
            expected = 20 * np.log10(max(peaks[-1]) / np.sqrt(each.mean_square))
            assert each.psnr_db == pytest.approx(expected)
            assert each.psnr_db != pytest.approx(expected - 10 * np.log10(each.mean_square))
    assert peaks[0] == pytest.approx(peaks[1][::-1]) and abs(peaks[0][0] - peaks[0][1]) > 0.01
    assert replace(each, mean_square=0.0).psnr_db == inf


def test_every_module_with_weights_is_there_under_the_models_name(model, graph, damages):
    names = {name for name, _ in model.named_modules()}
    for rows in damages.values():
        assert len({each.module for each in rows}) == len(rows) == 108
        assert {each.module for each in rows} <= names
        total = sum(t.numel() for t in [*graph.parameters(), *graph.buffers()])
        assert 0.95 * total < sum(each.weights for each in rows) < total


def test_eight_bits_do_more_damage_than_sixteen_and_save_more(damages):
    fine = {each.module: each for each in damages["fp16"]}
    assert all(each.mean_square > fine[each.module].mean_square for each in damages["w8"])
    assert all(each.saved_bytes > fine[each.module].saved_bytes for each in damages["w8"])


def test_the_planted_module_is_the_worst(graph, images, damages):
    """An outlier in every row takes the int8 steps away from the other weights; fp16 does not mind."""
    planted = copy.deepcopy(graph)
    planted.blocks[2].former.fc1.weight.data[:, 0] *= 300
    for precision, worst in (("w8", True), ("fp16", False)):
        ranked = sensitivity(planted, images, precision)
        assert [each.mean_square for each in ranked] == sorted((each.mean_square for each in ranked), reverse=True)
        assert (ranked[0].module == "blocks.2.former.mlp.fc1") == worst
        assert damages[precision][0].module != "blocks.2.former.mlp.fc1"


def test_the_graph_is_left_as_it_was(graph, images):
    state = copy.deepcopy(graph.state_dict())
    tensors = {name: tensor.data_ptr() for name, tensor in graph.state_dict().items()}
    sensitivity(graph, images[:1], "w8")
    assert tensors == {name: tensor.data_ptr() for name, tensor in graph.state_dict().items()}
    failing, seen = copy.deepcopy(graph), []

    def fail(module, inputs, output):
        seen.append(torch.equal(failing.stem[0].weight, state["stem.0.weight"]))
        if len(seen) > 1:
            raise RuntimeError("planted")

    failing.fc2.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="planted"):
        sensitivity(failing, images[:1], "w8")
    assert seen == [True, False]  # it failed while the stem's weights were rounded
    for each in (graph, failing):
        assert all(torch.equal(tensor, state[name]) for name, tensor in each.state_dict().items())


def test_a_table_has_a_line_per_module(damages):
    lines = table(damages["w8"]).splitlines()
    assert lines[0].split()[0] == HEADER[0]
    assert len({len(line) for line in lines}) == 1
    for line, each in zip(lines[1:], damages["w8"], strict=True):
        module, weights, *_, decibels = line.split()
        assert (module, int(weights)) == (each.module, each.weights)
        assert float(decibels) == pytest.approx(each.psnr_db, abs=0.05)


def test_a_picture_shows_the_damages(damages, tmp_path):
    nothing = [replace(each, mean_square=0.0) for each in damages["w8"]]
    many = [
        Damage(f"{each.module}.{i}", 9, 9, each.mean_square, each.peak) for each in damages["w8"] for i in (0, 1, 2)
    ]
    drawn = {}
    for name, rows in {
        "w8": damages["w8"],
        "fp16": damages["fp16"],
        "0": nothing,
        "one": many[:1],
        "many": many,
    }.items():
        draw(rows, "title", tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as file:
            assert file.format == "PNG" and file.size == (1200, 700)
            drawn[name] = np.asarray(file.convert("RGB")).tobytes()
    assert len(set(drawn.values())) == len(drawn)
    draw(damages["w8"], "title", tmp_path / "again.png")
    with Image.open(tmp_path / "again.png") as file:
        assert np.asarray(file.convert("RGB")).tobytes() == drawn["w8"]
