"""Core ML artifacts of several batch sizes (enumerated shapes) and of several input sizes (functions)."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

import dmf
from export.pipeline import prepare, write_package
from export.plan import make_plan
from export.provenance import Origin
from export.verify import mil_interpreter
from export.verify.cli import main as verify
from export.verify.inputs import normalize
from export.verify.mil_interpreter import MilInterpreter
from export.verify.package import verify_package
from runtime.errors import CommandError
from runtime.manifest import open_package

BATCHES = (1, 2, 3)
LABELS = tuple(f"digit {k}" for k in range(10))


@pytest.fixture(scope="module")
def model():
    return dmf.load_checkpoint(dmf.pretrained("dmf_nano"), "dmf_nano")


@pytest.fixture(scope="module")
def prepared(model):
    return prepare(model, Origin(seed=0))


@pytest.fixture(scope="module")
def batched(prepared, tmp_path_factory):
    plan = make_plan(prepared.model, "coreml", batch=BATCHES, precision="fp32")
    return write_package(plan, prepared, tmp_path_factory.mktemp("batched"), overwrite=False)


@pytest.fixture(scope="module")
def sized(prepared, tmp_path_factory):
    """Classifiers of 64 and of 32 px."""
    plan = make_plan(prepared.model, "coreml", sizes=(64, 32), image_input=True, labels=LABELS)
    return write_package(plan, prepared, tmp_path_factory.mktemp("sized"), overwrite=False)


def pictures(count, side):
    return np.random.default_rng(7).integers(0, 256, (count, side, side, 3), np.uint8)


@torch.no_grad()
def reference(model, images):
    """Logits of eager PyTorch in float64, one picture at a time."""
    oracle = copy.deepcopy(model).double().eval()
    return torch.cat([oracle(x) for x in normalize(images, torch.float64).split(1)]).numpy()


def description(package):
    from coremltools.models.utils import load_spec

    return load_spec(str(package.artifact)).description


@pytest.mark.parametrize("batch", BATCHES)
def test_every_batch_is_its_pictures(batched, model, batch):
    images = pictures(batch, 64)
    logits = MilInterpreter(batched.artifact).run({"image": normalize(images).numpy()})["logits"]
    expected = reference(model, images)
    assert np.abs(logits - expected).max() < 1e-4 * np.abs(expected).max()
    if batch > 1:
        assert np.abs(logits - expected[::-1]).max() > 1e-2 * np.abs(expected).max()  # as another order would be seen


def test_core_ml_is_told_the_batches_and_no_others(batched):
    (image,) = description(batched).input
    told = [list(each.shape) for each in image.type.multiArrayType.enumeratedShapes.shapes]
    assert told == [[batch, 3, 64, 64] for batch in BATCHES]
    assert list(image.type.multiArrayType.shape) == [1, 3, 64, 64]  # what apps take if they don't choose
    spec = batched.manifest.inputs[0]
    assert (spec.shape, spec.batches) == ((-1, 3, 64, 64), BATCHES)
    assert batched.manifest.name == "dmf_nano-coreml-fp32-batch1_2_3"


def test_no_operation_asks_for_the_batch(batched):
    """A shape that is computed runs on the CPU: everything is written so that the batch is what is left over."""
    kinds = set(MilInterpreter(batched.artifact).op_types)
    assert not kinds & {"shape", "gather", "fill", "tile", "non_zero", "while_loop"}
    assert "reshape" in kinds


@pytest.mark.parametrize("wrong", BATCHES)
def test_every_batch_is_proven(batched, monkeypatch, wrong):
    """An artifact that errs at one batch size only is refused."""
    run = MilInterpreter.run

    def err(self, inputs):
        outputs = run(self, inputs)
        return {name: values + (len(inputs["image"]) == wrong) for name, values in outputs.items()}

    assert verify_package(batched).failures == ()
    monkeypatch.setattr(mil_interpreter.MilInterpreter, "run", err)
    assert any("exceeds the budget" in failure for failure in verify_package(batched).failures)


def test_every_function_is_the_model_at_its_size(sized, model):
    for function, side in (("main", 64), ("size_32", 32)):
        images = pictures(2, side)
        expected = reference(model, images)
        interpreter = MilInterpreter(sized.artifact, function=function)
        assert [(each.name, each.shape, each.color_space) for each in interpreter.inputs] == [
            ("image", (1, 3, side, side), "RGB")
        ]
        for image, logits in zip(images, expected, strict=True):
            answer = interpreter.run({"image": image.transpose(2, 0, 1)[None].astype(np.float32)})
            assert np.abs(answer["logits"] - logits).max() < 0.05 * np.abs(expected).max()  # of fp16
            assert str(answer["label"]) == LABELS[answer["logits"].argmax()]
        assert np.abs(expected[0] - expected[1]).max() > 0.1 * np.abs(expected).max()


def test_functions_share_their_weights(sized, batched):
    """Two functions in fp16 hold half of the bytes of one in fp32; twice as many if they shared nothing."""

    def weight_bytes(package):
        return sum(file.size_bytes for file in package.manifest.files if file.path.endswith("weight.bin"))

    assert weight_bytes(batched) > 1e6
    assert weight_bytes(sized) == pytest.approx(weight_bytes(batched) / 2, rel=0.02)


def test_core_ml_is_told_the_functions(sized):
    told = description(sized)
    assert told.defaultFunctionName == "main"
    assert [each.name for each in told.functions] == ["main", "size_32"]
    assert [each.predictedFeatureName for each in told.functions] == ["label", "label"]
    assert told.metadata.shortDescription == "Dynamic Mobile-Former dmf_nano"
    assert told.metadata.userDefined["weights_sha256"] == sized.manifest.checkpoint.sha256


def test_a_package_of_functions_is_several_in_one(sized):
    package = open_package(sized.path)
    assert [each.manifest.name for each in package.functions] == [
        "dmf_nano-coreml-sizes64_32-image:main",
        "dmf_nano-coreml-sizes64_32-image:size_32",
    ]
    for each, side in zip(package.functions, (64, 32), strict=True):
        assert each.functions == (each,)
        assert each.manifest.inputs[0].crop == (side, side)
        assert each.golden.exists()
        assert verify_package(each).failures == ()
    first, second = package.functions
    swapped = replace(second, golden_name=first.golden_name)  # pictures of another size
    with pytest.raises(CommandError, match=r"images are uint8 \(6, 64, 64, 3\), input 'image' takes .*32, 32, 3\)"):
        verify_package(swapped)


def test_dmf_verify_proves_every_function(sized, capsys):
    assert verify([str(sized.path), "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": proven on ")[0] for line in lines] == [
        f"{sized.path}:main",
        f"{sized.path}:size_32",
    ]


@pytest.mark.parametrize(
    ("function", "told"), [(None, "the one function 'main'"), ("size_48", "no function 'size_48'")]
)
def test_a_function_that_is_not_there(sized, function, told):
    with pytest.raises(ValueError, match=told):
        MilInterpreter(sized.artifact, function=function)


def test_names_of_plans(model):
    plan = make_plan(model, "coreml", sizes=(64, 96))
    assert (plan.name, plan.ios, plan.sizes) == ("dmf_nano-coreml-sizes64_96", 18, (64, 96))
    assert (
        make_plan(model, "coreml", sizes=(64,)).name == make_plan(model, "coreml", batch=[1]).name == "dmf_nano-coreml"
    )
    assert make_plan(model, "coreml", batch=[4, 1, 4]).batches == (1, 4)
