"""What a delegate is said to refuse, before anything is converted."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

import dmf
import export.cli
from export.convert import Converter
from export.delegates import DELEGATES, Delegate, Op, Rule, Value
from export.delegates.artifact import differences
from export.delegates.forecast import forecast, with_alternatives
from export.model import static_graph
from export.plan import make_plan
from export.target import TARGETS

SIZE = 64


@pytest.fixture(scope="module")
def model():
    return dmf.seed_weights(dmf.create_model("dmf_nano"), 0)


@pytest.fixture(scope="module")
def graph(model):
    return static_graph(model)


@pytest.fixture
def expect(model, graph):
    """The forecast of a format and choices."""
    return lambda format, **choices: forecast(make_plan(model, format, **choices), graph, (SIZE, SIZE))


def kinds(expected):
    return Counter(refusal.op.kind for refusal in expected.refusals)


def test_every_target_has_a_delegate():
    assert list(DELEGATES) == list(TARGETS)


@pytest.mark.parametrize("delegate", DELEGATES.values(), ids=lambda each: each.name)
def test_every_rule_has_a_source(delegate):
    for rule in delegate.rules:
        assert rule.reason and rule.source, rule
    assert delegate.takes is None or delegate.takes_source


@pytest.mark.parametrize(
    ("lowering", "fallen"),
    [
        ("matmul/taps", {}),
        ("matmul/bank", {}),
        ("twin/twin", {}),
        ("matmul/conv", {"DEPTHWISE_CONV_2D": 2 * 5}),  # the groups of a block's convolution are two tensors
        ("conv/taps", {"CONV_2D": 2 * 5 + 1}),
        ("conv/conv", {"CONV_2D": 2 * 5 + 1, "DEPTHWISE_CONV_2D": 5}),
    ],
)
def test_xnnpack_loses_the_computed_filters(expect, lowering, fallen):
    expected = expect("tflite", lowering=lowering)
    assert kinds(expected) == fallen
    assert {row.module for row in expected.rows if row.operation == "DEPTHWISE_CONV_2D"} == (
        {f"blocks.{i}.dw_conv" for i in range(5)} if "DEPTHWISE_CONV_2D" in fallen else set()
    )


def test_a_batch_is_unrolled(expect):
    one, two = (expect("tflite", lowering="conv/conv", batch=batch) for batch in (1, 2))
    assert kinds(two) == {kind: 2 * count for kind, count in kinds(one).items()}


def test_a_grouped_computed_filter_keeps_everything_off_the_gpu(expect):
    expected = expect("tflite", target="litert-gpu", lowering="conv/conv")
    grouped = [each for each in expected.refusals if each.op.kind == "CONV_2D"]
    assert len(grouped) == 2 * 5  # end_conv is not grouped
    assert all(each.rule.stops for each in grouped)
    assert "nothing will run" in expected.summary


def test_nnapi_has_no_gelu(expect):
    assert kinds(expect("tflite", target="nnapi"))["GELU"] == 44
    assert "deprecated since Android 15" in DELEGATES["nnapi"].note


def test_the_neural_engine(expect):
    assert kinds(expect("coreml")) == {}
    assert kinds(expect("coreml", precision="fp32")) == {"program": 1}
    assert kinds(expect("coreml", lowering="conv/conv")) == {"conv": 3 * 5 + 1}
    assert kinds(expect("coreml", target="coreml-cpu", lowering="conv/conv")) == {}


def test_onnx_runtime_refuses_nothing(expect):
    assert expect("onnx", lowering="conv/conv").refusals == ()
    assert expect("onnx", batch=-1).refusals == ()


def test_the_lowerings_that_avoid_a_rule(model, graph):
    expected = with_alternatives(forecast(make_plan(model, "tflite"), graph, (SIZE, SIZE)), graph, (SIZE, SIZE))
    ((rule, names),) = expected.avoided_by.items()
    assert rule.source.endswith("VisitDepthwiseConv2DNode")
    assert set(names) == {"conv/taps", "conv/bank", "matmul/taps", "matmul/bank"}  # not the twin: another network


def test_a_forecast_leaves_the_graph_alone(graph, expect):
    before = {name: value.clone() for name, value in graph.state_dict().items()}
    expect("tflite")
    assert all(value.equal(before[name]) for name, value in graph.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in graph.modules())


def op(kind, *inputs, outputs=((1, 2, 2, 8),), **attributes):
    """An operation; inputs are shapes, in a list if they are constants."""
    values = [Value(tuple(each), isinstance(each, list)) for each in inputs]
    return Op(kind, "m", "m", tuple(values), tuple(Value(shape) for shape in outputs), **attributes)


MAP, FILTER, BIAS = (1, 2, 2, 8), [8, 1, 1, 8], [8]


CASES = [  # target, refused, taken
    ("litert-cpu", op("CONV_2D", MAP, (8, 1, 1, 8), BIAS), op("CONV_2D", MAP, FILTER, BIAS)),
    ("litert-cpu", op("CONV_2D", MAP, FILTER, (8,)), op("CONV_2D", MAP, [8, 1, 1, 4], BIAS, groups=2)),
    ("litert-cpu", op("FULLY_CONNECTED", (3, 4), (8, 4)), op("FULLY_CONNECTED", (3, 4), [8, 4])),
    ("litert-cpu", op("CONCATENATION", *[(1, 2)] * 6), op("CONCATENATION", *[(1, 2)] * 5)),
    ("litert-cpu", op("SPLIT", [1], MAP, outputs=[MAP] * 5), op("SPLIT", [1], MAP, outputs=[MAP] * 4)),
    ("litert-cpu", op("STRIDED_SLICE", MAP, step=2), op("STRIDED_SLICE", MAP)),
    ("litert-cpu", op("RESHAPE", (1,) * 7), op("RESHAPE", (1,) * 6)),
    ("litert-cpu", op("GELU", MAP, int8=True), op("GELU", MAP)),
    ("litert-cpu", op("ADD", (0, 2), (0, 2)), op("ADD", MAP, BIAS)),
    ("litert-cpu", op("BROADCAST_TO", MAP), op("BATCH_MATMUL", (2, 3, 4), (2, 4, 5))),
    ("litert-gpu", op("CONV_2D", MAP, (8, 1, 1, 4), BIAS, groups=2), op("CONV_2D", MAP, (8, 1, 1, 8), BIAS)),
    ("litert-gpu", op("CONV_2D", MAP, (8, 1, 1, 8), (8,)), op("DEPTHWISE_CONV_2D", MAP, (1, 3, 3, 8), BIAS)),
    ("litert-gpu", op("BATCH_MATMUL", (2, 3, 4), [2, 4, 5]), op("BATCH_MATMUL", (2, 3, 4), [4, 5])),
    ("litert-gpu", op("BATCH_MATMUL", [3, 4], (4, 5)), op("BATCH_MATMUL", (3, 4), (4, 5))),
    ("litert-gpu", op("FULLY_CONNECTED", (3, 4), (8, 4), (8,)), op("FULLY_CONNECTED", (3, 4), (8, 4), BIAS)),
    ("litert-gpu", op("ADD", (256, 8), [1, 1, 8]), op("ADD", (256, 8), [8])),
    ("litert-gpu", op("MUL", (2, 4, 4, 8), (4, 4, 8)), op("MUL", (1, 4, 4, 8), (4, 4, 8))),
    ("litert-gpu", op("MUL", (2, 4, 4, 8), (2, 4)), op("MUL", (2, 4, 4, 8), (2, 8))),
    ("litert-gpu", op("SLICE", (1, 8)), op("SLICE", (1, 1, 8))),
    ("litert-gpu", op("PAD", (1, 8)), op("PAD", MAP)),
    ("litert-gpu", op("MUL", (1, 1, 1, 1, 8), MAP), op("MUL", MAP, MAP)),
    ("nnapi", op("CONV_2D", MAP, [8, 1, 1, 4], BIAS, groups=2), op("CONV_2D", MAP, FILTER, BIAS)),
    ("nnapi", op("BATCH_MATMUL", (2, 3, 4), (4, 5)), op("BATCH_MATMUL", (2, 3, 4), (2, 4, 5))),
    ("nnapi", op("ADD", (1, 1, 1, 1, 8), MAP), op("ADD", MAP, MAP)),
    ("nnapi", op("MEAN", MAP, outputs=[()]), op("MEAN", MAP, outputs=[(1,)])),
    ("nnapi", op("GELU", MAP), op("LOGISTIC", MAP)),
    ("coreml-ane", op("conv", MAP, (8, 8, 1, 1), BIAS), op("conv", MAP, [8, 8, 1, 1], BIAS)),
    ("coreml-ane", op("matmul", (1, 1, 8, 16385), MAP), op("matmul", (1, 1, 8, 16384), MAP)),
    ("coreml-cpu", op("conv", MAP, (8, 8, 1, 1), BIAS, dilation=2), op("conv", MAP, (8, 8, 1, 1), BIAS)),
    ("litert-cpu", op("DEPTHWISE_CONV_2D", MAP, (1, 3, 3, 8), BIAS), op("DEPTHWISE_CONV_2D", MAP, [1, 3, 3, 8], BIAS)),
]


@pytest.mark.parametrize(("target", "refused", "taken"), CASES)
def test_each_rule_refuses_what_it_says_and_no_more(target, refused, taken):
    (refusal,) = DELEGATES[target].refusals([refused, taken])
    assert refusal.op is refused


def test_the_cases_above_ask_every_rule():
    asked = {refusal.rule for target, refused, _ in CASES for refusal in DELEGATES[target].refusals([refused])}
    assert {rule for delegate in DELEGATES.values() for rule in delegate.rules} <= asked


def test_differences_name_kind_and_module():
    rule = Rule((), lambda _: True, "any", "nowhere")
    predicted = Delegate("test", (rule,)).refusals([replace(op("A"), scope="0.x"), replace(op("B"), scope="0.x")])
    found = [each.op for each in predicted]
    assert differences(predicted, found) == []
    assert differences(predicted, found[:1]) == ["B in 0.x: predicted 1, found 0"]
    assert differences(predicted, [*found, found[0]]) == ["A in 0.x: predicted 1, found 2"]
    assert differences(predicted, [found[0], replace(found[1], scope="1.x")]) == [
        "B in 0.x: predicted 1, found 0",
        "B in 1.x: predicted 0, found 1",
    ]
    unnamed = [replace(each, scope="") for each in found]  # as in onnx2tf's files
    assert differences(predicted, unnamed) == []
    assert differences([], []) == []


@pytest.fixture
def dry_run(capsys, monkeypatch, tmp_path):
    """Run `dmf-export --dry-run` for dmf_nano; it must write nothing and load no converter. Returns stdout."""
    monkeypatch.setattr(Converter, "load", lambda _: pytest.fail("nothing is converted"))
    monkeypatch.setattr("export.cli.prepare", lambda *_: pytest.fail("nothing is proven"))

    def run(*arguments):
        fixed = ["--model", "dmf_nano", "--seed", "0", "--dry-run", "--quiet", "--out", str(tmp_path / "out")]
        assert export.cli.main([*fixed, *arguments]) == 0
        assert list(tmp_path.iterdir()) == []
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda each: each.name)
def test_a_dry_run_says_what_would_be_done(dry_run, tmp_path, target):
    text = dry_run("--format", target.format, "--target", target.name)
    plan = make_plan(dmf.create_model("dmf_nano"), target.format, target=target.name)
    for part in (tmp_path / "out" / plan.name, target.name, plan.converter.name, plan.lowering, plan.lowering.reason):
        assert str(part) in text
    assert DELEGATES[target.name].name in text


def test_the_target_says_the_format(dry_run):
    assert dry_run("--target", "litert-gpu") == dry_run("--format", "tflite", "--target", "litert-gpu")


def test_a_dry_run_does_not_mind_what_is_there(dry_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    (out / "dmf_nano-onnx").mkdir()
    assert f"would write {out / 'dmf_nano-onnx'}" in dry_run("--format", "onnx", "--out", str(out))


def test_a_dry_run_names_module_rule_source_and_way_out(dry_run):
    text = dry_run("--format", "tflite", "--lowering", "matmul/conv")
    for i in range(5):
        assert f"blocks.{i}.dw_conv" in text
    assert "2 x DEPTHWISE_CONV_2D" in text
    assert "must be constants of the file" in text
    assert "tflite/delegates/xnnpack/xnnpack_delegate.cc, VisitDepthwiseConv2DNode" in text
    assert "--lowering matmul/taps" in text
    assert "XNNPACK refuses nothing" in dry_run("--format", "tflite", "--lowering", "matmul/taps")


def test_what_one_format_has_alone_the_others_leave_out(dry_run):
    found = json.loads(dry_run("--format", "all", "--batch", "1", "2", "--json"))
    names = ["dmf_nano-onnx", "dmf_nano-coreml-batch1_2", "dmf_nano-tflite"]
    assert [Path(each["package"]).name for each in found] == names
    found = json.loads(dry_run("--format", "all", "--image-size", "64", "96", "--json"))
    names = ["dmf_nano-onnx", "dmf_nano-coreml-sizes64_96", "dmf_nano-tflite"]
    assert [Path(each["package"]).name for each in found] == names


def test_a_dry_run_as_json(dry_run, tmp_path):
    every = {each["format"]: each for each in json.loads(dry_run("--format", "all", "--json"))}
    tflite = every["tflite"]
    assert every["onnx"]["falls_off"] == []
    assert tflite["package"] == str(tmp_path / "out" / "dmf_nano-tflite")
    assert tflite["delegate"] == "XNNPACK"
    fallen = {row["module"]: row["count"] for row in tflite["falls_off"]}
    assert fallen == {f"blocks.{i}.dw_conv": 2 for i in range(5)}
    assert "matmul/taps" in tflite["falls_off"][0]["avoided_by_lowerings"]
    assert every["coreml"]["falls_off"] == []
    (float32,) = json.loads(dry_run("--format", "coreml", "--precision", "fp32", "--json"))
    assert float32["falls_off"][0]["stops_everything"]
