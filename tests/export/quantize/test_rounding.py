"""Rounded weights against their definition: numbers of the type they are stored in, and the nearest ones."""

import copy

import numpy as np
import pytest
import torch

import dmf
from export.lowering import Lowering, lower
from export.quantize.rounding import held, round_to, rounded, stored_bytes
from export.quantize.weights import Weight, Weights, constants
from export.reparameterize import reparameterize

FORMS = ("matmul/taps", "conv/bank", "twin/twin")


@pytest.fixture(scope="module")
def lowered():
    """Seeded weights: BN statistics and kernel banks are random."""
    graph = reparameterize(dmf.seed_weights(dmf.create_model("dmf_nano"), 0).double()).float()
    return {form: lower(graph, Lowering.parse(form), equalize=True) for form in FORMS}


def pairs(graph, result):
    """(name, weight before, weight after) of all that have weights."""
    modules = dict(result.named_modules())
    for name, module in graph.named_modules():
        for before, after in zip(constants(module), constants(modules[name]), strict=True):
            yield name, before.numpy().astype(np.float64), after.numpy().astype(np.float64)


def is_int8(before, after, scale):
    """Whether every number is a multiple of the scale, 127 of them at most, and the nearest such."""
    steps = after / scale
    return bool(
        (np.abs(steps - steps.round()) < 1e-3).all()
        and np.abs(steps).max() < 127.001
        and (np.abs(after - before) <= scale * 0.5001).all()
    )


def rows(tensor):
    """By hand: a filter of a bank is one of a kernel and an output channel, another weight's row is an output's."""
    if tensor.ndim == 5:
        return [row for kernel in tensor for row in kernel]
    return list(tensor)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("precision", ["w8", "w8a8"])
def test_int8_has_a_scale_per_output_channel_or_one_where_kernels_are_generated(form, precision, lowered):
    graph = lowered[form]
    many = 0
    for name, before, after in pairs(graph, rounded(graph, Weights(graph, precision, {}))):
        parts = [(before, after)] if name.endswith(".linear") else list(zip(rows(before), rows(after), strict=True))
        for b, a in parts:
            if b.any():
                scale = np.abs(b).max() / 127
                assert is_int8(b, a, scale), name
                assert not is_int8(b, a, scale * 1.05) and not is_int8(b, b, scale)
            else:  # surplus channels
                assert not a.any()
        many += len(parts) > 1
    assert many > 20


def test_one_scale_is_not_what_other_weights_get(lowered):
    """The control of the above: the stem's channels differ in range."""
    graph = lowered["matmul/taps"]
    before, after = next(
        (b, a) for name, b, a in pairs(graph, rounded(graph, Weights(graph, "w8", {}))) if "stem" in name
    )
    assert not is_int8(before, after, np.abs(before).max() / 127)


@pytest.mark.parametrize("form", FORMS)
def test_fp16_is_numpys(form, lowered):
    graph, changed = lowered[form], 0
    for _, before, after in pairs(graph, rounded(graph, Weights(graph, "fp16", {}))):
        assert np.array_equal(after, before.astype(np.float16))
        changed += not np.array_equal(after, before)
    assert changed > 50


def test_exceptions_are_kept_and_the_graph_is_left_alone(lowered):
    graph = lowered["matmul/taps"]
    state = copy.deepcopy(graph.state_dict())
    result = rounded(graph, Weights(graph, "w8", {"blocks.1": "fp32", "head.fc1": "fp16"}))
    assert all(torch.equal(tensor, state[name]) for name, tensor in graph.state_dict().items())
    for name, before, after in pairs(graph, result):
        kept = name.startswith("blocks.1.")
        assert np.array_equal(before, after) == kept, name
        assert np.array_equal(before.astype(np.float16), after) == (name == "fc1"), name
    others = {name for name, tensor in result.state_dict().items() if not torch.equal(tensor, state[name])}
    assert not any("bias" in name or name.endswith(("rows", "columns")) for name in others)


def test_a_float64_graph_gets_the_same_values(lowered):
    graph = lowered["matmul/taps"]
    weights = Weights(graph, "w8", {})
    double = rounded(copy.deepcopy(graph).double(), weights)
    assert double.fc1.weight.dtype == torch.float64
    for name, before, after in pairs(rounded(graph, weights), double):
        assert np.array_equal(before, after), name


def test_weights_of_another_graph_are_refused(lowered):
    with pytest.raises(ValueError, match="none of these"):
        rounded(lowered["matmul/taps"], Weights(lowered["twin/twin"], "w8", {}))


@pytest.mark.parametrize("value", [0.0, 1e-42])
def test_what_is_almost_nothing_stays_finite(value):
    weight = Weight("head.fc1", "w8", "linear")
    assert round_to(torch.full((3, 4), value), weight).abs().max() <= value


@pytest.mark.parametrize(
    ("precision", "kind", "shape", "expected"),
    [
        ("fp32", "linear", (6, 10), 240),
        ("fp16", "generation", (6, 10), 120),
        ("w8", "linear", (6, 10), 60 + 6 * 4),
        ("w8", "generation", (6, 10), 60 + 4),
        ("w8a8", "convolution", (6, 2, 3, 3), 108 + 6 * 4),
        ("w8", "convolution", (8, 6, 1, 3, 3), 432 + 8 * 6 * 4),
    ],
)
def test_bytes(precision, kind, shape, expected):
    assert stored_bytes(torch.zeros(shape), Weight("any", precision, kind)) == expected


def test_all_weights_are_held_once(lowered):
    for graph in lowered.values():
        tensors = [tensor for _, tensor in held(graph, Weights(graph, "w8", {}))]
        assert len({id(tensor) for tensor in tensors}) == len(tensors)
        small = sum(t.numel() for t in [*graph.parameters(), *graph.buffers()]) - sum(t.numel() for t in tensors)
        assert small < 0.05 * sum(t.numel() for t in tensors)  # biases, norms and factors
