"""Runners compute what numpy computes, and say in one line what they cannot open or run."""

import sys
import types

import numpy as np
import pytest
from onnx import TensorProto, helper, save

from runtime import runners
from runtime.errors import RunnerError, UsageError
from runtime.preprocess import to_input
from runtime.runners import open_runner


def close(found, exact):
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-4)


@pytest.mark.parametrize("threads", [1, 2])
def test_onnx_equals_numpy_at_any_batch(onnx_package, golden_images, expected, threads):
    x = to_input(golden_images, onnx_package.manifest.inputs[0])
    runner = open_runner("onnx", onnx_package.artifact, threads=threads)
    for batch in (x, x[:1], x):
        for found, exact in zip(runner.run(batch), expected(batch), strict=True):
            close(found, exact)
    assert runner.output_names == ("logits", "features")
    assert runner.description.startswith("onnxruntime 1.")
    assert runner.delegate_partitions is None


@pytest.mark.parametrize("threads", [1, 2])
def test_tflite_equals_numpy_and_is_delegated(tflite_package, golden_images, expected, threads):
    x = to_input(golden_images, tflite_package.manifest.inputs[0])
    runner = open_runner("tflite", tflite_package.artifact, threads=threads)
    for image in (x[:1], x[1:]):
        logits, features, *sums = runner.run(image)
        for found, exact in zip((logits, features), expected(image), strict=True):
            close(found, exact)
        assert len(sums) == 9
        for k, found in enumerate(sums, start=2):  # output_10 comes after output_9
            close(found, image.sum(dtype=np.float64) + k)
    assert runner.output_names == tuple(f"output_{k}" for k in range(11))
    assert runner.delegate_partitions >= 1
    assert runner.description.startswith("litert ")


def test_the_threads_reach_the_runtime(onnx_package, tflite_package, monkeypatch):
    import ai_edge_litert.interpreter

    assert open_runner("onnx", onnx_package.artifact, 2)._session.get_session_options().intra_op_num_threads == 2
    given = []
    real = ai_edge_litert.interpreter.Interpreter

    def spy(*args, **kwargs):
        given.append(kwargs["num_threads"])
        return real(*args, **kwargs)

    monkeypatch.setattr(ai_edge_litert.interpreter, "Interpreter", spy)
    open_runner("tflite", tflite_package.artifact, 2)
    assert given == [2]


def test_a_runner_keeps_its_outputs_apart(tflite_package, golden_images):
    """What one run returned is not overwritten by the next."""
    x = to_input(golden_images, tflite_package.manifest.inputs[0])
    runner = open_runner("tflite", tflite_package.artifact)
    first = runner.run(x[:1])[0]
    kept = first.copy()
    runner.run(x[1:])
    np.testing.assert_array_equal(first, kept)


def test_a_batch_the_artifact_does_not_take_is_refused(tflite_package, onnx_package, golden_images):
    x = to_input(golden_images, tflite_package.manifest.inputs[0])
    with pytest.raises(RunnerError, match=r"model\.tflite: litert cannot run it"):
        open_runner("tflite", tflite_package.artifact).run(x)
    with pytest.raises(RunnerError, match=r"model\.onnx: onnxruntime cannot run it"):
        open_runner("onnx", onnx_package.artifact).run(x)  # NHWC


@pytest.mark.parametrize("format", ["onnx", "tflite"])
@pytest.mark.parametrize("content", [b"", b"not a model at all", None])
def test_a_corrupt_artifact_is_one_line(onnx_package, tflite_package, tmp_path, format, content):
    package = onnx_package if format == "onnx" else tflite_package
    whole = package.artifact.read_bytes()
    artifact = tmp_path / f"model.{format}"
    artifact.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(RunnerError, match="cannot open it") as refused:
        open_runner(format, artifact)
    assert str(artifact) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_two_inputs_are_refused(tmp_path):
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "ab"]
    output = helper.make_tensor_value_info("c", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["c"])], "two", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    save(model, tmp_path / "two.onnx")
    with pytest.raises(RunnerError, match="takes 2 inputs"):
        open_runner("onnx", tmp_path / "two.onnx")


def test_unknown_format_and_missing_artifact(tmp_path):
    with pytest.raises(UsageError, match="'caffe' is not one of onnx, tflite, coreml"):
        open_runner("caffe", tmp_path)
    with pytest.raises(UsageError, match="no such artifact"):
        open_runner("onnx", tmp_path / "none.onnx")


@pytest.mark.parametrize(
    ("format", "module"),
    [("onnx", "onnxruntime"), ("tflite", "ai_edge_litert.interpreter")],
)
def test_a_missing_runtime_says_what_to_install(tmp_path, monkeypatch, format, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=rf"pip install 'dynamic-mobile-former\[{format}\]'"):
        open_runner(format, tmp_path)


def test_core_ml_needs_an_apple_device(tmp_path, monkeypatch):
    monkeypatch.setattr(runners.platform, "system", lambda: "Linux")
    with pytest.raises(RunnerError, match="Core ML runs on Apple devices, this host is Linux"):
        open_runner("coreml", tmp_path)


@pytest.mark.parametrize("function", [None, "small"])
@pytest.mark.parametrize("takes", ["multiArrayType", "imageType"])
def test_core_ml_feeds_what_the_model_takes(tmp_path, monkeypatch, takes, function):
    """Against a stand-in for coremltools, a classifier: what is fed, not what Core ML computes of it."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3)).astype(np.float32)
    fed = []

    def feature(name, kind):
        return types.SimpleNamespace(name=name, type=types.SimpleNamespace(WhichOneof=lambda _: kind))

    class MLModel:
        def __init__(self, path, function_name):
            assert (path, function_name) == (str(tmp_path), function)

        def get_spec(self):
            outputs = {"label": "stringType", "label_probs": "dictionaryType", "logits": "multiArrayType"}
            features = {"input": {"images": takes}, "output": outputs}
            description = {key: [feature(*pair) for pair in each.items()] for key, each in features.items()}
            only = types.SimpleNamespace(name=function, **description)
            several = types.SimpleNamespace(input=[], output=[], functions=[types.SimpleNamespace(name="main"), only])
            only.functions = []
            return types.SimpleNamespace(description=several if function else only)

        def predict(self, feed):
            images = np.asarray(feed["images"], np.float32)
            fed.append(images)
            images = images if images.ndim == 4 else images[None]
            logits = images.sum(axis=(1, 2))
            return {"label": np.array("cat"), "label_probs": {"cat": 0.75, "dog": 0.25}, "logits": logits}

    stand_in = types.SimpleNamespace(models=types.SimpleNamespace(MLModel=MLModel))
    monkeypatch.setattr(runners.platform, "system", lambda: "Darwin")
    monkeypatch.setitem(sys.modules, "coremltools", stand_in)
    runner = open_runner("coreml", tmp_path, function=function)
    assert runner.output_names == ("logits",)
    (logits,) = runner.run(pixels)
    np.testing.assert_array_equal(logits, pixels.sum(axis=(1, 2)))
    if takes == "imageType":
        np.testing.assert_array_equal(np.stack(fed), pixels)
