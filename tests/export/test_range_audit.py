"""What fp16 can't hold: planted faults are named, sound models are not, and float32 where it is named cures."""

import copy

import numpy as np
import pytest
import torch

import dmf
from export.convert import coreml
from export.convert.options import Options
from export.lowering import Lowering, lower
from export.model import image_size
from export.plan import input_spec, make_plan
from export.reparameterize import reparameterize
from export.verify.artifact import verify_artifact
from export.verify.inputs import PHOTOGRAPHS, Inputs, normalize, photograph, verification_inputs
from export.verify.range_audit import APPROACHING, SMALLEST, audit, refuse, text
from export.verify.reference import compute_reference
from runtime.errors import ParityError, UsageError

PLANTED = "blocks.2.ffn"


def sound(model):
    pass


def scale_inside(ffn, factor, back):
    for tensor in (ffn.bn1.weight, ffn.bn1.bias):
        tensor.mul_(factor)
    ffn.pw_conv2.weight.mul_(back)


def overflowing(model):
    """Values of 1e6 between the FFN's convolutions, which the second one takes back."""
    scale_inside(model.get_submodule(PLANTED), 1e6, 1e-6)


def summing(model):
    """Values that fp16 holds, but not the sum of their squares."""
    scale_inside(model.get_submodule(PLANTED), 20, 1 / 20)


def vanishing(model):
    """Values of 1e-8 at the same place, brought back by the GRN and the second convolution."""
    ffn = model.get_submodule(PLANTED)
    scale_inside(ffn, 1e-8, 1e4)
    ffn.grn.gamma.fill_(3e4)
    ffn.grn.beta.zero_()


def vanishing_for_nothing(model):
    """Values of 1e-8 that nobody brings back: without them nothing changes."""
    model.get_submodule(PLANTED).bn2.weight.mul_(1e-8)
    model.get_submodule(PLANTED).bn2.bias.mul_(1e-8)


def planted(plant):
    model = dmf.seed_weights(dmf.create_model("dmf_nano"), 0)
    with torch.no_grad():
        plant(model)
    return model


def lowered(model, form="matmul/taps"):
    return lower(reparameterize(copy.deepcopy(model).double()).float(), Lowering.parse(form))


@pytest.fixture(scope="module")
def inputs():
    return Inputs(np.stack([photograph(name, 64, 64) for name in PHOTOGRAPHS]), PHOTOGRAPHS)


@pytest.fixture(scope="module")
def images(inputs):
    return normalize(inputs.images)


@pytest.fixture(scope="module")
def audited(images):
    ranges = {}

    def of(plant):
        if plant not in ranges:
            ranges[plant] = audit(lowered(planted(plant)), images)
        return ranges[plant]

    return of


@pytest.mark.parametrize(
    ("plant", "verdict"),
    [
        (sound, None),
        (overflowing, "overflows"),
        (vanishing, "vanishes"),
        (vanishing_for_nothing, None),
        (summing, "may overflow"),
    ],
)
def test_exactly_the_planted_module_is_named(plant, verdict, audited):
    named = [each for each in audited(plant) if each.verdict != "fits"]
    assert bool(named) == (verdict is not None)
    assert all(f"{each.module}.".startswith(f"{PLANTED}.") for each in named)
    assert all(each.verdict == verdict for each in named)


def test_an_untouched_model_is_not_refused_on_all_that_it_is_proven_on():
    """Sums inside its layer norms may overflow (6e4 at one searched picture), of which no one knows."""
    model = planted(sound)
    ranges = audit(lowered(model), normalize(verification_inputs(model).images))
    assert {each.verdict for each in ranges} <= {"fits", "may overflow"}
    refuse(ranges)


@pytest.mark.parametrize(("plant", "verdict"), [(overflowing, "overflows"), (vanishing, "vanishes")])
def test_what_is_named_is_refused_unless_it_is_kept(plant, verdict, audited):
    with pytest.raises(
        ParityError, match=rf"fp16 can't hold {PLANTED}.* {verdict} .*; use fp32, or --keep-fp32 "
    ) as refused:
        refuse(audited(plant))
    assert "\n" not in str(refused.value)
    refuse(audited(plant), [PLANTED])
    with pytest.raises(ParityError):
        refuse(audited(plant), [f"{PLANTED}.pw_conv1", "blocks.1", "blocks.20"])


@pytest.mark.parametrize("plant", [sound, summing, vanishing_for_nothing])
def test_what_fits_is_not_refused(plant, audited):
    refuse(audited(plant))


def test_modules_have_the_names_of_the_model(images, audited):
    model = planted(sound)
    names = {name for name, _ in model.named_modules()}
    for form in ("matmul/taps", "conv/bank", "twin/twin"):
        audited_modules = {each.module for each in audit(lowered(model, form), images[:1])}
        assert audited_modules - {""} <= names
        assert {
            "stem.conv",
            "lite_bottleneck.dw_conv",
            "blocks.1.dynamic_mobile.pw_conv2",
            "head.fc2",
        } <= audited_modules
    assert {each.module for each in audited(sound)} >= {
        "blocks.2.mobile2former.q",
        "blocks.2.former.token_attention.qkv",
        "blocks.2.former.mlp.fc1",
        "blocks.2.dynamic_mobile.dw_conv.kernel_attention.net2",
        "end_conv.kernel_attention",
        "end_mobile2former",
    }


def test_the_largest_values_are_those_that_hooks_see(images, audited):
    """Read from the layers themselves, without torch.export."""
    graph, largest = lowered(planted(sound)), {}

    def see(name):
        def hook(module, inputs, output):
            tensors = (*inputs, output, *module.parameters())
            largest[name] = max(largest.get(name, 0), *(float(tensor.abs().max()) for tensor in tensors))

        return hook

    layers = {"blocks.2.former.fc1": "blocks.2.former.mlp.fc1", "end_cross.fc": "end_mobile2former.fc"}
    for ours, theirs in layers.items():
        graph.get_submodule(ours).register_forward_hook(see(theirs))
    squares = []
    graph.blocks[1].ffn.depthwise.register_forward_hook(
        lambda m, i, y: squares.append(float((y * y).sum((2, 3)).max()))
    )
    centred = []
    graph.blocks[2].cross.register_forward_pre_hook(
        lambda m, inputs: centred.append(float((inputs[1].var(1, correction=0) * inputs[1].shape[1]).max()))
    )
    with torch.no_grad():
        for image in images.split(1):
            graph(image)
    ranges = {each.module: each for each in audited(sound)}
    for theirs in layers.values():
        assert ranges[theirs].largest == pytest.approx(largest[theirs], rel=1e-5)
    assert ranges["blocks.1.ffn"].summed == pytest.approx(max(squares), rel=1e-5)
    assert ranges["blocks.2.mobile2former"].summed == pytest.approx(max(centred), rel=1e-4)


def test_a_report_says_all(audited):
    ranges = audited(overflowing)
    lines = text(ranges).splitlines()
    assert len(lines) == 1 + len(ranges)
    assert next(line for line in lines if "overflows" in line).startswith(PLANTED)
    assert [line.split()[0] for line in lines[1:]] == [each.module for each in ranges]
    worst = max(ranges, key=lambda each: each.largest)
    assert worst.largest > APPROACHING and worst.smallest > SMALLEST


def fp16(model, inputs, path, keep):
    """The verdict on the Core ML package, which the interpreter rounds after every operation."""
    plan = make_plan(model, "coreml", precision="fp16")
    spec = input_spec(plan, image_size(model))
    options = Options(path / "log", in_half=True, keep_fp32=keep)
    coreml.convert(lowered(model), torch.zeros(spec.shape), path / "model.mlpackage", options)
    return verify_artifact("coreml", path / "model.mlpackage", spec, compute_reference(model, inputs), plan.tolerance)


@pytest.mark.parametrize("plant", [overflowing, vanishing])
def test_kept_in_float32_it_is_the_model_again(plant, inputs, tmp_path):
    model = planted(plant)
    for name, keep in (("rounded", ()), ("kept", (PLANTED,))):
        (tmp_path / name).mkdir()
        verdict = fp16(model, inputs, tmp_path / name, keep)
        assert bool(verdict.failures) == (not keep)
    assert sorted(path.name for path in (tmp_path / "kept" / "model.mlpackage").iterdir()) == ["Data", "Manifest.json"]


def test_only_what_is_kept_is_in_float32(tmp_path):
    from coremltools.models.utils import load_spec
    from coremltools.proto.MIL_pb2 import DataType

    """In a classifier of images, where the graph lies within two other modules."""
    around = {"mean": (0.5,) * 3, "std": (0.2,) * 3, "labels": tuple("abcdefghij")}
    options = Options(tmp_path / "log", in_half=True, keep_fp32=(f"{PLANTED}.dw_conv", "stem"), **around)
    path = tmp_path / "model.mlpackage"
    coreml.convert(lowered(planted(sound)), torch.zeros(1, 3, 64, 64), path, options)
    (block,) = load_spec(str(path)).mlProgram.functions["main"].block_specializations.values()
    kinds = [(each.type, each.outputs[0].type.tensorType.dataType) for each in block.operations if each.outputs]
    in_float32 = [kind for kind, dtype in kinds if dtype == DataType.FLOAT32 and kind not in ("const", "cast")]
    assert in_float32 == ["conv", "gelu", "conv"]
    assert len([kind for kind, dtype in kinds if dtype == DataType.FLOAT16 and kind == "conv"]) > 10


def test_a_module_without_operations_is_refused(tmp_path):
    """It is a module of the model, but folded into another one."""
    options = Options(tmp_path / "log", in_half=True, keep_fp32=("stem", "blocks.1.norm"))
    with pytest.raises(
        UsageError, match=r"no operation of the program is of a module 'blocks\.1\.norm'; name one that"
    ):
        coreml.convert(lowered(planted(sound)), torch.zeros(1, 3, 64, 64), tmp_path / "model.mlpackage", options)
