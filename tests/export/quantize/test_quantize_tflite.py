"""Quantised .tflite files: what they hold against closed forms, what they answer against eager PyTorch in float64."""

import copy
import shutil

import flatbuffers
import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema

import dmf
from dmf.training.augment import eval_crop
from dmf.training.config import read
from dmf.training.data import load
from export.convert.litert_torch import convert
from export.convert.options import Options
from export.layout import NHWC
from export.lowering import Lowering, lower
from export.pipeline import prepare, write_package
from export.plan import make_plan
from export.provenance import Origin
from export.quantize.rounding import rounded
from export.quantize.tflite import WORTHWHILE, quantize
from export.quantize.weights import Weights
from export.reparameterize import reparameterize
from export.verify.inputs import normalize
from export.verify.intermediates import read_tflite
from export.verify.localise import localise
from export.verify.package import verify_package
from runtime.manifest import Package
from runtime.runners import open_runner

BARS = {"fp16": 60, "w8": 40, "w8a8": 30}  # dB
KINDS = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
PRODUCTS = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D")
EVERY = 6  # of the products that have a fault planted: all would take minutes


class Network:
    """A model, its lowered graph, and the float32 file."""

    def __init__(self, model, folder, lowering="matmul/conv"):
        self.model = model
        graph = reparameterize(copy.deepcopy(model).double()).float()
        self.graph = lower(graph, Lowering.parse(lowering), NHWC(), NHWC(), equalize=True)
        self.path = folder / "model.tflite"
        convert(self.graph, torch.zeros(1, 64, 64, 3), self.path, Options(folder / "log"))

    def quantized(self, path, precision, calibration=None, exceptions=None):
        """What was left; the file is at `path`."""
        shutil.copy(self.path, path)
        return quantize(path, Weights(self.graph, precision, exceptions or {}), calibration)


@pytest.fixture(scope="module")
def nano(tmp_path_factory):
    model = dmf.load_checkpoint(dmf.pretrained("dmf_nano"), "dmf_nano").eval()
    return Network(model, tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def random(tmp_path_factory):
    """BN statistics and kernel banks are random, and the depthwise convolutions are `bank`: constants of their own."""
    model = dmf.seed_weights(dmf.create_model("dmf_nano"), 0).eval()
    return Network(model, tmp_path_factory.mktemp("random"), "matmul/bank")


@pytest.fixture(scope="module")
def digits():
    """Inputs (1, 64, 64, 3): 100 that the network was trained on, 40 that it wasn't."""
    data = load(read("dmf_nano_digits").data)
    pictures = [
        np.asarray(eval_crop(split.picture(i), 64))
        for split, n in ((data.train, 100), (data.heldout, 40))
        for i in range(n)
    ]
    inputs = normalize(np.stack(pictures)).permute(0, 2, 3, 1).contiguous().numpy()[:, None]
    return inputs[:100], inputs[100:]


@pytest.fixture(scope="module")
def w8a8(nano, digits, tmp_path_factory):
    """The trained network, calibrated with 100 digits, and what was left."""
    path = tmp_path_factory.mktemp("w8a8") / "q.tflite"
    return path, nano.quantized(path, "w8a8", list(digits[0]))


def answers(path, inputs):
    """Logits (N, classes)."""
    runner = open_runner("tflite", path)
    return np.concatenate([runner.run(x)[0] for x in inputs]).astype(np.float64)


@torch.no_grad()
def eager(module, inputs, upright=True):
    """Logits (N, classes) in float64; `upright`: the module takes (1, 3, H, W)."""
    module = copy.deepcopy(module).double().eval()
    inputs = [torch.from_numpy(x).double() for x in inputs]
    return torch.cat([module(x.permute(0, 3, 1, 2) if upright else x) for x in inputs]).numpy()


def psnr(logits, reference):
    return 10 * np.log10((reference**2).max() / ((logits - reference) ** 2).mean())


class File:
    """A file's operators, with the weights that they multiply with as they are decoded."""

    def __init__(self, path):
        self.model = read_tflite(path)
        (self.graph,) = self.model.subgraphs
        self.producers = {int(i): op for op in self.graph.operators for i in op.outputs}

    def kind(self, op):
        return KINDS[self.model.operatorCodes[op.opcodeIndex].builtinCode]

    def type(self, index):
        return self.graph.tensors[index].type

    def scope(self, op):
        return self.graph.tensors[op.outputs[0]].name.decode()

    def decoded(self, index):
        """A constant as float64; None for what is computed."""
        tensor = self.graph.tensors[index]
        data = self.model.buffers[tensor.buffer].data
        if data is None or not len(data):
            producer = self.producers.get(int(index))
            is_decoded = producer is not None and self.kind(producer) == "DEQUANTIZE"
            return self.decoded(producer.inputs[0]) if is_decoded else None
        types = {0: np.float32, 1: np.float16, 9: np.int8}
        values = np.asarray(data, np.uint8).view(types[tensor.type]).reshape(tensor.shape).astype(np.float64)
        if tensor.type != schema.TensorType.INT8:
            return values
        scale = np.asarray(tensor.quantization.scale, np.float64)
        axes = [1] * values.ndim
        axes[tensor.quantization.quantizedDimension] = -1
        return values * (scale.reshape(axes) if len(scale) > 1 else scale)

    def weights(self):
        """By the name of the product's output, the weight, output channels first, and its op."""
        found = {}
        for op in self.graph.operators:
            values = self.decoded(op.inputs[1]) if self.kind(op) in PRODUCTS else None
            if values is not None:
                found[self.scope(op)] = np.moveaxis(values, 3, 0) if self.kind(op) == PRODUCTS[2] else values
        return found


def is_nearest(before, after, precision, generates):
    """Whether a weight is stored as it should be."""
    if precision == "fp32":
        return (after == before).all()
    if precision == "fp16":
        return (after == before.astype(np.float16)).all()
    rows = (1 if generates else len(before), -1)
    before, after = before.reshape(rows), after.reshape(rows)
    scale = np.abs(before).max(1, keepdims=True) / 127
    steps = after / np.where(scale, scale, 1)
    whole = np.abs(steps - steps.round()).max() < 1e-3 and np.abs(steps).max() < 127.001
    return bool(whole and (np.abs(after - before) <= scale * 0.5001).all())


def wrong_weights(network, path, precision, exceptions=None):
    """Products whose weights aren't what they should be, and how many were looked at."""
    weights = Weights(network.graph, precision, exceptions or {})
    after, wrong, seen = File(path).weights(), [], set()
    for scope, values in File(network.path).weights().items():
        weight = weights.find(values.astype(np.float32))
        if weight is not None:
            seen.add(weight)
            if not is_nearest(values, after[scope], weight.precision, weight.generates):
                wrong.append(weight.module)
    return wrong, seen


def with_double_scale(path, copy_at):
    """A file whose last int8 weight, the classifier's, counts twice."""
    file = File(path)
    scales = [t.quantization for t in file.graph.tensors if t.type == schema.TensorType.INT8 and t.shape[0] == 10]
    for each in scales:
        each.scale = 2 * np.asarray(each.scale)
    builder = flatbuffers.Builder()
    builder.Finish(file.model.Pack(builder), b"TFL3")
    copy_at.write_bytes(builder.Output())
    return copy_at


@pytest.mark.parametrize("precision", BARS)
def test_a_trained_network_still_answers_as_eager_pytorch(precision, nano, digits, w8a8, tmp_path):
    images, path = digits[1], tmp_path / "q.tflite"
    if precision == "w8a8":
        path = w8a8[0]
    else:
        assert nano.quantized(path, precision) == []
    reference = eager(nano.model, images)
    logits = answers(path, images)
    assert psnr(logits, reference) >= BARS[precision]
    assert (logits.argmax(1) == reference.argmax(1)).mean() >= 0.97
    assert not psnr(answers(path, images[::-1]), reference) >= BARS[precision]
    if precision != "fp16":
        assert (
            not psnr(answers(with_double_scale(path, tmp_path / "bent.tflite"), images), reference) >= BARS[precision]
        )


@pytest.mark.parametrize("precision", ["fp16", "w8"])
def test_a_random_network_computes_with_the_rounded_weights(precision, random, tmp_path):
    """fp16 is decoded when the file is loaded; w8 multiplies rows that are rounded in flight, or decoded weights."""
    inputs = np.random.default_rng(0).standard_normal((4, 1, 64, 64, 3)).astype(np.float32)
    random.quantized(tmp_path / "q.tflite", precision)
    logits, bar = answers(tmp_path / "q.tflite", inputs), 100 if precision == "fp16" else 30
    oracle = rounded(random.graph, Weights(random.graph, precision, {}))
    assert psnr(logits, eager(oracle, inputs, upright=False)) > bar
    assert psnr(logits, eager(oracle, inputs, upright=False)) > psnr(logits, eager(random.graph, inputs, False)) + 10


@pytest.mark.parametrize("precision", BARS)
@pytest.mark.parametrize("network", ["nano", "random"])
def test_every_weight_is_the_nearest_that_its_type_has(network, precision, digits, tmp_path, request):
    network = request.getfixturevalue(network)
    network.quantized(tmp_path / "q.tflite", precision, list(digits[0][:4]))
    wrong, seen = wrong_weights(network, tmp_path / "q.tflite", precision)
    assert wrong == []
    assert seen == set(Weights(network.graph, precision, {}).all)
    if precision != "fp16":
        bent = with_double_scale(tmp_path / "q.tflite", tmp_path / "bent.tflite")
        assert wrong_weights(network, bent, precision)[0]


def test_a_module_can_have_another_precision(nano, digits, tmp_path):
    exceptions = {"blocks.1": "fp32", "blocks.1.former.token_attention": "fp16", "head": "w8"}
    nano.quantized(tmp_path / "q.tflite", "w8a8", list(digits[0][:4]), exceptions)
    assert wrong_weights(nano, tmp_path / "q.tflite", "w8a8", exceptions)[0] == []
    assert wrong_weights(nano, tmp_path / "q.tflite", "w8a8", exceptions | {"blocks.2": "fp32"})[0]
    file = File(tmp_path / "q.tflite")
    tables = {file.scope(op) for op in file.graph.operators if file.kind(op) == "GELU" and is_int8(file, op.inputs[0])}
    assert any("Block_2" in name for name in tables)
    assert not any("Block_1" in name for name in tables)


def is_int8(file, index):
    return file.type(index) == schema.TensorType.INT8


def test_how_products_are_computed(nano, w8a8, tmp_path):
    """Constant convolutions on int8, linear layers on float rows, and what is generated as in float32."""
    nano.quantized(tmp_path / "w8.tflite", "w8")
    weights = Weights(nano.graph, "w8a8", {})
    kinds = {s: weights.find(v.astype(np.float32)) for s, v in File(nano.path).weights().items()}
    w8, static = File(tmp_path / "w8.tflite"), File(w8a8[0])
    in_flight = set()
    for op in w8.graph.operators:
        if w8.kind(op) in PRODUCTS:
            weight = kinds.get(w8.scope(op))
            assert not is_int8(w8, op.inputs[0])
            if is_int8(w8, op.inputs[1]):
                outputs, inputs = w8.graph.tensors[op.inputs[1]].shape
                in_flight.add(weight.kind)
                assert weight.generates or inputs * outputs / (inputs + outputs) >= WORTHWHILE
    assert in_flight == {"linear", "generation", "convolution"}
    for op in static.graph.operators:
        weight = kinds.get(static.scope(op).removesuffix("_dequant"))
        if static.kind(op) in PRODUCTS and weight is not None:
            assert is_int8(static, op.inputs[0]) == (weight.kind == "convolution"), static.scope(op)
        elif static.kind(op) == "GELU":
            assert is_int8(static, op.inputs[0]) == ("Former" not in static.scope(op)), static.scope(op)
        elif static.kind(op) in (*PRODUCTS, "BATCH_MATMUL"):
            assert not is_int8(static, op.inputs[0]), static.scope(op)


def test_what_is_not_int8_is_reported(nano, w8a8):
    weights = Weights(nano.graph, "w8a8", {}).all
    expected = {(each.module, "w8") for each in weights if each.kind != "convolution"}
    assert {(each.module, each.precision) for each in w8a8[1]} == expected
    assert len(w8a8[1]) == len(expected)
    assert {"head.fc1", "blocks.0.dynamic_mobile.dw_conv"} <= {each.module for each in w8a8[1]}
    assert "stem.conv" not in {each.module for each in w8a8[1]}


def test_ranges_are_those_of_the_calibration(nano, w8a8, digits, tmp_path):
    images = digits[1]
    reference = eager(nano.model, images)
    nano.quantized(tmp_path / "q.tflite", "w8a8", [x / 8 for x in images[:4]])
    assert psnr(answers(tmp_path / "q.tflite", images), reference) < psnr(answers(w8a8[0], images), reference) - 10


def test_a_weight_that_is_not_in_the_file_is_reported(nano, random, tmp_path):
    shutil.copy(nano.path, tmp_path / "q.tflite")
    weights = Weights(random.graph, "w8", {})
    left = quantize(tmp_path / "q.tflite", weights, None)
    assert {each.module for each in left} == {weight.module for weight in weights.all}
    assert {(each.precision, each.reason) for each in left} == {
        ("fp32", "its weight is not a constant of the artifact")
    }


def test_one_name_is_another_ops_beginning(nano):
    """The recipe goes by names: each op must have one of its own."""
    file = File(nano.path)
    names = [file.scope(op) for op in file.graph.operators]
    assert len(names) == len(set(names))


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    path = dmf.pretrained("dmf_nano")
    prepared = prepare(dmf.load_checkpoint(path, "dmf_nano"), Origin(path=path))
    plan = make_plan(prepared.model, "tflite", precision="w8")
    return write_package(plan, prepared, tmp_path_factory.mktemp("build"), overwrite=False)


def holders(file):
    """Per product with a weight, the tensor that holds it."""
    for op in file.graph.operators:
        if file.kind(op) in PRODUCTS and file.decoded(op.inputs[1]) is not None:
            producer = file.producers.get(int(op.inputs[1]))
            yield file.graph.tensors[op.inputs[1] if producer is None else producer.inputs[0]]


def doubled(package, product, folder):
    """The package with all weights of one product doubled."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(package.path, folder)
    file = File(package.artifact)
    tensor = list(holders(file))[product]
    assert tensor.quantization.scale is not None
    tensor.quantization.scale = 2 * np.asarray(tensor.quantization.scale)
    builder = flatbuffers.Builder()
    builder.Finish(file.model.Pack(builder), b"TFL3")
    (folder / package.manifest.artifact).write_bytes(builder.Output())
    return Package(folder, package.manifest)


def test_weights_twice_as_large_are_found(package, tmp_path):
    """Of some the logits move less than int8 may move them: then the module itself leaves its budget."""
    assert not verify_package(package).failures
    assert localise(package).first is None
    constants = list(holders(File(package.artifact)))
    held = [i for i, tensor in enumerate(constants) if tensor.quantization is not None and tensor.type == 9]
    assert len(held) > 100
    by_logits, by_module, unseen = 0, 0, []
    for product in held[::EVERY]:
        bent = doubled(package, product, tmp_path / "bent")
        if verify_package(bent).failures:
            by_logits += 1
        elif localise(bent).first is not None:
            by_module += 1
        else:
            unseen.append(constants[product].name)
    assert min(by_logits, by_module) > 3
    assert len(unseen) <= 0.1 * len(held[::EVERY]), unseen
