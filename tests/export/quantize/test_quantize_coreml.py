"""Core ML packages in int8, read back and run by the MIL interpreter, against eager PyTorch in float64."""

import copy
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import dmf
from dmf.training.augment import eval_crop
from dmf.training.config import read
from dmf.training.data import load
from export.convert import coreml
from export.convert.options import Options
from export.lowering import Lowering, lower
from export.quantize.coreml import MISSING, quantize
from export.quantize.weights import Left, Weights
from export.reparameterize import reparameterize
from export.static import StaticDMF
from export.verify.inputs import normalize, verification_inputs
from export.verify.mil_interpreter import MilInterpreter
from runtime.preprocess import MEAN, STD

Array = NDArray[Any]
LABELS = tuple("abcdefghij")


@pytest.fixture(scope="module")
def model() -> dmf.DMF:
    return dmf.load_checkpoint(dmf.pretrained("dmf_nano"), "dmf_nano").eval()


@pytest.fixture(scope="module")
def graph(model: dmf.DMF) -> StaticDMF:
    return lower(reparameterize(copy.deepcopy(model).double()).float(), Lowering.parse("matmul/taps"), equalize=True)


@pytest.fixture(scope="module")
def half(graph: StaticDMF, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As converted: it takes a tensor and gives logits."""
    return converted(graph, (1, 3, 64, 64), tmp_path_factory.mktemp("half"))


@pytest.fixture(scope="module")
def w8(half: Path, graph: StaticDMF, tmp_path_factory: pytest.TempPathFactory) -> Path:
    package = copied(half, tmp_path_factory.mktemp("w8"))
    assert quantize(package, Weights(graph, "w8", {}), None) == []
    return package


@pytest.fixture(scope="module")
def images(model: dmf.DMF) -> NDArray[np.uint8]:
    return verification_inputs(model).images


def converted(graph: nn.Module, shape: Sequence[int], folder: Path, **options: Any) -> Path:
    package = folder / "model.mlpackage"
    metadata = {"description": "digits", "lowering": "matmul/taps"}
    coreml.convert(graph, torch.zeros(*shape), package, Options(folder / "log", metadata, in_half=True, **options))
    return package


def copied(package: Path, folder: Path) -> Path:
    return Path(shutil.copytree(package, folder / package.name))


@torch.no_grad()
def expected(model: dmf.DMF, images: NDArray[np.uint8]) -> Array:
    oracle = copy.deepcopy(model).double()
    return np.concatenate([oracle(x).numpy() for x in normalize(images, torch.float64).split(1)])


def inputs(images: NDArray[np.uint8]) -> list[Array]:
    return [x.numpy() for x in normalize(images).split(1)]


def logits(package: Path, inputs: Sequence[Array]) -> Array:
    interpreter = MilInterpreter(package)
    return np.concatenate([interpreter.run({"image": x})["logits"] for x in inputs]).astype(np.float64)


def psnr(actual: Array, reference: Array) -> float:
    return float(10 * np.log10(np.abs(reference).max() ** 2 / ((actual - reference) ** 2).mean()))


def operations(package: Path) -> dict[str, Any]:
    """By the name of the first output, as loaded."""
    from coremltools.converters.mil.frontend.milproto.load import load as load_program
    from coremltools.models import MLModel

    model = MLModel(str(package), skip_model_load=True)
    spec = model.get_spec()
    program = load_program(spec, spec.specificationVersion, model.weights_dir)
    return {operation.outputs[0].name: operation for operation in program.functions["main"].operations}


def weights_of(package: Path) -> dict[str, Array]:
    """Constants in floating point, of more than one dimension."""
    found = {name: each.outputs[0].val for name, each in operations(package).items() if each.op_type == "const"}
    arrays = {name: value for name, value in found.items() if isinstance(value, np.ndarray)}
    return {name: array for name, array in arrays.items() if array.ndim > 1 and array.dtype.kind == "f"}


def packed(package: Path) -> dict[str, Any]:
    """What is stored in int8, by the name that it had as converted."""
    found = operations(package).items()
    return {name.removesuffix("_quantized"): each for name, each in found if each.op_type == AFFINE}


AFFINE = "constexpr_affine_dequantize"


def description(package: Path) -> Any:
    from coremltools.models.utils import load_spec

    return load_spec(str(package)).description


# int8 weights --------------------------------------------------------------------------------------


def test_w8_is_near_the_model(w8: Path, half: Path, model: dmf.DMF, images: NDArray[np.uint8]) -> None:
    reference = expected(model, images)
    eight, sixteen = (psnr(logits(package, inputs(images)), reference) for package in (w8, half))
    assert eight >= 40
    assert sixteen >= 60 > eight + 10  # it is the int8 weights that are seen
    assert psnr(np.roll(reference, 1, 0), reference) < 40


def differences(values: Array, stored: Any, one_scale: bool) -> list[str]:
    """What is not as the closed form has it: scale = max|w| / 127 of a row, or of all, w to half a step.

    Scales and values are fp16, so each is rounded by 2^-11 of itself, and by 2^-25 where it is smaller than 2^-14.
    """
    rows = values.astype(np.float64).reshape(1 if one_scale else len(values), -1)
    integers = stored.quantized_data.val.astype(np.float64).reshape(rows.shape)
    scale = np.broadcast_to(stored.scale.val.astype(np.float64).reshape(-1, 1), (len(rows), 1))
    ideal = np.abs(rows).max(1, keepdims=True) / 127
    wrong = []
    if not (np.abs(scale - ideal) <= 2 * (ideal * 2**-11 + 2**-25)).all():
        wrong.append("scale")
    if not (np.abs(scale * integers - rows) <= scale * (0.5 + 127 * 2**-10) + 127 * 2**-24).all():
        wrong.append("values")
    return wrong


def test_weights_are_the_closed_form(w8: Path, half: Path, graph: StaticDMF) -> None:
    weights, before, after = Weights(graph, "w8", {}), weights_of(half), packed(w8)
    found = {name: weight for name, values in before.items() if (weight := weights.find(values)) is not None}
    assert set(after) == set(found)
    assert set(found.values()) == set(weights.all)
    assert {weight.generates for weight in found.values()} == {True, False}
    for name, weight in found.items():
        assert after[name].scale.val.size == (1 if weight.generates else len(before[name])), name
        assert differences(before[name], after[name], weight.generates) == [], name
        assert differences(before[name] * 1.02, after[name], weight.generates) == ["scale", "values"], name


def test_other_constants_and_operations_stay(w8: Path, half: Path) -> None:
    def others(package: Path) -> list[tuple[str, str, tuple[int, ...]]]:
        computed = ((name, each) for name, each in operations(package).items() if not each.op_type.startswith("const"))
        return [(name, each.op_type, each.outputs[0].shape) for name, each in computed]

    before, after, replaced = weights_of(half), weights_of(w8), set(packed(w8))
    assert others(w8) == others(half)
    assert set(before) - replaced == set(after)
    assert all((after[name] == before[name]).all() for name in after)
    assert description(w8) == description(half)


def test_a_doubled_scale_is_seen(w8: Path, model: dmf.DMF, images: NDArray[np.uint8], tmp_path: Path) -> None:
    package = copied(w8, tmp_path)
    path = package / "Data" / "com.apple.CoreML" / "model.mlmodel"
    spec = load_model(path)
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    one = next(each for each in block.operations if each.type == AFFINE and scalar(each))
    stored = one.attributes["scale"].immediateValue.tensor.bytes
    stored.values = (np.frombuffer(stored.values, np.float16) * 2).tobytes()
    path.write_bytes(spec.SerializeToString())
    assert psnr(logits(package, inputs(images)), expected(model, images)) < 40


def load_model(path: Path) -> Any:
    from coremltools.proto.Model_pb2 import Model

    model = Model()
    model.ParseFromString(path.read_bytes())
    return model


def scalar(operation: Any) -> bool:
    return bool(operation.attributes["scale"].immediateValue.tensor.bytes.values)


def test_exceptions_stay_as_they_are(half: Path, graph: StaticDMF, tmp_path: Path) -> None:
    package = copied(half, tmp_path)
    weights = Weights(graph, "w8", {"head": "fp16", "blocks.1": "fp32"})
    assert quantize(package, weights, None) == []
    before, after, stored = weights_of(half), weights_of(package), packed(package)
    kept = 0
    for name, values in before.items():
        weight = weights.find(values)
        if weight is not None and weight.module.startswith(("head", "blocks.1.")):
            assert (after[name] == values).all() and after[name].dtype == np.float16
            kept += 1
        else:
            assert (name in stored) == (weight is not None)
    assert kept > 10 and len(stored) > 50


def test_a_classifier_of_images_survives(
    graph: StaticDMF, model: dmf.DMF, images: NDArray[np.uint8], tmp_path: Path
) -> None:
    package = converted(graph, (1, 3, 64, 64), tmp_path, mean=MEAN, std=STD, labels=LABELS)
    before = description(package)
    assert before.metadata.userDefined["lowering"] == "matmul/taps"
    assert quantize(package, Weights(graph, "w8", {}), None) == []
    assert description(package) == before
    assert {output.name for output in before.output} == {"label", "label_probs", "logits"}
    interpreter, reference = MilInterpreter(package), expected(model, images)
    pixels = images.transpose(0, 3, 1, 2).astype(np.float32)
    results = [interpreter.run({"image": x[None]}) for x in pixels]
    actual = np.concatenate([result["logits"] for result in results]).astype(np.float64)
    assert len(packed(package)) > 50
    assert 40 <= psnr(actual, reference) < 60
    assert [str(result["label"]) for result in results] == [LABELS[i] for i in reference.argmax(1)]
    softmax = np.exp(actual) / np.exp(actual).sum(1, keepdims=True)
    probabilities = np.stack([result[interpreter.outputs[1]] for result in results])
    assert np.abs(probabilities - softmax).max() < 2e-3 < np.abs(probabilities - softmax[::-1]).max()


# What is left in more bits -------------------------------------------------------------------------


class Narrow(nn.Module):
    """Its weight has 6 numbers, which coremltools leaves as they are; `wide` has 24."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(8, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.narrow(self.wide(x).relu())


def test_a_weight_of_few_numbers_is_reported(tmp_path: Path) -> None:
    torch.manual_seed(0)
    graph = Narrow().eval()
    package = converted(graph, (2, 8), tmp_path)
    (left,) = quantize(package, Weights(graph, "w8", {}), None)
    assert (left.module, left.precision) == ("narrow", "fp16")
    assert "(2, 3)" in left.reason
    assert len(packed(package)) == 1


def test_a_weight_that_is_not_there_is_reported(tmp_path: Path) -> None:
    package = converted(Narrow().eval(), (2, 8), tmp_path)
    before = weights_of(package)
    left = quantize(package, Weights(Narrow(), "w8", {"narrow": "fp32"}), None)
    assert left == [Left("wide", "fp32", MISSING)]
    after = weights_of(package)
    assert set(before) == set(after) and all((before[name] == after[name]).all() for name in before)


def test_a_row_of_zeros_stays_zero(tmp_path: Path) -> None:
    torch.manual_seed(0)
    graph = Narrow().eval()
    graph.wide.weight.data[1] = 0
    package = converted(graph, (2, 8), tmp_path)
    quantize(package, Weights(graph, "w8", {}), None)
    (weight,) = (each.materialized_val_inference() for each in packed(package).values())
    zero = (weight == 0).all(1)
    assert zero.tolist() == [False, True, False]


# int8 activations ----------------------------------------------------------------------------------


def digits(kind: str, number: int) -> NDArray[np.uint8]:
    pictures = getattr(load(read("dmf_nano_digits").data), kind)
    return np.stack([np.asarray(eval_crop(pictures.picture(i), 64)) for i in range(number)])


@pytest.fixture(scope="module")
def calibration() -> list[Array]:
    """The first has the largest values of all."""
    return sorted(inputs(digits("train", 20)), key=lambda x: -float(x.max()))


@pytest.fixture(scope="module")
def w8a8(
    half: Path, graph: StaticDMF, calibration: list[Array], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Left]]:
    package = copied(half, tmp_path_factory.mktemp("w8a8"))
    return package, quantize(package, Weights(graph, "w8a8", {"blocks.2": "w8"}), calibration)


def test_w8a8_is_near_the_model(w8a8: tuple[Path, list[Left]], w8: Path, model: dmf.DMF) -> None:
    pictures = digits("heldout", 20)
    reference = expected(model, pictures)
    package, weights_only = (psnr(logits(path, inputs(pictures)), reference) for path in (w8a8[0], w8))
    assert package >= 30
    assert weights_only > package + 1  # activations are rounded, too
    assert psnr(np.roll(reference, 1, 0), reference) < 30
    assert description(w8a8[0]) == description(w8)


def test_convolutions_take_int8(w8a8: tuple[Path, list[Left]], graph: StaticDMF, half: Path) -> None:
    package, left = w8a8
    weights, values, stored = Weights(graph, "w8a8", {"blocks.2": "w8"}), weights_of(half), packed(package)
    assert set(stored) == {name for name in values if weights.find(values[name]) is not None}
    expected_left, kinds = {}, set()
    for name, each in stored.items():
        weight = weights.find(values[name])
        assert weight is not None
        (layer,) = each.outputs[0].child_ops
        int8 = weight.kind == "convolution" and weight.precision == "w8a8"
        assert (layer.x.op.op_type == "dequantize") == int8, name
        kinds.add((weight.kind, int8))
        if not int8 and weight.precision == "w8a8":
            expected_left[weight.module] = "w8"
    assert kinds == {("convolution", True), ("convolution", False), ("linear", False), ("generation", False)}
    assert {each.module: each.precision for each in left} == expected_left


def test_the_range_is_that_of_all_calibration_inputs(w8a8: tuple[Path, list[Left]], calibration: list[Array]) -> None:
    """Of the image: affine, 0 included, 255 steps."""
    first = next(each for each in operations(w8a8[0]).values() if each.op_type == "quantize")
    step, zero = float(first.scale.val), int(first.zero_point.val)

    def ideal(samples: Sequence[Array]) -> tuple[float, float]:
        low, high = min(0.0, min(float(x.min()) for x in samples)), max(float(x.max()) for x in samples)
        return (high - low) / 255, -128 - low * 255 / (high - low)

    assert step == pytest.approx(ideal(calibration)[0], rel=2e-3) and abs(zero - ideal(calibration)[1]) < 1
    assert step != pytest.approx(ideal(calibration[-1:])[0], rel=2e-3)


@pytest.mark.parametrize("nothing", [None, []])
def test_w8a8_needs_calibration(half: Path, graph: StaticDMF, nothing: list[Array] | None, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="calibration"):
        quantize(copied(half, tmp_path), Weights(graph, "w8a8", {}), nothing)
