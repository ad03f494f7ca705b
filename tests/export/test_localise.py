"""A fault that is planted in one layer of an artifact is found by the layer's name, in every format."""

import json
import re
import shutil
from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch

import dmf
import export.verify.cli
from export.convert import Converter
from export.lowering import Lowering, lower
from export.pipeline import lowered, prepare, write_package
from export.plan import make_plan
from export.provenance import Origin
from export.reparameterize import reparameterize
from export.scopes import renamed
from export.verify.error_plot import draw
from export.verify.inputs import normalize
from export.verify.localise import localise
from export.verify.taps import match
from runtime.errors import ParityError, UsageError
from runtime.golden import Golden, Taps, read_golden, write_golden
from runtime.manifest import Package, hash_files, write_manifest
from runtime.sketch import SUMS, sketch

FORMATS = ("onnx", "tflite", "coreml")


@pytest.fixture(scope="module")
def prepared():
    return prepare(dmf.seed_weights(dmf.create_model("dmf_nano"), 0), Origin(seed=0))


@pytest.fixture(scope="module")
def packages(prepared, tmp_path_factory):
    """One of each format, with the constants of the graph that it was made of; converted once, read-only."""
    out, made = tmp_path_factory.mktemp("packages"), {}

    def get(format):
        if format not in made:
            plan = make_plan(prepared.model, format, precision="fp32")
            graph = lowered(plan, prepared)
            constants = {**dict(graph.named_parameters()), **dict(graph.named_buffers())}
            made[format] = write_package(plan, prepared, out, overwrite=False), constants
        return made[format]

    return get


@pytest.fixture
def plant(packages, tmp_path):
    """A copy of a package whose artifact has one constant changed, byte for byte; its manifest knows of it."""

    def plant(format, name, change):
        package, constants = packages(format)
        constant = constants[name].detach().numpy()
        changed = constant.copy()
        change(changed)
        folder = tmp_path / package.path.name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(package.path, folder)
        before = constant.tobytes()
        (file,) = (file for file in folder.rglob("*") if file.is_file() and before in file.read_bytes())
        content = file.read_bytes()
        assert content.count(before) == 1
        file.write_bytes(content.replace(before, changed.tobytes()))
        manifest = replace(package.manifest, files=hash_files(folder, labels=package.manifest.labels))
        write_manifest(folder, manifest)
        return Package(folder, manifest)

    return plant


def scale_kernel(weight):
    """(n, K): one kernel of a bank"""
    weight[:, 3] *= 1.05


def shift_one(bias):
    bias[5] += 0.05 * np.abs(bias).max()


def transpose(weight):
    weight[:] = weight.T.copy()


def swap_rows(weight):
    weight[[2, 7]] = weight[[7, 2]]


FAULTS = {  # from the first layers to the last
    "a bias of the stem": ("stem.1.bias", shift_one, "lite_bottleneck.pw_conv1"),
    "a kernel of a depthwise bank": (
        "blocks.1.dw_conv.generate.0.weight",
        scale_kernel,
        "blocks.1.dynamic_mobile.dw_conv",
    ),
    "a bias of an FFN": ("blocks.2.ffn.expand.bias", shift_one, "blocks.2.ffn.pw_conv1"),
    "a transposed weight": ("blocks.3.former.proj.weight", transpose, "blocks.3.former.token_attention.proj"),
    "a kernel of a pointwise bank": (
        "blocks.3.pw_conv1.generate.0.weight",
        scale_kernel,
        "blocks.3.dynamic_mobile.pw_conv1",
    ),
    "swapped routing weights": (
        "blocks.4.pw_conv2.routing.net2.weight",
        swap_rows,
        "blocks.4.dynamic_mobile.pw_conv2.kernel_attention.net2",
    ),
    "a bias before a fused ReLU": (
        "end_conv.routing.net1.bias",
        shift_one,
        "end_conv.kernel_attention.net1",
    ),
    "swapped channels": ("end_cross.fc.weight", swap_rows, "end_mobile2former.fc"),
    "a logit's bias": ("fc2.bias", shift_one, "head.fc2"),
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named(format, fault, packages, plant):
    name, change, module = FAULTS[fault]
    found = localise(plant(format, name, change))
    assert found.first is not None
    assert found.first.module == module
    assert f"first to leave its budget: {module} (error " in found.summary
    clean = {each.module: each for each in localise(packages(format)[0]).modules}
    for each in found.modules[: found.modules.index(found.first)]:
        assert each == clean[each.module]  # nothing before it has changed


def test_one_weight_of_any_constant_is_noticed(packages, plant):
    """A fifth more of the largest; what belongs to no module is named after the module behind it, in the same one."""

    def enlarge(constant):
        constant.reshape(-1)[np.abs(constant).argmax()] *= 1.2

    _, constants = packages("onnx")
    planted = [name for name, constant in constants.items() if constant.numel() > 1 and constant.any()]
    for name in Random(0).sample(planted, 30):
        owner = re.sub(r"(\.(bias|bank|agnostic))?\.\w+$", "", name)
        found = localise(plant("onnx", name, enlarge)).first
        assert found is not None, name
        module = renamed(owner).removesuffix(".heads")
        if re.search(r"\.(ffn|mobile2former)$", module):
            assert found.module.startswith(f"{module}."), name
        else:
            assert found.module == module, name


@pytest.mark.parametrize("format", FORMATS)
def test_an_unaltered_artifact_has_no_fault(format, packages):
    package, _ = packages(format)
    found = localise(package)
    assert found.first is None
    assert found.untapped == ()
    assert found.summary == f"{len(found.modules)} of {len(found.modules)} modules tapped, all within their budgets"
    assert all(0 < each.relative < 1e-4 for each in found.modules)


def test_an_error_within_the_budget_is_no_fault(plant):
    def barely(bias):
        bias[5] *= 1 + 1e-6

    assert localise(plant("onnx", "blocks.2.ffn.expand.bias", barely)).first is None


def test_a_fault_behind_the_last_tap_names_nothing(plant, capfd):
    """Nor is it proven: that's what the logits are for."""
    package = plant("onnx", "fc2.bias", shift_one)
    golden = read_golden(package.golden)
    taps = golden.taps
    assert taps.modules[-1] == "head.fc2"
    cut = Taps(taps.modules[:-1], taps.tensors[:-1], taps.sketches[:-1], taps.budgets[:-1], ("head.fc2",))
    write_golden(package.golden, replace(golden, taps=cut))
    write_manifest(package.path, replace(package.manifest, files=hash_files(package.path)))
    assert export.verify.cli.main([str(package.path), "--localise", "--quiet"]) == 4
    out, err = capfd.readouterr()
    assert f"{len(cut.modules)} of {len(taps.modules)} modules tapped, all within their budgets" in out
    assert "exceeds the budget" in err
    assert "first to leave" not in err


def test_modules_are_what_the_eager_model_computes(packages):
    """By name; and by value, where nothing but the batch norm behind it is folded into a module."""
    package, _ = packages("onnx")
    golden = read_golden(package.golden)
    model = dmf.seed_weights(dmf.create_model("dmf_nano"), 0).double().eval()
    modules, outputs = dict(model.named_modules()), {}
    for name, module in modules.items():
        module.register_forward_hook(lambda _m, _i, output, name=name: outputs.update({name: output}))
    with torch.no_grad():
        model(normalize(golden.images[1:2], torch.float64))
    assert set(golden.taps.modules) <= set(modules)
    behind = (
        (r"dynamic_mobile\.pw_conv1$", "dynamic_mobile.bn1"),
        (r"dynamic_mobile\.dw_conv$", "dynamic_mobile.bn2"),
        (r"dynamic_mobile\.pw_conv2$", "dynamic_mobile.bn3"),
        (r"dynamic_mobile\.downsample$", "dynamic_mobile.downsample.1"),
        (r"(kernel_attention)\.net1$", r"\1.bn"),
        (r"stem\.conv$", "stem.bn"),
        (r"lite_bottleneck\.pw_conv(1|2)$", lambda m: f"lite_bottleneck.bn{1 if m[1] == '1' else 3}"),
        (r"lite_bottleneck\.dw_conv$", "lite_bottleneck.bn2"),
        (r"ffn\.pw_conv1$", "ffn.bn1"),
        (r"ffn\.pw_conv2$", "ffn.bn2"),
        (r"end_conv$", "end_bn"),
    )
    compared = 0
    for k, name in enumerate(golden.taps.modules):
        if re.search(r"\.(qkv|q|ffn\.dw_conv|ffn)$|^end_former", name):
            continue  # scaled, with its shortcut, with its residual, of the first token only
        eager = name
        for pattern, replacement in behind:
            eager = re.sub(pattern, replacement, eager)
        expected = sketch(outputs[eager].numpy())
        error = np.linalg.norm(golden.taps.sketches[k, 1] - expected) / np.linalg.norm(expected)
        assert error < 1e-4, f"{name} is not {eager}"
        compared += 1
    assert compared == len(golden.taps.modules) - 25


def test_the_budgets_of_the_logits_are_the_manifests(packages):
    package, _ = packages("onnx")
    (logits,) = package.manifest.parity.outputs
    assert read_golden(package.golden).budgets.tolist() == [each.budget_abs_error for each in logits.per_input]


def test_a_value_is_matched_by_what_it_is():
    """Not by its size alone, nor if it is zero; a fused ReLU is recognised, a copy is not taken."""
    random = np.random.default_rng(0)
    a, b, c = random.standard_normal((3, 20))
    pieces, zero = np.split(c, 2), np.zeros(20)
    outputs = {"a": [a], "b": [b], "c": pieces, "zero": [zero], "gone": [a + b]}
    values = {
        "permuted": a[::-1],
        "as a map": a.reshape(4, 5),
        "copy": a,
        "relu": np.maximum(b, 0),
        "first": pieces[0],
        "second": pieces[1],
        "nothing": zero,
        "nearly gone": (a + b) * 1.001,
        "integers": np.arange(20),
    }
    taps = match(outputs, values, 1e-4)
    assert {name: tap.tensors for name, tap in taps.items()} == {
        "a": ("as a map",),
        "b": ("relu",),
        "c": ("first", "second"),
    }


@pytest.mark.parametrize("variant", ["dmf_xxs", "dmf_s"])
def test_golden_vectors_are_small(variant, prepared, tmp_path):
    """Of random numbers, which is what they look like to a file system; as many as the variant has."""
    model = dmf.create_model(variant)
    graph = lower(reparameterize(model), Lowering.parse("matmul/conv"))
    known, names = {name for name, _ in model.named_modules()}, prepared.reference.inputs.names
    modules, number = (
        tuple(name for name, _ in graph.named_modules() if name and renamed(name) in known),
        len(names),
    )
    size, classes, random = model.config.image_size, model.config.num_classes, np.random.default_rng(0)
    assert len(modules) > 285
    taps = Taps(
        modules,
        tuple((f"name_of_a_tensor_{i}",) * 4 for i in range(len(modules))),
        random.standard_normal((len(modules), number, SUMS)).astype(np.float32),
        random.standard_normal((len(modules), number)),
    )
    images = random.integers(0, 256, (number, size, size, 3), np.uint8)
    logits = random.standard_normal((number, classes))
    path = tmp_path / "golden.safetensors"
    write_golden(path, Golden(images, logits, np.ones(number), names, logits, taps))
    assert images.nbytes < path.stat().st_size < 2e6


# The command ---------------------------------------------------------------------------------------------------------


def test_the_command_names_the_fault(plant, packages, tmp_path, capfd):
    package = plant("onnx", *FAULTS["a kernel of a depthwise bank"][:2])
    good, _ = packages("onnx")
    picture = tmp_path / "errors.png"
    arguments = [str(package.path), str(good.path), "--localise", "--plot", str(picture), "--quiet"]
    assert export.verify.cli.main(arguments) == 4
    out, err = capfd.readouterr()
    assert len(err.splitlines()) == 1
    assert "first to leave its budget: blocks.1.dynamic_mobile.dw_conv (error " in err
    assert err.count("first to leave") == 1
    rows = [line for line in out.splitlines() if line.endswith("LEFT ITS BUDGET")]
    assert rows[0].split()[2] == "blocks.1.dynamic_mobile.dw_conv"
    assert picture.read_bytes().startswith(b"\x89PNG")

    assert export.verify.cli.main([*arguments[:3], "--json", "--quiet"]) == 4
    figures = json.loads(capfd.readouterr().out)
    assert figures[str(good.path)]["localisation"]["first"] is None
    found = figures[str(package.path)]["localisation"]
    assert found["first"] == "blocks.1.dynamic_mobile.dw_conv"
    assert found["modules"][0]["module"] == "stem.conv"
    assert set(found["modules"][0]) == {"module", "of_budget", "relative", "image"}


def test_the_command_finds_none(packages, capfd):
    package, _ = packages("onnx")
    assert export.verify.cli.main([str(package.path), "--localise", "--quiet"]) == 0
    out, err = capfd.readouterr()
    assert out.splitlines()[-1].endswith("modules tapped, all within their budgets")
    assert "LEFT" not in out
    assert err == ""


def test_what_it_needs(packages, tmp_path, capfd, monkeypatch):
    package, _ = packages("onnx")
    arguments = [str(package.path), "--quiet"]
    assert export.verify.cli.main([*arguments, "--plot", "x.png"]) == 2
    assert "--plot draws what --localise finds; give both" in capfd.readouterr().err
    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, "matplotlib", None)
        assert export.verify.cli.main([*arguments, "--localise", "--plot", "x.png"]) == 2
    assert "pip install 'dynamic-mobile-former[train]'" in capfd.readouterr().err
    assert export.verify.cli.main([*arguments, "--localise", "--plot", str(tmp_path / "none" / "x.png")]) == 2
    assert "No such file or directory" in capfd.readouterr().err
    old = tmp_path / "old"
    shutil.copytree(package.path, old)
    write_golden(old / "golden.safetensors", replace(read_golden(package.golden), taps=None))
    with pytest.raises(UsageError, match="does not say what its modules compute; export it again"):
        localise(Package(old, package.manifest))


def test_what_is_drawn_without_an_error(packages, tmp_path):
    """A logarithm has no zero."""
    found = localise(packages("onnx")[0])
    exact = replace(found, modules=tuple(replace(each, of_budget=0.0) for each in found.modules))
    draw({"exact": exact}, tmp_path / "exact.png")
    assert (tmp_path / "exact.png").stat().st_size > 1000


def test_a_rejected_artifact_says_where_it_goes_wrong(prepared, tmp_path, monkeypatch):
    """A converter that swaps two channels of one layer; the report that is kept says so, too."""
    plan = make_plan(prepared.model, "onnx")
    write = plan.converter.load()

    def swap(graph, *rest):
        weight = graph.blocks[2].ffn.expand.weight
        weight[[0, 1]] = weight[[1, 0]]
        write(graph, *rest)

    monkeypatch.setattr(Converter, "load", lambda _: swap)
    with pytest.raises(ParityError, match=r"; the first module whose output is not in it: blocks\.2\.ffn\.pw_conv1;"):
        write_package(plan, prepared, tmp_path, overwrite=False)
    report = (tmp_path / "rejected" / plan.name / "report.txt").read_text()
    assert "the first module whose output is not in it: blocks.2.ffn.pw_conv1\n" in report
