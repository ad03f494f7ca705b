"""One table of exports, one body: each artifact against eager PyTorch, run by the format's own runtime."""

import copy
import json
import socket
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

import dmf
from export.pipeline import prepare, write_package
from export.plan import make_plan
from export.provenance import Origin
from export.verify.inputs import normalize
from export.verify.package import verify_package
from runtime.manifest import open_package
from runtime.runners import open_runner

LABELS = tuple(f"class {i}" for i in range(10))


@dataclass(frozen=True)
class Case:
    format: str
    choices: dict = field(default_factory=dict)
    why: str = ""
    seed: int = 0

    @property
    def id(self):
        return "-".join([self.format, *(str(v) for k, v in self.choices.items() if k != "labels")])


CASES = [
    Case("onnx", why="the default"),
    Case("onnx", {"lowering": "matmul/conv"}, "the pointwise products"),
    Case("onnx", {"lowering": "matmul/bank"}, "no computed filter"),
    Case("onnx", {"batch": -1}, "any batch"),
    Case("onnx", {"batch": 2}, "a fixed batch, unrolled"),
    Case("onnx", {"input_layout": "NHWC"}, "a transposed input"),
    Case("onnx", {"lowering": "twin/twin"}, "the floor for benchmarks"),
    Case("tflite", why="the default"),
    Case("tflite", {"lowering": "matmul/taps", "batch": 2}, "the GPU's form, a fixed batch"),
    Case("tflite", {"lowering": "matmul/bank", "input_layout": "NCHW"}, "a transposed input"),
    Case("tflite", {"lowering": "conv/conv"}, "the naive form"),
    Case("tflite", {"converter": "onnx2tf"}, "the other route"),
    Case("tflite", {"converter": "onnx2tf", "lowering": "matmul/bank"}, "the other route"),
    Case("coreml", why="the default, rounded after every op"),
    Case("coreml", {"precision": "fp32"}, "nothing rounded"),
    Case("coreml", {"ios": 16}, "an older program"),
    Case("coreml", {"ios": 18}, "a newer program"),
    Case("coreml", {"target": "coreml-cpu", "precision": "fp32"}, "a computed depthwise filter"),
    Case("coreml", {"lowering": "conv/conv", "batch": 2, "precision": "fp32"}, "the naive form, a fixed batch"),
    Case("coreml", {"image_input": True, "labels": LABELS, "precision": "fp32"}, "an image in, a label out"),
]


@pytest.fixture(scope="module")
def prepared():
    return prepare(dmf.seed_weights(dmf.create_model("dmf_nano"), 0), Origin(seed=0))


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Refuse every connection, of child processes too; the list of those that were tried."""
    tried = []

    def refuse(*arguments, **_):
        tried.append(arguments)
        raise OSError("no network in this test")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    (tmp_path / "sitecustomize.py").write_text(
        "import socket\n"
        "def refuse(*arguments, **_):\n"
        f"    open({str(tmp_path / 'tried')!r}, 'a').write(f'{{arguments}}\\n')\n"
        "    raise OSError('no network in this test')\n"
        "socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    yield tried
    tried += (tmp_path / "tried").read_text().splitlines() if (tmp_path / "tried").exists() else []
    assert tried == []


def test_the_refusal_itself(no_network, tmp_path):
    import subprocess
    import sys
    import urllib.request

    with pytest.raises(OSError, match="no network"):
        urllib.request.urlopen("http://127.0.0.1:9")
    child = "import urllib.request as u\ntry: u.urlopen('http://127.0.0.1:9')\nexcept OSError: print('refused')"
    done = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"
    assert no_network
    assert (tmp_path / "tried").read_text()
    no_network.clear()
    (tmp_path / "tried").unlink()


def run_directly(package, x):
    """Logits of one NCHW sample by the runtime's own API, not by this project's runners."""
    spec = package.manifest.inputs[0]
    batch = 1 if spec.shape[0] == -1 else spec.shape[0]
    x = x.repeat(batch, 1, 1, 1).numpy()
    x = np.ascontiguousarray(x.transpose(0, 2, 3, 1) if spec.layout == "NHWC" else x)
    if package.manifest.format == "onnx":
        import onnxruntime

        return onnxruntime.InferenceSession(package.artifact).run(["logits"], {"image": x})[0][:1]
    if package.manifest.format == "tflite":
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        reference = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES  # not the kernels the runner uses
        interpreter = Interpreter(str(package.artifact), experimental_op_resolver_type=reference)
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[:1]
    from export.verify.mil_interpreter import MilInterpreter

    return MilInterpreter(package.artifact).run({"image": x})["logits"][:1]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_an_exported_artifact_is_the_model(case, prepared, tmp_path, no_network):
    plan = make_plan(prepared.model, case.format, **case.choices)
    write_package(plan, prepared, tmp_path / "out", overwrite=False)

    package = open_package(tmp_path / "out" / plan.name)  # as anyone would read it, files checked
    manifest = package.manifest
    assert [path.name for path in (tmp_path / "out").iterdir()] == [plan.name]
    assert manifest.parity.passed
    assert manifest.parity.routing_not_frozen is (None if plan.lowering.is_twin else True)
    assert manifest.parity.batch_consistent is (None if plan.batch == 1 else True)
    assert verify_package(package).failures == ()

    images = np.random.default_rng(99).integers(0, 256, (2, 64, 64, 3), np.uint8)  # not among the golden ones
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() if plan.image_input else normalize(images)
    eager = copy.deepcopy(prepared.model).double()
    if plan.lowering.is_twin:
        from export.verify.reference import without_bank

        eager = without_bank(eager)
    with torch.no_grad():
        expected = eager(normalize(images).double()).numpy()
    got = np.concatenate([run_directly(package, sample[None]) for sample in x])
    tolerance = 0.05 if plan.precision == "fp16" else 2e-4
    peak = np.abs(expected).max()
    assert np.abs(got - expected).max() < tolerance * peak
    assert np.abs(expected[0] - expected[1]).max() > 10 * tolerance * peak  # or samples could be confused unnoticed
    check_operators(package)
    check_names(package)
    if plan.is_classifier:
        check_classifier(package, x.numpy()[:1], expected[:1])


def check_names(package):
    """The manifest names the artifact's own input and outputs."""
    names = [output.name for output in package.manifest.outputs]
    if package.manifest.format == "coreml":
        from export.verify.mil_interpreter import MilInterpreter

        interpreter = MilInterpreter(package.artifact)
        assert ([each.name for each in interpreter.inputs], sorted(interpreter.outputs)) == (["image"], sorted(names))
        return
    assert open_runner(package.manifest.format, package.artifact).output_names == tuple(names)
    if package.manifest.format == "tflite":
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(package.artifact))
        if package.manifest.converter == "litert-torch":
            ((_, signature),) = interpreter.get_signature_list().items()
            assert signature == {"inputs": ["image"], "outputs": ["logits"]}
        else:
            assert [each["name"] for each in interpreter.get_input_details()] == ["image"]


def check_classifier(package, x, logits):
    """Label and probabilities are those of the logits."""
    from export.verify.mil_interpreter import MilInterpreter

    answer = MilInterpreter(package.artifact).run({"image": x})
    probabilities = np.exp(logits[0] - logits.max())
    assert np.abs(answer["label_probs"] - probabilities / probabilities.sum()).max() < 1e-4
    assert str(answer["label"]) == LABELS[logits.argmax()]


def check_operators(package):
    """Native operators stay native, and no layout is paid for twice."""
    if package.manifest.format == "onnx":
        import onnx

        model = onnx.load(package.artifact)
        ops = Counter(node.op_type for node in model.graph.node)
        assert {o.domain: o.version for o in model.opset_import}[""] == 20
        assert ops["Gelu"] == 34
        assert ops["LayerNormalization"] == 17
        assert ops["HardSwish"] == 1
        assert not {"Erf", "BatchNormalization", "Loop"} & set(ops)
        nhwc_input = package.manifest.inputs[0].layout == "NHWC"
        assert ops["Transpose"] <= 24 + nhwc_input  # two per attention, of tokens or scores
    elif package.manifest.format == "tflite":
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        interpreter = Interpreter(str(package.artifact), experimental_op_resolver_type=resolver)
        ops = Counter(op["op_name"] for op in interpreter._get_ops_details())
        assert not [name for name in ops if name.startswith(("Flex", "CUSTOM"))]
        if package.manifest.converter == "litert-torch":
            kept_apart = package.manifest.lowering.pointwise == "matmul"
            assert ops["GELU"] == 34 + 10 * kept_apart  # two groups in two places of five blocks
            assert ops["SOFTMAX"] == 12
            assert ops["HARD_SWISH"] == 1
            if package.manifest.lowering.pointwise == "matmul" and package.manifest.inputs[0].layout == "NHWC":
                assert ops["TRANSPOSE"] <= 23  # two of each of 12 attentions, but the first queries are constant
                computed_filters = 5 if package.manifest.lowering.depthwise == "conv" else 0
                assert open_runner("tflite", package.artifact).delegate_partitions == computed_filters + 1
    else:
        from export.verify.mil_interpreter import MilInterpreter

        ops = MilInterpreter(package.artifact).op_types
        assert ops["gelu"] == 34
        assert ops["layer_norm"] == 17
        assert not {"erf", "batch_norm"} & set(ops)


def test_a_dynamic_batch_takes_any(prepared, tmp_path):
    plan = make_plan(prepared.model, "onnx", batch=-1)
    assert str(plan.lowering) == "matmul/taps"  # the default lowering unrolls the batch
    package = write_package(plan, prepared, tmp_path, overwrite=False)
    import onnxruntime

    session = onnxruntime.InferenceSession(package.artifact)
    x = normalize(prepared.reference.inputs.images).numpy()
    for batch in (1, 2, 5):
        logits = session.run(None, {"image": x[:batch]})[0]
        assert np.abs(logits - prepared.reference.outputs[0].values[:batch]).max() < 1e-3
    plain = json.loads((package.path / "manifest.json").read_text())
    assert plain["inputs"][0]["shape"] == [-1, 3, 64, 64]
    assert plain["outputs"][0]["shape"] == [-1, 10]


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_the_same_inputs_give_the_same_artifact(format, prepared, tmp_path):
    plan = make_plan(prepared.model, format)
    first, second = (write_package(plan, prepared, tmp_path / name, overwrite=False) for name in ("a", "b"))
    assert first.artifact_sha256 == second.artifact_sha256
