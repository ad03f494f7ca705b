"""What was said to fall off, and what did: artifacts, asked by the runtime that has the delegate."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import dmf
from export.delegates import DELEGATES
from export.delegates.artifact import differences, operations
from export.delegates.forecast import forecast, outcome
from export.delegates.predict import predict
from export.layout import NCHW, NHWC
from export.lowering import NAMES, lower
from export.model import static_graph
from export.plan import input_spec, make_plan
from runtime.errors import RunnerError
from runtime.partitions import partitions, scope_of

SIZE = 64
XNNPACK = DELEGATES["litert-cpu"]


@pytest.fixture(scope="module")
def model():
    return dmf.seed_weights(dmf.create_model("dmf_nano"), 0)


@pytest.fixture(scope="module")
def graph(model):
    return static_graph(model)


@pytest.fixture(scope="module")
def convert(graph, tmp_path_factory):
    """The artifact of a plan, by its converter, each once. It is not proven: other tests do that."""
    from export.convert.options import Options

    made = {}

    def make(plan):
        if plan.name not in made:
            folder = tmp_path_factory.mktemp(plan.name.replace("/", "_"))
            layouts = {"NCHW": NCHW(), "NHWC": NHWC()}
            lowered = lower(graph, plan.lowering, plan.converter.layout, layouts[plan.input_layout])
            example = torch.zeros(input_spec(plan, (SIZE, SIZE)).shape)
            artifact = folder / plan.converter.artifact
            options = Options(log=folder / "log", in_half=plan.in_half)
            plan.converter.load()(lowered, example, artifact, options)
            made[plan.name] = artifact
        return made[plan.name]

    return make


@pytest.mark.parametrize("lowering", NAMES)
def test_litert_leaves_out_what_was_predicted(model, graph, convert, lowering):
    """Operations of the predicted kind in the predicted module; and the rules, asked about the file, say the same."""
    plan = make_plan(model, "tflite", lowering=lowering)
    expected, artifact = forecast(plan, graph, (SIZE, SIZE)), convert(plan)
    found = outcome(expected, artifact)
    assert found.unforeseen == (), found.describe(XNNPACK)
    assert found.outside == len(expected.refusals)
    assert "as predicted" in found.describe(XNNPACK)
    # every kept part is one partition: the operations outside cut it, some side by side
    assert (found.partitions == 1) == (found.outside == 0)
    read = operations("tflite", artifact)
    assert len(read) == found.operations
    assert differences(XNNPACK.refusals(read), partitions(artifact).outside) == []


def test_a_missing_rule_is_noticed(model, graph, convert):
    """The negative control: without the rule, or with the kind taken for unknown, prediction and artifact disagree."""
    plan = make_plan(model, "tflite", lowering="conv/conv")
    expected, artifact = forecast(plan, graph, (SIZE, SIZE)), convert(plan)
    assert outcome(expected, artifact).unforeseen == ()
    for kind in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        rules = tuple(rule for rule in XNNPACK.rules if kind not in rule.kinds)
        poorer = replace(XNNPACK, rules=rules)
        assert len(rules) == len(XNNPACK.rules) - 1
        refusals = poorer.refusals([refusal.op for refusal in expected.refusals])
        wrong = outcome(replace(expected, refusals=tuple(refusals)), artifact)
        assert wrong.unforeseen
        assert all(line.startswith(kind) for line in wrong.unforeseen)
        assert "not as predicted" in wrong.describe(XNNPACK)
    richer = replace(XNNPACK, takes=XNNPACK.takes - {"GELU"})
    assert differences(richer.refusals(operations("tflite", artifact)), partitions(artifact).outside)


def test_another_lowering_is_noticed(model, graph, convert):
    """The artifact of one lowering does not bear out the forecast of another."""
    artifact = convert(make_plan(model, "tflite", lowering="conv/conv"))
    other = forecast(make_plan(model, "tflite", lowering="matmul/conv"), graph, (SIZE, SIZE))
    assert outcome(other, artifact).unforeseen


@pytest.mark.parametrize("target", ["litert-gpu", "nnapi"])
@pytest.mark.parametrize("lowering", NAMES)
def test_the_file_bears_out_the_rules_of_delegates_that_do_not_run_here(model, graph, convert, target, lowering):
    expected = forecast(make_plan(model, "tflite", target=target, lowering=lowering), graph, (SIZE, SIZE))
    found = outcome(expected, convert(make_plan(model, "tflite", lowering=lowering)))
    assert found.unforeseen == ()
    assert found.partitions is None
    assert "not run here" in found.describe(expected.delegate)


@pytest.mark.parametrize("lowering", ["matmul/taps", "conv/conv"])
def test_the_core_ml_program_bears_them_out(model, graph, convert, lowering):
    expected = forecast(make_plan(model, "coreml", precision="fp16", lowering=lowering), graph, (SIZE, SIZE))
    found = outcome(expected, convert(expected.plan))
    assert found.unforeseen == ()
    assert found.outside == (16 if lowering == "conv/conv" else 0)


class Unusual(nn.Module):
    """What the networks of this project avoid: each of these stays outside XNNPACK."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(8, 8)
        self.bias = nn.Parameter(torch.randn(8))

    def forward(self, x):  # (1, 6, 6, 8)
        rows = self.net(x.flatten(1, 2))  # (1, 36, 8)
        weight = rows[0, :8]  # (8, 8)
        linear = F.linear(x, weight, self.bias)
        scores = rows @ rows.transpose(1, 2)
        conv = F.conv2d(x.permute(0, 3, 1, 2), weight[:, :, None, None], self.bias).permute(0, 2, 3, 1)
        joined = torch.cat([rows, rows * 2, rows * 3, rows * 4, rows * 5, rows * 6], 1)
        sliced = x[:, ::2]
        copies = rows[:, :1].expand(1, 5, 8).reshape(1, 40)
        results = [linear, scores, conv, joined, sliced]
        total = sum(result.mean() for result in results)
        return total + copies


@pytest.fixture(scope="module")
def unusual(tmp_path_factory):
    from export.convert.litert_torch import convert
    from export.convert.options import Options

    folder = tmp_path_factory.mktemp("unusual")
    convert(Unusual().eval(), torch.randn(1, 6, 6, 8), folder / "model.tflite", Options(folder / "log"))
    return folder / "model.tflite"


def test_what_no_lowering_has_is_predicted_too(unusual):
    predicted = XNNPACK.refusals(predict(Unusual(), (1, 6, 6, 8), "tflite"))
    found = partitions(unusual)
    assert differences(predicted, found.outside) == []
    assert Counter(each.kind for each in found.outside) == {
        "FULLY_CONNECTED": 2,  # a linear layer, and a product with a transpose
        "CONV_2D": 1,
        "CONCATENATION": 1,
        "STRIDED_SLICE": 1,
        "BROADCAST_TO": 1,
    }


def test_a_file_that_can_not_be_opened(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"no model")
    with pytest.raises(RunnerError, match=f"{path}: litert cannot open it"):
        partitions(path)


@pytest.mark.parametrize(
    ("name", "scope"),
    [
        ("a.b._Named/export.static.StaticDMF_network/export.static.Block_0/c.Conv_dw_conv;4", "0.dw_conv"),
        ("a.b._Named/export.static.StaticDMF_network/a.Former_end_former;;/a.Block_0/b.Former_former;1", "end_former"),
        ("arith.constant19", ""),
        ("model/tf.math.add_125/Add;model/tf.math.add_125/Add/y", ""),
        ("model/tf.nn.gelu_2/Gelu", ""),
        ("a.b._Named/export.static.StaticDMF_network/tf.nn.gelu_2/Gelu", ""),
    ],
)
def test_the_module_in_a_tensors_name(name, scope):
    assert scope_of(name) == scope


def test_partitions_are_read_without_torch():
    import subprocess
    import sys

    code = "import sys, runtime.partitions; sys.exit(bool({'torch', 'export', 'ai_edge_litert'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
