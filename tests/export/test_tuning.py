"""`--lowering auto`: the parts of a network, the choice among measured figures, and what is kept of them."""

import copy
import json
from collections import Counter

import pytest
import torch

import dmf
from export import tuning
from export.cli import main
from export.layout import NCHW, NHWC
from export.lowering import NAMES, Lowering, lower
from export.model import static_graph
from export.pipeline import export
from export.plan import make_plan
from export.reparameterize import reparameterize
from export.tuning import Alone, fastest, parts, tuned
from export.verify.inputs import normalize, verification_inputs
from runtime.arm64.runner import Workload
from runtime.errors import ConverterError, UsageError
from runtime.instructions import count
from runtime.manifest import open_package
from runtime.meter import Meter

IMAGES = (1, 3, 64, 64)


@pytest.fixture(scope="module")
def model():
    return dmf.seed_weights(dmf.create_model("dmf_nano"), 0)


@pytest.fixture(scope="module")
def graph(model):
    return static_graph(model)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DMF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lowerings.json"


@pytest.fixture
def compared(monkeypatch):
    """As if measured: matmul/conv 1 everywhere, but conv/taps 0.5 in block 2. The list is of the parts asked for."""
    asked = []

    def compare(plan, part, progress):
        asked.append(part.name)
        figures = {str(each): 2.0 for each in part.lowerings(plan)} | {"matmul/conv": 1.0}
        return figures | ({"conv/taps": 0.5} if part.name == "blocks.2" else {})

    monkeypatch.setattr(tuning, "compare", compare)
    return asked


def test_parts_are_the_blocks_and_the_last_convolution(model, graph):
    """With the shapes that the eager model's own convolutions see."""
    seen = {}
    for name, module in model.named_modules():
        if name.endswith(("dynamic_mobile.pw_conv1", "end_conv")):
            module.register_forward_pre_hook(lambda _, inputs, name=name: seen.update({name: inputs[0].shape}))
    model(torch.zeros(IMAGES))
    found = parts(graph, IMAGES)
    assert [part.name for part in found] == [*(f"blocks.{i}" for i in range(5)), "end_conv"]
    assert [part.x for part in found] == list(seen.values())
    assert {part.z for part in found} == {torch.Size([1, model.config.token_dim])}
    assert [len(part.convs) for part in found] == [3, 3, 3, 3, 3, 1]
    assert not any(parameter.is_meta for parameter in graph.parameters())


def test_equal_parts_are_one_shape_and_others_are_not():
    graph = static_graph(dmf.create_model("dmf_xxs"))
    found = parts(graph, (1, 3, 224, 224))
    alike = Counter(part.shape for part in found)
    described = Counter(
        (tuple(part.x), tuple((tuple(conv.bank.shape), conv.geometry) for conv in part.convs)) for part in found
    )
    assert len(found) == len(graph.blocks) + 1
    assert sorted(alike.values()) == sorted(described.values())
    assert max(alike.values()) > 1
    assert parts(graph, (1, 3, 192, 192))[0].shape != found[0].shape


@pytest.mark.parametrize("layout", [NCHW(), NHWC()], ids=lambda layout: layout.name)
@torch.no_grad()
def test_a_part_alone_is_what_it_is_in_the_network(model, layout):
    """Float64: the feature map that goes into a block's convolutions, and the one that its FFN then takes."""
    network = reparameterize(copy.deepcopy(model).double().eval())
    part = next(part for part in parts(network, IMAGES) if part.name == "blocks.3")
    held, block = {}, network.blocks[3]
    block.pw_conv1.register_forward_pre_hook(lambda _, inputs: held.update(x=inputs[0][0], z=inputs[1]))
    block.ffn.register_forward_pre_hook(lambda _, inputs: held.update(y=inputs[0]))
    network(torch.randn(IMAGES, dtype=torch.float64))
    alone = Alone(part).double()
    for name in ("matmul/conv", "conv/taps"):
        lowered = lower(alone, Lowering.parse(name), layout, layout)
        lowered.z = held["z"]
        y = layout.permute_to_nchw(lowered(layout.permute_from_nchw(held["x"])))
        assert (y - held["y"]).abs().max() < 1e-12 * held["y"].abs().max()
    lowered.z = held["z"] + 1  # the negative control: other tokens are another routing
    assert (layout.permute_to_nchw(lowered(layout.permute_from_nchw(held["x"]))) - held["y"]).abs().max() > 1e-6


def test_what_a_part_can_be_lowered_to(model, graph):
    first, last = parts(graph, IMAGES)[0], parts(graph, IMAGES)[-1]
    plan = make_plan(model, "tflite", lowering="auto")
    assert [str(each) for each in first.lowerings(plan)] == [name for name in NAMES if name != "twin/twin"]
    assert [str(each) for each in last.lowerings(plan)] == ["conv/conv", "matmul/conv"]  # it has no depthwise one
    other = make_plan(model, "tflite", lowering="auto", converter="onnx2tf")
    assert {str(each) for each in first.lowerings(other)} == {"matmul/taps", "matmul/bank"}
    dynamic = make_plan(model, "onnx", lowering="auto", batch=-1)
    assert {str(each) for each in first.lowerings(dynamic)} == {"matmul/taps", "matmul/bank"}


@torch.no_grad()
def test_a_mixed_network_is_the_model(model):
    """Every part in another lowering, in float64, against the eager model; and which part has which."""
    eager = copy.deepcopy(model).double().eval()
    images = normalize(verification_inputs(model).images[:2], torch.float64)
    names = ["conv/conv", "conv/taps", "conv/bank", "matmul/taps", "matmul/bank"]
    exceptions = tuple((f"blocks.{i}", Lowering.parse(name)) for i, name in enumerate(names))
    mixed = Lowering("matmul", "conv", "", exceptions)
    for layout in (NCHW(), NHWC()):
        network = lower(reparameterize(copy.deepcopy(eager)), mixed, layout)
        forms = [(type(b.pw_conv1).__name__.lower(), type(b.dw_conv).__name__.lower()) for b in network.blocks]
        assert [f"{pointwise}/{depthwise}" for pointwise, depthwise in forms] == names
        assert type(network.end_conv).__name__ == "Matmul"
        for image in images.split(1):
            expected = eager(image)
            assert (network(image) - expected).abs().max() < 1e-10 * expected.abs().max()
    assert not mixed.any_batch
    assert Lowering("matmul", "taps", "", exceptions[3:]).any_batch


def test_the_fastest_is_chosen_unless_the_usual_one_is_as_fast():
    figures = {"conv/conv": 2.0, "matmul/conv": 1.029, "matmul/taps": 1.0}
    assert fastest(figures, "matmul/conv", 1.03) == "matmul/conv"
    assert fastest(figures | {"matmul/conv": 1.031}, "matmul/conv", 1.03) == "matmul/taps"
    assert fastest(figures, "twin/twin", 1.03) == "matmul/taps"


def test_the_choice_and_its_record(model, graph, own_cache, compared):
    plan = make_plan(model, "onnx", lowering="auto", threads=2)
    assert plan.name == "dmf_nano-onnx-auto"
    chosen = tuned(plan, graph, (64, 64))
    assert compared == [*(f"blocks.{i}" for i in range(5)), "end_conv"]
    assert str(chosen.lowering) == "matmul/conv"
    assert [(name, str(each)) for name, each in chosen.lowering.exceptions] == [("blocks.2", "conv/taps")]
    measured = chosen.measured
    assert (measured.threads, measured.unit) == (2, "ms")
    assert [choice.lowering for choice in measured.choices] == ["matmul/conv"] * 2 + ["conv/taps"] + ["matmul/conv"] * 3
    assert measured.choices[2].figures == dict.fromkeys(NAMES[:-1], 2.0) | {"matmul/conv": 1.0, "conv/taps": 0.5}


def test_without_auto_nothing_is_measured(model, graph, compared):
    plan = make_plan(model, "onnx")
    assert tuned(plan, graph, (64, 64)) is plan
    assert compared == []


def test_what_was_measured_is_not_measured_again(model, graph, own_cache, compared):
    plan = make_plan(model, "onnx", lowering="auto")
    first = tuned(plan, graph, (64, 64))
    compared.clear()
    assert tuned(plan, graph, (64, 64)) == first
    assert compared == []
    tuned(make_plan(model, "onnx", lowering="auto", threads=2), graph, (64, 64))  # other conditions
    assert len(compared) == 6
    compared.clear()
    tuned(plan, graph, (96, 96))  # other shapes
    assert len(compared) == 6
    compared.clear()
    own_cache.write_text(own_cache.read_text()[:-40])  # cut off
    assert tuned(plan, graph, (64, 64)) == first
    assert len(compared) == 6


def test_other_code_is_measured_anew(model, graph, own_cache, compared, monkeypatch):
    plan = make_plan(model, "onnx", lowering="auto")
    tuned(plan, graph, (64, 64))
    compared.clear()
    monkeypatch.setattr(tuning, "_code", lambda: "another version")
    tuned(plan, graph, (64, 64))
    assert len(compared) == 6
    assert len(json.loads(own_cache.read_text())) == 2


def test_a_lowering_that_does_not_convert_is_named(model, graph, own_cache, monkeypatch):
    plan = make_plan(model, "onnx", lowering="auto")

    def fail(graph, *_):
        raise RuntimeError("no such op")

    monkeypatch.setattr(type(plan.converter), "load", lambda _: fail)
    with pytest.raises(ConverterError, match=r"can't convert blocks.0 in the lowering conv/conv.*name a lowering"):
        tuned(plan, graph, (64, 64))
    assert not own_cache.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "onnx", "--on", "arm64"], "--on says where --lowering auto measures"),
        (["--format", "onnx", "--lowering", "matmul/conv", "--threads", "2"], "--threads says where --lowering auto"),
        (["--format", "onnx", "--lowering", "auto", "--dry-run"], "auto measures, a dry run does not"),
        (
            ["--format", "onnx", "--lowering", "auto", "--on", "arm64", "--threads", "2"],
            "counted on one thread, not on 2",
        ),
        (["--format", "all", "--lowering", "auto"], "--lowering are for one format"),
        (["--format", "coreml", "--lowering", "auto", "--on", "arm64"], "Core ML runs on a Mac only; name a lowering"),
    ],
)
def test_what_auto_can_not_do(arguments, message, tmp_path, capsys):
    assert main(["--model", "dmf_nano", "--out", str(tmp_path), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("on", "threads"), [("phone", 1), ("host", 0)])
def test_a_meter_that_there_is_not(on, threads):
    with pytest.raises(UsageError):
        Meter(on, threads)


def test_the_host_tells_a_slow_artifact_from_a_fast_one(model, graph, own_cache, tmp_path):
    """The same part at 64 and at 256 pixels, 16 times the work, in both orders."""
    from export.convert.options import Options

    plan, workloads = make_plan(model, "onnx", lowering="auto"), []
    for side in (64, 256):
        part = parts(graph, (1, 3, side, side))[0]
        x, path = torch.randn(part.x), tmp_path / f"{side}.onnx"
        plan.converter.load()(lower(Alone(part), plan.lowering), x, path, Options(tmp_path / "log"))
        workloads.append(Workload("onnx", path, x.numpy()))
    small, large = Meter().compare(workloads)
    assert large > 3 * small > 0
    large, small = Meter().compare(workloads[::-1])
    assert large > 3 * small > 0


def test_auto_on_emulated_arm64_is_proven_and_executes_no_more_than_the_default(
    model, own_cache, tmp_path, arm64, monkeypatch
):
    monkeypatch.setattr("export.tuning.cache_folder", lambda: own_cache.parent)
    monkeypatch.delenv("DMF_CACHE")  # the emulation's files stay where they are
    package = export(model, "onnx", out=tmp_path, lowering="auto", on="arm64")
    assert open_package(package.path) == package
    lowering = package.manifest.lowering
    assert package.manifest.parity.passed
    assert lowering.measured.unit == "instructions"
    assert {name for choice in lowering.measured.choices for name in choice.modules} >= {"blocks.0", "end_conv"}
    for choice in lowering.measured.choices:
        assert choice.figures[choice.lowering] <= 1.002 * min(choice.figures.values())
    default, slow = (export(model, "onnx", out=tmp_path, lowering=name) for name in (None, "matmul/bank"))
    best, usual, worst = (each.instructions for each in count([package, default, slow], "cortex-a76"))
    assert best <= usual < worst
    assert own_cache.exists()
