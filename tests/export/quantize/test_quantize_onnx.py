"""Quantised ONNX files: what they hold against closed forms, what they answer against eager PyTorch in float64."""

import copy
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import dmf
from dmf.training.augment import eval_crop
from dmf.training.config import read
from dmf.training.data import load
from export.convert.onnx import convert
from export.convert.options import Options
from export.layout import NCHW
from export.lowering import Lowering, lower
from export.quantize.onnx import quantize
from export.quantize.rounding import rounded
from export.quantize.weights import Left, Weights
from export.reparameterize import reparameterize
from export.verify.inputs import normalize

METADATA = {"description": "a network", "weights_sha256": "0123"}
BARS = {"fp16": 60, "w8": 40, "w8a8": 30}  # dB
PRODUCTS = {"Conv", "Gemm", "MatMul"}


class Network:
    """A model, its lowered graph, and the fp32 file."""

    def __init__(self, model, folder: Path, lowering="conv/conv", dynamic_batch=False):
        self.model = model
        graph = reparameterize(copy.deepcopy(model).double()).float()
        self.graph = lower(graph, Lowering.parse(lowering), NCHW(), NCHW(), equalize=True)
        self.path = folder / "model.onnx"
        example = torch.zeros(2 if dynamic_batch else 1, 3, 64, 64)
        convert(self.graph, example, self.path, Options(Path(), METADATA, dynamic_batch=dynamic_batch))

    def quantized(self, path, precision, calibration=None, exceptions=None):
        """What was left; the file is at `path`."""
        shutil.copy(self.path, path)
        return quantize(path, Weights(self.graph, precision, exceptions or {}), calibration)


def trained():
    return dmf.load_checkpoint(dmf.pretrained("dmf_nano"), "dmf_nano").eval()


@pytest.fixture(scope="module")
def nano(tmp_path_factory):
    return Network(trained(), tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def random(tmp_path_factory):
    """BN statistics and kernel banks are random."""
    model = dmf.seed_weights(dmf.create_model("dmf_nano"), 0).eval()
    return Network(model, tmp_path_factory.mktemp("random"), "matmul/taps", dynamic_batch=True)


@pytest.fixture(scope="module")
def digits():
    """Inputs (1, 3, 64, 64): 100 that the network was trained on, 40 that it wasn't."""
    data = load(read("dmf_nano_digits").data)
    pictures = [
        np.asarray(eval_crop(split.picture(i), 64))
        for split, n in ((data.train, 100), (data.heldout, 40))
        for i in range(n)
    ]
    inputs = normalize(np.stack(pictures)).numpy()[:, None]
    return inputs[:100], inputs[100:]


def session(model, level=ort.GraphOptimizationLevel.ORT_ENABLE_ALL):
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.graph_optimization_level = level
    serialized = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
    return ort.InferenceSession(serialized, options, providers=["CPUExecutionProvider"])


def answers(model, inputs):
    """Logits (N, classes) of inputs (1, ...)."""
    opened = session(model)
    return np.concatenate([opened.run(["logits"], {"image": x})[0] for x in inputs]).astype(np.float64)


@torch.no_grad()
def eager(module, inputs):
    """Logits (N, classes) in float64."""
    module = copy.deepcopy(module).double().eval()
    return torch.cat([module(torch.from_numpy(x).double()) for x in inputs]).numpy()


def psnr(logits, reference):
    return 10 * np.log10((reference**2).max() / ((logits - reference) ** 2).mean())


def operands(model):
    """Node -> the weight that a product computes with, as ONNX Runtime decodes it, unoptimised."""
    model = copy.deepcopy(model)
    constant = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:  # decoders come before what they are for
        if node.input and all(name in constant for name in node.input if name):
            constant |= set(node.output)
    weights = {
        node.name: node.input[1] for node in model.graph.node if node.op_type in PRODUCTS and node.input[1] in constant
    }
    made = sorted(set(weights.values()) - {tensor.name for tensor in model.graph.initializer})
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    if made:
        model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in made)
        opened = session(model, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
        shape = [size if isinstance(size, int) else 1 for size in opened.get_inputs()[0].shape]
        stored |= dict(zip(made, opened.run(made, {"image": np.zeros(shape, np.float32)}), strict=True))
    return {node: stored[name] for node, name in weights.items()}


def is_nearest(before, after, precision, generates):
    """Whether a weight is stored as it should be; its output channels come first."""
    if precision == "fp32":
        return (after == before).all()
    if precision == "fp16":
        return (after == before.astype(np.float16)).all()
    rows = (1 if generates else len(before), -1)
    before, after = before.astype(np.float64).reshape(rows), after.astype(np.float64).reshape(rows)
    scale = np.abs(before).max(1, keepdims=True) / 127
    steps = after / scale
    whole = np.abs(steps - steps.round()).max() < 1e-3 and np.abs(steps).max() < 127.001
    return whole and (np.abs(after - before) <= scale * 0.5001).all()


def wrong_weights(network, model, precision, exceptions=None):
    """Names of products whose weights aren't what they should be, and how many were looked at."""
    weights = Weights(network.graph, precision, exceptions or {})
    before, after = operands(onnx.load(network.path)), operands(model)
    wrong, seen = [], 0
    for node, values in before.items():
        weight = weights.find(values)
        if weight is None:
            continue
        seen += 1
        if not is_nearest(values, after[node], weight.precision, weight.generates):
            wrong.append(node)
    return wrong, seen


def initializers(model):
    return {tensor.name: tensor for tensor in model.graph.initializer}


@pytest.mark.parametrize("precision", BARS)
def test_a_trained_network_still_answers_as_eager_pytorch(precision, nano, digits, tmp_path):
    calibration, images = digits
    nano.quantized(tmp_path / "q.onnx", precision, calibration)
    reference = eager(nano.model, images)
    logits = answers(tmp_path / "q.onnx", images)
    assert psnr(logits, reference) >= BARS[precision]
    assert (logits.argmax(1) == reference.argmax(1)).all()
    bent = onnx.load(tmp_path / "q.onnx")
    scale_or_bias = next(t for n, t in initializers(bent).items() if n.startswith("fc2") and t.data_type == 1)
    scale_or_bias.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(scale_or_bias), scale_or_bias.name))
    assert not psnr(answers(bent, images), reference) >= BARS[precision]


@pytest.mark.parametrize("precision", ["fp16", "w8"])
def test_a_random_network_computes_with_rounded_weights_and_float_activations(precision, random, tmp_path):
    inputs = np.random.default_rng(0).standard_normal((4, 1, 3, 64, 64)).astype(np.float32)
    random.quantized(tmp_path / "q.onnx", precision)
    logits = answers(tmp_path / "q.onnx", inputs)
    weights = Weights(random.graph, precision, {})
    assert psnr(logits, eager(rounded(random.graph, weights), inputs)) > 100
    assert not psnr(logits, eager(random.graph, inputs)) > 100


@pytest.mark.parametrize("precision", BARS)
@pytest.mark.parametrize("network", ["nano", "random"])
def test_every_weight_is_the_nearest_that_its_type_has(network, precision, digits, tmp_path, request):
    network = request.getfixturevalue(network)
    network.quantized(tmp_path / "q.onnx", precision, digits[0][:4])
    model = onnx.load(tmp_path / "q.onnx")
    wrong, seen = wrong_weights(network, model, precision)
    assert not wrong
    assert seen == len(Weights(network.graph, precision, {}).all)
    if precision != "fp16":
        scale = next(tensor for name, tensor in initializers(model).items() if name.endswith("weight_scale"))
        scale.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(scale), scale.name))
        assert len(wrong_weights(network, model, precision)[0]) == 1


def test_a_module_can_have_another_precision(nano, digits, tmp_path):
    exceptions = {"blocks.1": "fp32", "blocks.1.former.token_attention": "fp16", "head": "w8"}
    nano.quantized(tmp_path / "q.onnx", "w8a8", digits[0][:4], exceptions)
    model = onnx.load(tmp_path / "q.onnx")
    wrong, _ = wrong_weights(nano, model, "w8a8", exceptions)
    assert not wrong
    assert wrong_weights(nano, model, "w8a8", exceptions | {"blocks.2": "fp32"})[0]
    before = initializers(onnx.load(nano.path))
    kept = [name for name, weight in by_initializer(nano, exceptions).items() if weight.precision == "fp32"]
    assert len(kept) > 5
    assert all(initializers(model)[name].raw_data == before[name].raw_data for name in kept)


def by_initializer(network, exceptions, precision="w8a8"):
    """Initializers of the fp32 file that are weights, and whose."""
    weights = Weights(network.graph, precision, exceptions)
    found = {
        name: weights.find(numpy_helper.to_array(tensor))
        for name, tensor in initializers(onnx.load(network.path)).items()
        if tensor.data_type == TensorProto.FLOAT
    }
    return {name: weight for name, weight in found.items() if weight is not None}


@pytest.mark.parametrize("precision", ["fp16", "w8"])
def test_only_weights_change(precision, random, tmp_path):
    """Nodes are those of the fp32 file behind those that decode, and every other constant has its bits."""
    assert random.quantized(tmp_path / "q.onnx", precision) == []
    before, after = onnx.load(random.path), onnx.load(tmp_path / "q.onnx")
    onnx.checker.check_model(after, full_check=True)
    decoders = after.graph.node[: -len(before.graph.node)]
    assert {node.op_type for node in decoders} <= {"Cast", "Mul", "DequantizeLinear"}
    assert [node.SerializeToString() for node in after.graph.node[len(decoders) :]] == [
        node.SerializeToString() for node in before.graph.node
    ]
    weights = by_initializer(random, {})
    assert {node.output[0] for node in decoders} >= set(weights)
    others = {name: tensor for name, tensor in initializers(before).items() if name not in weights}
    assert all(initializers(after)[name].raw_data == tensor.raw_data for name, tensor in others.items())
    assert not set(weights) & set(initializers(after))
    assert described(after) == described(before)
    numbers = Counter()
    for tensor in after.graph.initializer:
        numbers[tensor.data_type] += numpy_helper.to_array(tensor).size
    stored = TensorProto.FLOAT16 if precision == "fp16" else TensorProto.INT8
    assert numbers[stored] == sum(numpy_helper.to_array(initializers(before)[name]).size for name in weights)


def described(model):
    """What a caller sees."""
    return (
        {each.key: each.value for each in model.metadata_props},
        [(each.domain, each.version) for each in model.opset_import],
        [each.SerializeToString() for each in [*model.graph.input, *model.graph.output]],
    )


def test_int8_activations_are_those_of_linear_layers(nano, digits, tmp_path):
    """Standard ops, the same inputs, outputs and metadata; the rest is reported, each module by its name."""
    left = nano.quantized(tmp_path / "q.onnx", "w8a8", digits[0][:4])
    model = onnx.load(tmp_path / "q.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert described(model) == described(onnx.load(nano.path))
    producers = {output: node.op_type for node in model.graph.node for output in node.output}
    quantised = {node.name: producers.get(node.input[0]) == "DequantizeLinear" for node in model.graph.node}
    weights, expected = by_initializer(nano, {}), set()
    for node in onnx.load(nano.path).graph.node:
        weight = weights.get(node.input[1]) if node.op_type in PRODUCTS else None
        linear = weight is not None and weight.kind == "linear"
        assert quantised[node.name] == linear, node.name
        if weight is not None and not linear:
            expected.add((weight.module, "w8"))
    assert {(each.module, each.precision) for each in left} == expected
    assert len(left) == len(expected)
    assert {weight.kind for weight in weights.values()} == {"linear", "convolution", "generation"}


def test_any_batch_is_as_its_samples(random, digits, tmp_path):
    for precision in BARS:
        random.quantized(tmp_path / "q.onnx", precision, digits[0][:8].reshape(4, 2, 3, 64, 64))
        images = digits[1][:3]
        together = session(tmp_path / "q.onnx").run(None, {"image": images[:, 0]})[0]
        alone = answers(tmp_path / "q.onnx", images)
        tolerance = 1e-3 * np.abs(alone).max()
        assert np.abs(together - alone).max() < tolerance
        assert not np.abs(together[::-1] - alone).max() < tolerance


def test_ranges_are_those_of_the_calibration(nano, digits, tmp_path):
    calibration, images = digits
    reference = eager(nano.model, images)
    nano.quantized(tmp_path / "q.onnx", "w8a8", list(calibration[:20]))
    enough = psnr(answers(tmp_path / "q.onnx", images), reference)
    nano.quantized(tmp_path / "q.onnx", "w8a8", [np.zeros_like(calibration[0])])
    assert psnr(answers(tmp_path / "q.onnx", images), reference) < enough - 10
    with pytest.raises(ValueError, match="calibration"):
        nano.quantized(tmp_path / "q.onnx", "w8a8")


class Odd(nn.Module):
    """A weight that a product takes and a sum as well, one that only a sum takes, and a plain one of one output."""

    def __init__(self):
        super().__init__()
        self.both, self.summed, self.last = nn.Linear(4, 4, False), nn.Linear(4, 4, False), nn.Linear(4, 1)


@pytest.fixture
def odd(tmp_path):
    torch.manual_seed(0)
    module = Odd()
    arrays = {name: tensor.detach().numpy() for name, tensor in module.named_parameters()}
    nodes = [
        helper.make_node("Gemm", ["image", "both.weight"], ["a"], "a"),
        helper.make_node("Add", ["a", "both.weight"], ["b"], "b"),
        helper.make_node("Add", ["b", "summed.weight"], ["c"], "c"),
        helper.make_node("MatMul", ["c", "last"], ["logits"], "d"),
    ]
    arrays["last"] = arrays.pop("last.weight").T.copy()
    del arrays["last.bias"]
    graph = helper.make_graph(
        nodes,
        "odd",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [4, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [4, 1])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "m.onnx")
    return module, tmp_path / "m.onnx"


def test_what_cannot_be_int8_is_reported(odd):
    module, path = odd
    image = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    before = session(path).run(None, {"image": image})[0]
    left = quantize(path, Weights(module, "w8", {}), None)
    assert [(each.module, each.precision) for each in left] == [("both", "fp32"), ("summed", "fp32")]
    assert [tensor.data_type for name, tensor in initializers(onnx.load(path)).items() if "int8" in name] == [3]
    assert psnr(session(path).run(None, {"image": image})[0], before) > 40


def test_weights_of_another_network_are_reported(odd):
    _, path = odd
    torch.manual_seed(1)
    other = Odd()
    before = path.read_bytes()
    left = quantize(path, Weights(other, "fp16", {"last": "fp32"}), None)
    assert left == [Left(name, "fp32", left[0].reason) for name in ("both", "summed")]
    assert initializers(onnx.load(path)) == initializers(onnx.load_from_string(before))


def test_a_filter_that_the_graph_reshapes_is_stored_in_its_shape(tmp_path):
    torch.manual_seed(0)
    layer = nn.Linear(3, 5, False)
    weight = layer.weight.detach().numpy()
    graph = helper.make_graph(
        [
            helper.make_node("Reshape", ["weight", "shape"], ["filter"], "reshape"),
            helper.make_node("Conv", ["image", "filter"], ["logits"], "conv"),
        ],
        "reshaped",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 2, 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 5, 2, 2])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(np.array([5, 3, 1, 1]), "shape")],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    assert quantize(path, Weights(nn.ModuleDict({"pointwise": layer}), "w8", {}), None) == []
    (stored,) = operands(onnx.load(path)).values()
    assert stored.shape == (5, 3, 1, 1)
    assert is_nearest(weight, stored, "w8", False)
    assert not is_nearest(weight, weight, "w8", False)
