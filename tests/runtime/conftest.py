"""Packages of tiny models: a dense layer, in ONNX and in TFLite, and a far heavier ONNX one."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from runtime.golden import Golden, write_golden
from runtime.manifest import (
    Checkpoint,
    InputParity,
    InputSpec,
    Lowering,
    Manifest,
    Model,
    OutputParity,
    OutputSpec,
    Package,
    Parity,
    Source,
    Tolerance,
    hash_files,
    open_package,
    write_manifest,
)
from runtime.preprocess import to_input

SIDE, CLASSES, FEATURES = 8, 5, 7


def input_spec(layout: str = "NCHW", batch: int = -1) -> InputSpec:
    """The tiny models' input: 8 px square."""
    sides = (3, SIDE, SIDE) if layout == "NCHW" else (SIDE, SIDE, 3)
    return InputSpec(
        name="images",
        function=None,
        shape=(batch, *sides),
        batches=None,
        layout=layout,
        dtype="float32",
        colour_order="RGB",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        normalisation_in_graph=False,
        fit="crop",
        resize=10,
        crop=(SIDE, SIDE),
        interpolation="bicubic",
    )


def weights() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Of the two outputs, logits (192, 5) and features (192, 7)."""
    generator = np.random.default_rng(0)
    size = 3 * SIDE * SIDE
    logits = generator.standard_normal((size, CLASSES)).astype(np.float32)
    return logits, generator.standard_normal((size, FEATURES)).astype(np.float32)


def expected(x: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What the tiny models compute, in float64."""
    flat = x.reshape(len(x), -1).astype(np.float64)
    logits, features = weights()
    return flat @ logits, flat @ features


def golden_images() -> NDArray[np.uint8]:
    """Two different images, uint8 (2, 8, 8, 3)."""
    return np.random.default_rng(1).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)


def write_onnx(path: Path, *, extra_work: int = 0) -> None:
    """Two matrix products of the flattened input; ``extra_work`` chained ones of 256 x 256 more."""
    logits, features = weights()
    constants = [numpy_helper.from_array(logits, "w"), numpy_helper.from_array(features, "v")]
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["product"]),
        helper.make_node("MatMul", ["flat", "v"], ["features"]),
    ]
    last = "product"
    if extra_work:
        square = np.random.default_rng(2).standard_normal((256, 256)).astype(np.float32) / 16
        zeros = np.zeros((256, CLASSES), np.float32)
        axes = np.array([0], np.int64)
        constants += [
            numpy_helper.from_array(square, "square"),
            numpy_helper.from_array(zeros, "zeros"),
            numpy_helper.from_array(axes, "axes"),
        ]
        nodes += [
            helper.make_node("ReduceMean", ["flat"], ["mean"], keepdims=1),
            helper.make_node("Mul", ["mean", "square"], ["chain0"]),
        ]
        for index in range(extra_work):
            nodes.append(helper.make_node("MatMul", [f"chain{index}", "square"], [f"chain{index + 1}"]))
        nodes += [
            helper.make_node("MatMul", [f"chain{extra_work}", "zeros"], ["nothing"]),
            helper.make_node("ReduceMean", ["nothing", "axes"], ["none"], keepdims=1),
            helper.make_node("Add", ["product", "none"], ["sum"]),
        ]
        last = "sum"
    nodes.append(helper.make_node("Identity", [last], ["logits"]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", FEATURES]),
        ],
        constants,
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)


def write_tflite(path: Path) -> None:
    """The same two products, NHWC, batch 1, with a signature whose names are litert-torch's."""
    import tensorflow as tf

    logits, features = weights()

    class Tiny(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([1, SIDE, SIDE, 3], tf.float32, name="args_0")])
        def __call__(self, x):
            flat = tf.reshape(x, [1, -1])
            products = {0: flat @ logits, 1: flat @ features}
            return {f"output_{k}": products.get(k, tf.reduce_sum(flat) + k) for k in range(11)}

    tiny = Tiny()
    functions = [tiny.__call__.get_concrete_function()]
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions(functions, tiny).convert())


def tiny_manifest(name: str, format: str, folder: Path) -> Manifest:
    """A manifest of what lies in ``folder``."""
    onnx_format = format == "onnx"
    spec = input_spec() if onnx_format else input_spec("NHWC", batch=1)
    batch = spec.shape[0]
    outputs = [
        OutputSpec("logits", (batch, CLASSES), "float32"),
        OutputSpec("features", (batch, FEATURES), "float32"),
    ]
    if not onnx_format:
        outputs += [OutputSpec(f"sum{k}", (), "float32") for k in range(2, 11)]
    parity = OutputParity(
        name="logits",
        max_abs_error=1e-6,
        max_rel_error=1e-6,
        psnr_db=None,
        top1_agreement=1.0,
        top1_min_margin=0.25,
        yardstick_max_abs_error=1e-6,
        budget_max_abs_error=1e-5,
        reference_max_abs=40.0,
        per_input=(InputParity("noise 0", 5e-7, 2e-7, 4e-6), InputParity("noise 1", 1e-6, 1e-6, 1e-5)),
    )
    return Manifest(
        name=name,
        format=format,
        artifact=f"model.{format}",
        converter="onnx.helper" if onnx_format else "tensorflow",
        target="onnxruntime-cpu" if onnx_format else "litert-cpu",
        lowering=Lowering("matmul", "taps", "it is the fastest there", None),
        precision="fp32",
        keep_fp32=(),
        quantization=None,
        model=Model("tiny", 192 * 12, {"num_classes": CLASSES, "widths": [4, 8]}),
        checkpoint=Checkpoint("seeded", None, 0, hashlib.sha256(b"weights").hexdigest(), None),
        source=Source(None, None),
        tools={"onnx": onnx.__version__},
        inputs=(spec,),
        outputs=tuple(outputs),
        detection=None,
        labels="labels.txt",
        parity=Parity(
            oracle="numpy float64",
            passed=True,
            tolerance=Tolerance(4.0, 1e-5),
            outputs=(parity,),
            detections=None,
            routing_not_frozen=None,
            batch_consistent=True,
            inputs=("noise 0", "noise 1"),
            checked_by="onnxruntime 1.31.0 CPU",
        ),
        functions=(),
        unchecked=("Neural Engine: dmf-bench PACKAGE --on ios",),
        files=hash_files(folder, labels="labels.txt"),
    )


def write_package(folder: Path, format: str, *, extra_work: int = 0) -> Package:
    """A whole package in ``folder``."""
    folder.mkdir()
    artifact = folder / f"model.{format}"
    write_onnx(artifact, extra_work=extra_work) if format == "onnx" else write_tflite(artifact)
    layout = "NCHW" if format == "onnx" else "NHWC"
    logits, _ = expected(to_input(golden_images(), input_spec(layout)))
    write_golden(
        folder / "golden.safetensors",
        Golden(golden_images(), logits, np.full(2, 1e-3), ("noise 0", "photograph: café")),
    )
    (folder / "labels.txt").write_text("a\nb\nc\nd\ne\n")
    write_manifest(folder, tiny_manifest(folder.name, format, folder))
    return open_package(folder)


def rehash(folder: Path, manifest: Manifest) -> Package:
    """The package again after its files were changed on purpose."""
    write_manifest(folder, replace(manifest, files=hash_files(folder, labels=manifest.labels)))
    return open_package(folder)


@pytest.fixture(name="rehash")
def rehash_fixture() -> Callable[[Path, Manifest], Package]:
    """Write the manifest again after the test changed the package's files on purpose."""
    return rehash


@pytest.fixture(name="expected")
def expected_fixture() -> Callable[..., Any]:
    """What the tiny models compute of a float32 input, in float64: logits and features."""
    return expected


@pytest.fixture(name="input_spec")
def input_spec_fixture() -> Callable[..., InputSpec]:
    """The tiny models' input, by layout and batch."""
    return input_spec


@pytest.fixture(name="golden_images")
def golden_images_fixture() -> NDArray[np.uint8]:
    """Two different images, uint8 (2, 8, 8, 3)."""
    return golden_images()


@pytest.fixture(scope="session")
def onnx_package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """Read-only: dynamic batch, NCHW."""
    return write_package(tmp_path_factory.mktemp("packages") / "tiny-onnx-fp32", "onnx")


@pytest.fixture(scope="session")
def heavy_package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """Read-only: the same outputs after far more work."""
    folder = tmp_path_factory.mktemp("packages") / "heavy-onnx-fp32"
    return write_package(folder, "onnx", extra_work=5)


@pytest.fixture(scope="session")
def tflite_package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """Read-only: batch 1, NHWC, eleven outputs."""
    return write_package(tmp_path_factory.mktemp("packages") / "tiny-tflite-fp32", "tflite")


@pytest.fixture
def own_package(tmp_path: Path) -> Package:
    """An ONNX package that the test may break."""
    return write_package(tmp_path / "own-onnx-fp32", "onnx")
