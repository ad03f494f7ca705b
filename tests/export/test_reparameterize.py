"""Folds are exact: static graph and eager model agree in float64, whatever the ablation, form and layout."""

import copy
import itertools

import pytest
import torch
from torch import nn

import dmf
from dmf.seeded import pictures
from export import static
from export.layout import NCHW, NHWC
from export.lowering import NAMES, Lowering, lower
from export.reparameterize import reparameterize
from export.verify.reference import without_bank

VANILLA = {"residual_kernel": False, "bank_init": "random", "routing": "softmax", "num_kernels": 4}
CONFIGS = {
    "as published": {},
    "spatial GRN": {"grn": "spatial"},
    "pooled input only": {"token_input": False},
    "softmax": {"routing": "softmax"},
    "vanilla dynamic convolution": VANILLA,
    "neither": {"token_input": False, **VANILLA},
    "other shape": {"image_size": 96, "num_classes": 3, "num_kernels": 5, "num_tokens": 4},
}
LAYOUTS = {"NCHW": NCHW(), "NHWC": NHWC()}


def seeded(**changes):
    model = dmf.seed_weights(dmf.create_model("dmf_nano", **changes), 3).double()
    model.set_temperature(1.7)
    return model


def images(model, batch):
    return pictures(batch, (model.config.image_size,) * 2, torch.Generator().manual_seed(7)).double()


def error(graph, model, x):
    with torch.no_grad():
        reference = torch.cat([model(sample) for sample in x.split(1)])
        return ((graph(x) - reference).abs().max() / reference.abs().max()).item()


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("changes", CONFIGS.values(), ids=CONFIGS)
def test_the_static_graph_is_the_model(changes, batch):
    model = seeded(**changes)
    assert error(reparameterize(model), model, images(model, batch)) < 1e-10


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", [name for name in NAMES if "twin" not in name])
def test_every_lowering_is_the_model_in_both_layouts(name, layout, batch):
    model = seeded()
    graph = lower(reparameterize(model), Lowering.parse(name), LAYOUTS[layout], NCHW())
    assert error(graph, model, images(model, batch)) < 1e-10


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_twin_is_the_model_without_its_bank_and_not_the_model(layout):
    model = seeded()
    twin = lower(reparameterize(model), Lowering.parse("twin/twin"), LAYOUTS[layout], NCHW())
    assert error(twin, without_bank(model), images(model, 2)) < 1e-10
    assert error(twin, model, images(model, 2)) > 0.1


def test_an_nhwc_input_is_the_same_image():
    model = seeded()
    x = images(model, 2)
    graph = lower(reparameterize(model), Lowering.parse("matmul/conv"), NHWC(), NHWC())
    with torch.no_grad():
        assert torch.allclose(graph(x.permute(0, 2, 3, 1)), model(x), rtol=1e-10)


@pytest.mark.parametrize("layout", [NCHW(), NHWC(), NHWC(tuned=False)])
@pytest.mark.parametrize("variant", ["dmf_xxs", "dmf_xs"])
def test_the_large_variants_too(variant, layout):
    """Their widths are no whole tiles: NHWC carries channels of zeros, which no norm, mean or product may notice."""
    model = dmf.seed_weights(dmf.create_model(variant, image_size=64), 1).double()
    graph = reparameterize(model)
    assert error(graph, model, images(model, 2)) < 1e-10
    lowered = lower(graph, Lowering.parse("matmul/conv"), layout, NCHW())
    assert error(lowered, model, images(model, 2)) < 1e-10
    assert layout.tile == 1 or len(lowered.blocks[0].ffn.gamma) > len(graph.blocks[0].ffn.gamma)


def test_the_model_is_left_as_it_was():
    model = seeded()
    before = copy.deepcopy(model.state_dict())
    graph = reparameterize(model)
    with torch.no_grad():
        for parameter in itertools.chain(graph.parameters(), graph.buffers()):
            parameter.add_(1)  # shares no memory with the model
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert [type(m) for m in model.modules()] == [type(m) for m in seeded().modules()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_is_kept(dtype):
    graph = reparameterize(seeded().to(dtype))
    assert {t.dtype for t in itertools.chain(graph.parameters(), graph.buffers())} == {dtype}


def test_no_batch_norm_and_no_affine_norm_is_left():
    kinds = {type(module) for module in reparameterize(seeded()).modules()}
    assert not kinds & {nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm, nn.Dropout}


@pytest.mark.parametrize("name", ["matmul/conv", "matmul/taps"])
def test_the_graph_holds_no_reshape_of_the_batch_into_groups(name):
    graph = lower(reparameterize(seeded()), Lowering.parse(name), NCHW(), NCHW())
    program = torch.export.export(graph, (torch.zeros(3, 3, 64, 64).double(),))
    groups = [node.args[6] for node in program.graph.nodes if "conv2d" in str(node.target) and len(node.args) > 6]
    widths = {128, 96, 72, 48, 32, 24, 16, 12, 8, 80, 1}
    assert groups
    assert set(groups) <= widths  # channels of one sample; three samples in one would be three times these


@pytest.mark.parametrize("name", ["matmul/conv", "matmul/taps", "conv/conv"])
def test_weights_are_generated_by_one_linear_layer_each(name):
    graph = lower(reparameterize(seeded()), Lowering.parse(name), NCHW(), NCHW())
    generators = [module for n, module in graph.named_modules() if n.endswith(".generate")]
    assert [len(linears) for linears in generators] == [1] * (3 * 5 + 1)
    assert {linear.in_features for linears in generators for linear in linears} == {8}


def test_groups_that_are_kept_apart_have_a_linear_layer_each():
    graph = lower(reparameterize(seeded()), Lowering.parse("matmul/conv"), NHWC(), NCHW())
    generators = [module for n, module in graph.named_modules() if n.endswith(".generate")]
    assert [len(linears) for linears in generators] == [2] * (3 * 5) + [1]


FOLDS = {
    "BN scale of a dynamic convolution": lambda g: g.blocks[1].pw_conv1.bank.mul_(1.001),
    "BN shift of a dynamic convolution": lambda g: g.blocks[1].dw_conv.bias.add_(1e-3),
    "agnostic kernel": lambda g: g.blocks[1].pw_conv2.agnostic.mul_(1.001),
    "BN of a kernel attention": lambda g: g.blocks[0].dw_conv.routing.net1.bias.add_(1e-2),
    "temperature": lambda g: g.blocks[0].dw_conv.routing.net2.weight.mul_(1.7),
    "shortcut of the IRFFN": lambda g: g.blocks[2].ffn.depthwise.weight[:, :, 1, 1].sub_(1e-3),
    "affine GroupNorm": lambda g: g.blocks[2].ffn.expand.bias.add_(1e-3),
    "affine LayerNorm": lambda g: g.end_former.fc1.bias.add_(1e-3),
    "attention scale": lambda g: g.blocks[3].cross.q.weight.mul_(1.01),
    "constant queries": lambda g: g.blocks[0].cross.queries.mul_(1.01),
    "constant tokens": lambda g: g.blocks[0].cross.tokens.add_(1e-3),
    "GRN gamma": lambda g: g.blocks[4].ffn.gamma.mul_(1.01),
}


@pytest.mark.parametrize("spoil", FOLDS.values(), ids=FOLDS)
def test_a_fold_done_wrong_is_noticed(spoil):
    model = seeded()
    graph = reparameterize(model)
    with torch.no_grad():
        spoil(graph)
    assert error(graph, model, images(model, 2)) > 1e-8


def test_routing_frozen_at_one_sample_is_noticed():
    model = seeded()
    graph = reparameterize(model)
    held = {}
    for module in graph.modules():
        if isinstance(module, static.Routing):
            module.register_forward_hook(lambda m, _, pi: held.setdefault(m, pi))
    x = images(model, 2)
    assert error(graph, model, x[:1]) < 1e-10
    assert error(graph, model, x[1:]) > 1e-3
