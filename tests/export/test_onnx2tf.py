"""The second route to TFLite, against the eager model in float64."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import dmf
from dmf.seeded import pictures
from export.convert import onnx2tf
from export.convert.options import Options
from export.layout import NCHW
from export.lowering import Lowering, lower
from export.reparameterize import reparameterize

ROOT = Path(__file__).parents[2]

# A process that starts with this on its path gets no socket, and reports itself and each host that it looks up.
# (That urllib3 asks for a socket when it is imported, to see if the machine has IPv6, is none of our business.)
NO_SOCKETS = """
import os, socket

def report(event):
    with open(os.environ["SOCKET_REPORT"], "a") as file:
        print(event, os.getpid(), file=file)

class Refused(socket.socket):
    def __init__(self, *args, **kwargs):
        raise OSError("sockets are refused in this test")

def refused(*args, **kwargs):
    report("looked up a host")
    raise socket.gaierror("names are not looked up in this test")

socket.socket = socket.SocketType = Refused
socket.getaddrinfo = socket.gethostbyname = refused
report("started")
"""


def nano() -> dmf.DMF:
    return dmf.seed_weights(dmf.create_model("dmf_nano"), 0)


def convert(model: dmf.DMF, path: Path, lowering: str = onnx2tf.LOWERING) -> None:
    graph = lower(reparameterize(model), Lowering.parse(lowering), onnx2tf.LAYOUT, onnx2tf.LAYOUT)
    onnx2tf.convert(graph, torch.zeros(1, 64, 64, 3), path, Options(log=path.with_suffix(".log")))


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dmf_nano, converted by a process that can't open a socket, and neither can those that it starts."""
    directory = tmp_path_factory.mktemp("onnx2tf")
    (directory / "sitecustomize.py").write_text(NO_SOCKETS)
    path = directory / "nano.tflite"
    torch.save(nano().state_dict(), path.with_suffix(".pt"))
    search = [str(directory), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {"PYTHONPATH": os.pathsep.join(search), "SOCKET_REPORT": str(directory / "sockets.txt")}
    command = [sys.executable, __file__, str(path)]
    result = subprocess.run(command, cwd=directory, env=os.environ | environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return path


def run(path: Path, images: Tensor) -> Tensor:
    """Images (B, 3, H, W), one at a time -> logits (B, classes) in float64."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (tuple(source["shape"]), source["dtype"]) == ((1, 64, 64, 3), np.float32)
    assert (tuple(result["shape"]), result["dtype"]) == ((1, 10), np.float32)
    logits = []
    for image in images.permute(0, 2, 3, 1).contiguous():
        interpreter.set_tensor(source["index"], image[None].numpy())
        interpreter.invoke()
        logits.append(torch.from_numpy(interpreter.get_tensor(result["index"])).double())
    return torch.cat(logits)


def test_logits_equal_the_eager_models(converted: Path) -> None:
    model, images = nano(), pictures(3, (64, 64), torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = copy.deepcopy(model).double()(images.double())
        eager_error = (model(images) - expected).abs().max().item()
    tolerance = max(10 * eager_error, 1e-4 * expected.abs().max().item())
    logits = run(converted, images)

    def error(values: Tensor) -> float:
        return float((values - expected).abs().max())

    assert error(logits) <= tolerance, f"off by {error(logits):.3g}, allowed {tolerance:.3g}"
    differences = [(expected[i] - expected[j]).abs().max() for i, j in ((0, 1), (1, 2), (2, 0))]
    assert min(differences) > 100 * tolerance, "the samples are too much alike for this test"
    for name, wrong in {
        "permuted": logits.roll(1, 1),
        "of another sample": logits.roll(1, 0),
        "scaled": 1.01 * logits,
        "zeroed": 0 * logits,
    }.items():
        assert error(wrong) > tolerance, f"logits {name} pass"


def test_nothing_is_downloaded(converted: Path) -> None:
    lines = (converted.parent / "sockets.txt").read_text().splitlines()
    events = [line.rpartition(" ") for line in lines]
    assert {event for event, _, _ in events} == {"started"}
    assert len({process for _, _, process in events}) >= 2, "the process of onnx2tf itself was not watched"


def test_operators_are_fused_and_delegated(converted: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(str(converted), experimental_op_resolver_type=plain)
    operators = [operator["op_name"] for operator in interpreter._get_ops_details()]
    assert not [name for name in operators if not name.isupper()], "custom operators"
    assert {"GELU", "SOFTMAX", "HARD_SWISH", "DEPTHWISE_CONV_2D", "BATCH_MATMUL"} <= set(operators)
    assert not {"ERF", "GATHER"} & set(operators)
    assert operators.count("TRANSPOSE") <= 2 * 12  # queries and scores of 12 attentions
    assert operators.count("CONV_2D") == 1, "a depthwise convolution became a grouped one"
    delegated = Interpreter(str(converted))
    delegated.allocate_tensors()
    assert [operator["op_name"] for operator in delegated._get_ops_details()].count("DELEGATE") == 1


@pytest.mark.parametrize("lowering", ["matmul/conv", "conv/taps", "conv/conv"])
def test_a_computed_filter_is_refused(tmp_path: Path, lowering: str) -> None:
    with pytest.raises(ValueError, match=r"blocks\.0\.\w+ is a convolution whose filter is computed.*matmul/taps"):
        convert(nano(), tmp_path / "refused.tflite", lowering)
    assert not list(tmp_path.iterdir())


def test_another_layout_is_refused(tmp_path: Path) -> None:
    graph = lower(reparameterize(nano()), Lowering.parse("matmul/taps"), NCHW(), onnx2tf.LAYOUT)
    with pytest.raises(ValueError, match="NHWC graph with NHWC input, not NCHW, NHWC"):
        onnx2tf.convert(graph, torch.zeros(1, 64, 64, 3), tmp_path / "x.tflite", Options(log=tmp_path / "log"))


def test_an_ambiguous_feature_map_is_refused() -> None:
    import onnx_ir as ir

    def graph(shape: list[int]) -> ir.Graph:
        x, y = (ir.Value(name=n, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT)) for n in "xy")
        return ir.Graph([x], [y], nodes=[ir.node("Gelu", [x], outputs=[y])], opset_imports={"": 20})

    onnx2tf.refuse_ambiguous(graph([1, 8, 8, 9]))
    with pytest.raises(ValueError, match=r"can't tell the layout of \(1, 8, 8, 8\), the output of Gelu"):
        onnx2tf.refuse_ambiguous(graph([1, 8, 8, 8]))


def test_a_failure_points_to_the_log(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(RuntimeError, match=r"exit status 1; see .*log\.txt"):
        onnx2tf.run_onnx2tf(tmp_path, tmp_path / "log.txt")
    assert "Traceback" in (tmp_path / "log.txt").read_text()


if __name__ == "__main__":  # as the fixture runs it
    model, path = dmf.create_model("dmf_nano"), Path(sys.argv[1])
    model.load_state_dict(torch.load(path.with_suffix(".pt")))
    convert(model, path)
