"""The Neural Engine's form, against the folded graph in float64, and what the converter makes of it."""

from collections import Counter

import pytest
import torch
from torch import nn

import dmf
from export.convert.options import Options
from export.delegates.artifact import operations as read_operations
from export.lowering import NAMES, Lowering, bc1s, lower
from export.lowering.bc1s import BC1S, LARGEST_DIMENSION
from export.plan import make_plan
from export.reparameterize import reparameterize
from export.static import DynamicConv


@pytest.fixture(scope="module")
def graph():
    """Folded, with banks and norms that are not the fresh ones."""
    torch.manual_seed(0)
    model = dmf.seed_weights(dmf.create_model("dmf_nano", num_classes=7), 0)
    graph = reparameterize(model.double().eval())
    for module in graph.modules():
        if isinstance(module, DynamicConv):
            module.bank.normal_(std=0.1)
    return graph


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 64, 64, dtype=torch.float64)


@pytest.mark.parametrize("equalize", [False, True], ids=["float", "for few bits"])
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_it_computes_what_the_lowering_computes(graph, images, name, equalize):
    lowering = Lowering.parse(name)
    expected = lower(graph, lowering, equalize=equalize)(images)
    found = lower(graph, lowering, BC1S(), equalize=equalize)(images)
    assert found.shape == (3, 7)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-13)
    assert (found - expected.roll(1, 0)).abs().max() > 1e-3  # another image has other logits


@torch.no_grad()
def test_a_large_kernel_is_generated_in_rows(graph, images, monkeypatch):
    expected = graph(images)
    monkeypatch.setattr(bc1s, "LARGEST_DIMENSION", 1000)
    lowered = lower(graph, Lowering.parse("matmul/taps"), BC1S())
    cut = [module for module in lowered.modules() if isinstance(module, bc1s.Rows)]
    assert len(cut) == 5  # of more than 1000 values
    for rows in cut:
        assert len(rows.parts) > 1
        assert all(part.out_features <= 1000 and part.out_features % rows.length == 0 for part in rows.parts)
    torch.testing.assert_close(lowered(images), expected, rtol=1e-11, atol=1e-13)


@torch.no_grad()
def test_attention_by_hand():
    """Against sums written out, for queries, keys and values that have nothing to do with each other."""
    q, k, v = (torch.randn(2, 6, 1, size, dtype=torch.float64) for size in (3, 5, 5))
    found = bc1s.attend(q, k, v, heads=2)
    for b in range(2):
        for channels in (slice(0, 3), slice(3, 6)):
            for m in range(3):
                weights = (q[b, channels, 0, m] @ k[b, channels, 0]).softmax(0)
                expected = (v[b, channels, 0] * weights).sum(1)
                torch.testing.assert_close(found[b, channels, 0, m], expected)
    assert not torch.allclose(bc1s.attend(q, k, v, heads=3), found)


def test_only_the_neural_engine_gets_it():
    model = dmf.create_model("dmf_nano")
    assert isinstance(make_plan(model, "coreml").layout, BC1S)
    for format, target in (("coreml", "coreml-cpu"), ("onnx", "onnxruntime-cpu"), ("tflite", "litert-cpu")):
        assert not isinstance(make_plan(model, format, target=target).layout, BC1S)


@pytest.fixture(scope="module")
def operations(graph, tmp_path_factory):
    """Of a Core ML program, for the Neural Engine and as it would be without."""
    found = {}
    for layout in (BC1S(), None):
        lowered = lower(graph, Lowering.parse("matmul/taps"), *([layout] if layout else [])).float()
        path = tmp_path_factory.mktemp("program") / "model.mlpackage"
        plan = make_plan(dmf.create_model("dmf_nano"), "coreml")
        options = Options(path.with_name("log"), in_half=True)
        plan.converter.load()(lowered, torch.zeros(1, 3, 64, 64), path, options)
        found[layout is not None] = read_operations("coreml", path)
    return found


def test_what_the_converter_writes(operations):
    """Four dimensions everywhere but at the logits, no transpose, every constant product a convolution."""
    engine, plain = (Counter(each.kind for each in operations[is_engine]) for is_engine in (True, False))
    assert engine["transpose"] == engine["linear"] == 0
    assert plain["transpose"] > 0 and plain["linear"] > 0
    ranks = Counter(op.rank for op in operations[True])
    assert set(ranks) <= {2, 4} and ranks[2] <= 2
    assert max(op.rank for op in operations[False]) == 5
    products = [op for op in operations[True] if op.kind == "matmul"]
    constant = [op for op in products if any(value.constant and value.shape for value in op.inputs)]
    assert len(products) > len(constant) == 2  # the first queries, which are constants, of two heads
    assert all(size <= LARGEST_DIMENSION for op in operations[True] for value in op.outputs for size in value.shape)


def test_the_largest_variants_fit(monkeypatch):
    """Without it the last kernel of DMF-S would be 345,600 values in one dimension."""
    graph = reparameterize(dmf.create_model("dmf_s").eval())
    widths = {}
    for layout in (BC1S(), None):
        lowered = lower(graph, Lowering.parse("matmul/taps"), *([layout] if layout else []))
        linear = [each.out_features for each in lowered.modules() if isinstance(each, nn.Linear)]
        widths[layout is not None] = max(linear)
    assert widths == {True: LARGEST_DIMENSION, False: 345_600}
