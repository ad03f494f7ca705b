"""Models that were spoilt on the way to the artifact: each must be rejected, and nothing packaged."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

import dmf
from export import static
from export.pipeline import prepare, write_package
from export.plan import make_plan
from export.provenance import Origin
from export.verify.inputs import normalize
from runtime.errors import ParityError


@pytest.fixture(scope="module")
def prepared():
    return prepare(dmf.seed_weights(dmf.create_model("dmf_nano"), 0), Origin(seed=0))


class Frozen(nn.Module):
    """Routing weights that were traced as constants."""

    def __init__(self, pi):
        super().__init__()
        self.register_buffer("pi", pi)

    def forward(self, z, pooled):
        return self.pi.expand(z.shape[0], -1)


def freeze_routing(graph, prepared):
    held = {}
    hooks = [
        module.register_forward_hook(lambda m, _, pi: held.setdefault(m, pi))
        for module in graph.modules()
        if isinstance(module, static.Routing)
    ]
    graph(normalize(prepared.reference.inputs.images[:1]))
    for hook in hooks:
        hook.remove()
    for module in graph.modules():
        if isinstance(module, static.DynamicConv):
            module.routing = Frozen(held[module.routing].contiguous())


def swap_kernels(graph, _):
    bank = graph.blocks[2].dw_conv.bank
    bank[[1, 5]] = bank[[5, 1]]


def permute(graph, _):
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    graph.fc2.weight.copy_(graph.fc2.weight[order])
    graph.fc2.bias.copy_(graph.fc2.bias[order])


SPOILT = {
    "output scaled": lambda graph, _: (graph.fc2.weight.mul_(1.001), graph.fc2.bias.mul_(1.001)),
    "output permuted": permute,
    "output zeroed": lambda graph, _: (graph.fc2.weight.zero_(), graph.fc2.bias.zero_()),
    "one kernel of a bank swapped": swap_kernels,
    "routing frozen": freeze_routing,
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_spoilt_model_is_rejected(spoil, prepared, tmp_path):
    graph = copy.deepcopy(prepared.graph)
    with torch.no_grad():
        spoil(graph, prepared)
    plan = make_plan(prepared.model, "onnx")
    with pytest.raises(ParityError, match=r"dmf_nano-onnx is not the model: .* exceeds the budget") as caught:
        write_package(plan, replace(prepared, graph=graph), tmp_path, overwrite=False)
    if spoil is freeze_routing:
        assert "routing seems frozen" in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rejected"]
    kept = tmp_path / "rejected" / "dmf_nano-onnx"
    assert sorted(path.name for path in kept.iterdir()) == ["model.onnx", "report.txt"]
    assert "exceeds the budget" in (kept / "report.txt").read_text()


def test_unspoilt_it_is_accepted(prepared, tmp_path):
    package = write_package(make_plan(prepared.model, "onnx"), prepared, tmp_path, overwrite=False)
    assert package.manifest.parity.passed
    assert [path.name for path in tmp_path.iterdir()] == ["dmf_nano-onnx"]


def test_folds_that_are_not_the_model_stop_the_export(monkeypatch):
    from export import pipeline

    def wrong(model):
        graph = right(model)
        with torch.no_grad():
            graph.blocks[0].pw_conv1.bank.mul_(1 + 1e-6)
        return graph

    right = pipeline.static_graph
    monkeypatch.setattr(pipeline, "static_graph", wrong)
    with pytest.raises(ParityError, match="from the model; at most 1e-10"):
        prepare(dmf.seed_weights(dmf.create_model("dmf_nano"), 0), Origin(seed=0))
