"""The MIL interpreter against PyTorch and NumPy, on packages that were saved and read back."""

from __future__ import annotations

import gc
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

import dmf
from export.convert import coreml
from export.convert.options import Options
from export.lowering import NAMES, Lowering, lower
from export.reparameterize import reparameterize
from export.verify.mil_interpreter import _CONSTANTS, _OPS, MilInterpreter, UnsupportedMilOp

Array = NDArray[Any]

# Largest error over the largest reference value. fp32: sums in another order; fp16: the rounding
# (2^-11) of every op, which a handful of ops in a row may add up to this.
TOLERANCE = {"fp32": 1e-5, "fp16": 2e-3}


@pytest.fixture(autouse=True, scope="module")
def _cheap_collections() -> Iterator[None]:
    """The converter collects garbage after each conversion: let it not walk all of torch."""
    import coremltools  # noqa: F401

    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def relative_error(actual: Array, reference: Array) -> float:
    assert actual.shape == reference.shape
    difference = np.abs(actual.astype(np.float64) - reference.astype(np.float64))
    return float(difference.max() / np.abs(reference).max())


def convert(module: nn.Module, example: tuple[Tensor, ...], precision: str, **options: Any) -> Any:
    import coremltools as ct

    exported = torch.export.export(module.eval(), example).run_decompositions({})
    return ct.convert(
        exported,
        convert_to="mlprogram",
        compute_precision=getattr(ct.precision, f"FLOAT{precision[2:]}"),
        minimum_deployment_target=options.pop("target", ct.target.iOS17),
        skip_model_load=True,
        **options,
    )


def saved(model: Any, folder: Path) -> Path:
    package = folder / "model.mlpackage"
    model.save(str(package))
    return package


def run_all(interpreter: MilInterpreter, *arrays: Array) -> list[Array]:
    """The outputs in their order, for inputs in their order."""
    inputs = zip(interpreter.inputs, arrays, strict=True)
    results = interpreter.run({declared.name: array for declared, array in inputs})
    return [results[name] for name in interpreter.outputs]


# What torch.export and the converter make of PyTorch ----------------------------------------------


class Calls(nn.Module):
    """A function as a module, with the layers it needs."""

    def __init__(self, function: Callable[..., Any], *layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.layers = nn.ModuleList(layers)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*self.layers, *inputs)


@dataclass(frozen=True)
class TorchCase:
    name: str
    shapes: tuple[tuple[int, ...], ...]
    module: Callable[[], nn.Module]
    ops: frozenset[str] = frozenset()  # op types the saved program must hold


def torch_case(
    name: str,
    shapes: tuple[tuple[int, ...], ...],
    function: Callable[..., Any],
    *layers: Callable[[], nn.Module],
    ops: str = "",
) -> TorchCase:
    def module() -> nn.Module:
        return Calls(function, *(layer() for layer in layers))

    return TorchCase(name, shapes, module, frozenset(ops.split()))


def applied(layer: nn.Module, x: Tensor) -> Any:
    return layer(x)


def through(name: str, shape: tuple[int, ...], layer: Callable[[], nn.Module], ops: str = "") -> TorchCase:
    return torch_case(name, (shape,), applied, layer, ops=ops)


def random_statistics(norm: nn.Module) -> nn.Module:
    """Fresh ones (0, 1) would hide a mean, a variance or an offset that is not applied."""
    for tensor in [*norm.parameters(), *norm.buffers()]:
        if tensor.is_floating_point():
            tensor.data.uniform_(0.5, 1.5)
    return norm


def gelu_tanh(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


IMAGE = (2, 8, 12, 10)
TOKENS = (2, 6, 16)
TORCH_CASES = [
    through("conv", IMAGE, lambda: nn.Conv2d(8, 12, 3, padding=1), "conv"),
    through("conv pointwise", IMAGE, lambda: nn.Conv2d(8, 12, 1)),
    through("conv strided", IMAGE, lambda: nn.Conv2d(8, 12, 3, stride=2, padding=1)),
    through("conv strided unevenly", IMAGE, lambda: nn.Conv2d(8, 4, (3, 5), (1, 2), (1, 2))),
    through("conv dilated", IMAGE, lambda: nn.Conv2d(8, 12, 3, padding=2, dilation=2)),
    through("conv grouped", IMAGE, lambda: nn.Conv2d(8, 12, 3, groups=4, bias=False)),
    through("conv depthwise", IMAGE, lambda: nn.Conv2d(8, 8, 5, 2, 2, groups=8)),
    through("conv even same", IMAGE, lambda: nn.Conv2d(8, 4, 4, padding="same")),
    through("conv 1d", (2, 8, 20), lambda: nn.Conv1d(8, 6, 3)),
    torch_case(
        "conv, computed weight",
        ((1, 8, 12, 10), (2, 4, 8, 3, 3)),
        lambda x, bank: F.conv2d(x, bank.sum(0), padding=1),
        ops="conv",
    ),
    torch_case(
        "conv, computed weight per sample",
        ((2, 8, 12, 10), (2, 8, 1, 3, 3)),
        lambda x, w: F.conv2d(x.reshape(1, 16, 12, 10), w.reshape(16, 1, 3, 3), None, 2, 1, 1, 16).reshape(2, 8, 6, 5),
    ),
    through("linear", TOKENS, lambda: nn.Linear(16, 5), "linear"),
    through("linear, no bias", (2, 16), lambda: nn.Linear(16, 5, bias=False)),
    torch_case("add", (IMAGE, IMAGE), lambda x, y: x + y, ops="add"),
    torch_case("matmul", ((2, 3, 6, 4), (2, 3, 4, 5)), lambda x, y: x @ y, ops="matmul"),
    torch_case("matmul transposed", ((2, 6, 4), (2, 5, 4)), lambda x, y: x @ y.mT),
    torch_case("matmul broadcast", ((2, 3, 6, 4), (4, 5)), lambda x, y: x @ y),
    torch_case("einsum", ((2, 6, 4), (2, 5, 4)), lambda x, y: torch.einsum("bmd,bnd->bmn", x, y)),
    through("gelu exact", TOKENS, nn.GELU, "gelu"),
    # Not nn.GELU("tanh"): coremltools 9.0 drops that argument of an exported program.
    torch_case("gelu tanh", (TOKENS,), gelu_tanh, ops="gelu"),
    through("layer_norm", TOKENS, lambda: random_statistics(nn.LayerNorm(16)), "layer_norm"),
    through("layer_norm, plain", TOKENS, lambda: nn.LayerNorm(16, elementwise_affine=False)),
    through("group_norm", IMAGE, lambda: random_statistics(nn.GroupNorm(2, 8)), "reduce_mean square sqrt real_div"),
    through("batch_norm", IMAGE, lambda: random_statistics(nn.BatchNorm2d(8)), "batch_norm"),
    through("softmax", TOKENS, lambda: nn.Softmax(1), "softmax"),
    through("sigmoid", TOKENS, nn.Sigmoid, "sigmoid"),
    through("tanh", TOKENS, nn.Tanh, "tanh"),
    through("silu", TOKENS, nn.SiLU, "silu"),
    through("relu", TOKENS, nn.ReLU, "relu"),
    through("relu6", TOKENS, nn.ReLU6, "clip"),
    through("hardswish", TOKENS, nn.Hardswish, "sigmoid_hard thresholded_relu"),
    through("hardsigmoid", TOKENS, nn.Hardsigmoid, "sigmoid_hard"),
    torch_case("2 sigmoid - 1", (TOKENS,), lambda x: 2 * torch.sigmoid(x) - 1, ops="mul sub"),
    torch_case("mean", (IMAGE,), lambda x: x.mean((2, 3)), ops="reduce_mean"),
    torch_case("mean, kept", (IMAGE,), lambda x: x - x.mean((2, 3), keepdim=True), ops="sub"),
    torch_case("sum", (IMAGE,), lambda x: x.sum(1), ops="reduce_sum"),
    torch_case("amax", (IMAGE,), lambda x: x.amax((1, 2)), ops="reduce_max"),
    torch_case("norm", (IMAGE,), lambda x: x.norm(dim=1), ops="reduce_l2_norm"),
    torch_case("cat", (IMAGE, IMAGE), lambda x, y: torch.cat([x, y + 1], 1), ops="concat"),
    torch_case("split", (IMAGE,), lambda x: torch.split(x * 2, [3, 1, 4], 1), ops="split"),
    torch_case("chunk", (IMAGE,), lambda x: torch.chunk(x * 2, 4, 1), ops="split"),
    torch_case("stack", (IMAGE, IMAGE), lambda x, y: torch.stack([x, y + 1], 2), ops="stack"),
    torch_case("slice", (IMAGE,), lambda x: x[:, 1:-2, ::3, 4], ops="slice_by_index"),
    torch_case("permute", (IMAGE,), lambda x: x.permute(0, 2, 3, 1) * 2, ops="transpose"),
    torch_case("reshape", (IMAGE,), lambda x: x.flatten(2).mT.reshape(2, 10, 96), ops="reshape"),
    torch_case("expand", ((2, 1, 5),), lambda x: x.expand(2, 3, 5) * 2, ops="tile"),
    torch_case("unsqueeze", (TOKENS,), lambda x: x[:, None, :, :, None] * 2, ops="expand_dims"),
    torch_case("squeeze", ((2, 1, 5, 1),), lambda x: x.squeeze(1) * 2, ops="squeeze"),
    torch_case("pad", (IMAGE,), lambda x: F.pad(x, (1, 2, 3, 4), value=0.5), ops="pad"),
    torch_case("reflect", (IMAGE,), lambda x: F.pad(x, (1, 2, 3, 4), mode="reflect")),
    torch_case("sqrt", (TOKENS,), lambda x: torch.sqrt(x.abs() + 0.1), ops="sqrt abs"),
    torch_case("rsqrt", (TOKENS,), lambda x: torch.rsqrt(x.abs() + 0.1), ops="rsqrt"),
    torch_case("div", (TOKENS, TOKENS), lambda x, y: x / (y.abs() + 1), ops="real_div"),
    torch_case("pow", (TOKENS,), lambda x: (x.abs() + 0.5) ** 1.7, ops="pow"),
    torch_case("exp", (TOKENS,), lambda x: torch.exp(x) + torch.erf(x), ops="exp erf"),
    torch_case("clamp", (TOKENS,), lambda x: x.clamp(-0.3, 0.7), ops="clip"),
    torch_case("maximum", (TOKENS, TOKENS), torch.maximum, ops="maximum"),
    torch_case("minimum", (TOKENS, TOKENS), torch.minimum, ops="minimum"),
    torch_case(
        "upsample",
        (IMAGE,),
        lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest"),
        ops="upsample_nearest_neighbor",
    ),
    torch_case("index_select", (IMAGE,), lambda x: x[:, [5, 0, 5]], ops="gather"),
    through("avg_pool", IMAGE, lambda: nn.AvgPool2d(3, 2, 1), "avg_pool"),
    through("avg_pool, unpadded", IMAGE, lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False)),
    through("avg_pool, ceil", IMAGE, lambda: nn.AvgPool2d(3, 2, ceil_mode=True)),
    through("adaptive_avg_pool", IMAGE, lambda: nn.AdaptiveAvgPool2d(1)),
    through("max_pool", IMAGE, lambda: nn.MaxPool2d(3, 2, 1), "max_pool"),
    through("max_pool, ceil", IMAGE, lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=True)),
]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("case", TORCH_CASES, ids=lambda case: case.name)
def test_converted_module_equals_pytorch(case: TorchCase, precision: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = case.module().eval()
    inputs = tuple(torch.randn(shape) for shape in case.shapes)
    interpreter = MilInterpreter(saved(convert(module, inputs, precision), tmp_path))
    results = run_all(interpreter, *(x.numpy() for x in inputs))

    with torch.no_grad():
        expected = module.double()(*(x.double() for x in inputs))
    assert case.ops <= set(interpreter.op_types)
    for actual, reference in zip(results, expected if isinstance(expected, tuple) else [expected], strict=True):
        assert actual.dtype == {"fp32": np.float32, "fp16": np.float16}[precision]
        assert relative_error(actual, reference.numpy()) < TOLERANCE[precision]


# What MIL's own builder makes, with NumPy as the reference ----------------------------------------


@dataclass(frozen=True)
class MilCase:
    op: str
    build: Callable[..., Any]  # (mb, *variables) -> variables
    reference: Callable[..., Any]  # (*arrays) -> arrays
    shapes: tuple[tuple[int, ...], ...] = ((2, 3, 4, 5),)
    low: float = -2.0  # inputs are uniform in [low, 2]
    opset: str = "iOS17"


def unary(op: str, reference: Callable[[Array], Any], low: float = -2.0, **kw: Any) -> MilCase:
    return MilCase(op, lambda mb, x: getattr(mb, op)(x=x, **kw), reference, low=low)


def binary(op: str, reference: Callable[..., Any], low: float = -2.0) -> MilCase:
    shapes = ((2, 3, 4, 5), (4, 1))
    return MilCase(op, lambda mb, x, y: getattr(mb, op)(x=x, y=y), reference, shapes, low)


def comparison(op: str, reference: Callable[..., Any]) -> MilCase:
    def build(mb: Any, x: Any, y: Any) -> Any:
        x, y = (mb.cast(x=v, dtype="int32") for v in (x, y))  # so that some are equal
        return mb.cast(x=getattr(mb, op)(x=x, y=y), dtype="fp32")

    shapes = ((2, 3, 4, 5), (4, 1))
    return MilCase(op, build, lambda x, y: reference(np.trunc(x), np.trunc(y)), shapes)


def logical(op: str, reference: Callable[..., Any]) -> MilCase:
    def build(mb: Any, x: Any, y: Any) -> Any:
        flags = (mb.greater(x=v, y=0.0) for v in (x, y))
        return mb.cast(x=getattr(mb, op)(**dict(zip("xy", flags, strict=True))), dtype="fp32")

    return MilCase(op, build, lambda x, y: reference(x > 0, y > 0), ((4, 5), (4, 5)))


def reduction(op: str, reference: Callable[..., Any]) -> list[MilCase]:
    """Of few elements, whose product fp16 can hold."""

    def of(reference: Callable[..., Any], **kw: Any) -> MilCase:
        return MilCase(op, lambda mb, x: getattr(mb, op)(x=x, **kw), reference, ((2, 3, 1, 2),), low=0.5)

    return [
        of(lambda x: reference(x, (1, 3)), axes=[1, -1], keep_dims=False),
        of(lambda x: reference(x, None).reshape(1, 1, 1, 1), keep_dims=True),
    ]


def affine(dtype: str, zero: int | list[int] | None) -> list[MilCase]:
    """To integers, of which the largest are clipped, and from integers; a list is of a scale per place on an axis."""
    scale = np.array([1 / 128, 1 / 64, 1 / 32] if isinstance(zero, list) else 1 / 128)  # exact in fp16
    steps, zeros = (scale[:, None, None], np.reshape(zero, (3, 1, 1))) if scale.ndim else (scale, zero or 0)
    low, high = (-128, 127) if dtype == "int8" else (0, 255)
    parameters: dict[str, Any] = {"scale": scale.astype(np.float32)}
    parameters |= {} if zero is None else {"zero_point": np.array(zero, dtype)}
    parameters |= {"axis": -3} if scale.ndim else {}

    def quantize(mb: Any, x: Any) -> Any:
        return mb.cast(x=mb.quantize(input=x, output_dtype=dtype, **parameters), dtype="fp32")

    def dequantize(mb: Any, x: Any) -> Any:
        return mb.dequantize(input=mb.cast(x=mb.mul(x=x, y=64.0), dtype=dtype), **parameters)

    return [
        MilCase("quantize", quantize, lambda x: np.clip(np.rint(x / steps) + zeros, low, high)),
        MilCase(
            "dequantize",
            dequantize,
            lambda x: (np.trunc(x * 64) - zeros) * steps,
            low=0.0 if dtype == "uint8" else -2.0,
        ),
    ]


def strides_2_same(x: Array, size: int, pad_type: str, reduce: Callable[..., Any]) -> Array:
    """Windows of `size`, two apart, over each of the last two axes; written as loops."""
    for axis in (2, 3):
        n = x.shape[axis]
        total = max(0, (math.ceil(n / 2) - 1) * 2 + size - n)
        before = total // 2 if pad_type == "same" else total - total // 2
        rows = []
        for i in range(math.ceil(n / 2)):
            taken = [j for j in range(2 * i - before, 2 * i - before + size) if 0 <= j < n]
            rows.append(reduce(x.take(taken, axis), axis))
        x = np.stack(rows, axis)
    return x


def normalized(x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    variance = x.var(axes, keepdims=True)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(variance + epsilon)


erf = np.vectorize(math.erf)
A345 = np.linspace(0.5, 1.5, 3)
GAMMA, BETA = np.linspace(0.5, 1.5, 20).reshape(4, 5), np.linspace(-1, 1, 20).reshape(4, 5)
KERNEL = np.random.default_rng(1).normal(size=(6, 3, 2, 2))


def f32(array: Any) -> Array:
    return np.asarray(array, dtype=np.float32)


def conv_same(x: Array, pad_type: str) -> Array:
    """A 2 x 2 kernel, stride 1: one row and one column are missing, after (before, if lower)."""
    pads = (0, 1) if pad_type == "same" else (1, 0)
    padded = np.pad(x, [(0, 0), (0, 0), pads, pads])
    height, width = x.shape[2:]
    return np.asarray(
        sum(
            np.einsum("oc,bchw->bohw", KERNEL[:, :, i, j], padded[:, :, i : i + height, j : j + width])
            for i in range(2)
            for j in range(2)
        )
    )


def attention(q: Array, k: Array, v: Array) -> Array:
    scores = np.exp(q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1]))
    return scores / scores.sum(-1, keepdims=True) @ v


MIL_CASES = [
    # linear algebra
    *(
        MilCase(
            "conv",
            lambda mb, x, p=pad_type: mb.conv(x=x, weight=f32(KERNEL), pad_type=p),
            lambda x, p=pad_type: conv_same(x, p),
        )
        for pad_type in ("same", "same_lower")
    ),
    MilCase(
        "linear",
        lambda mb, x: mb.linear(x=x, weight=f32(GAMMA)),
        lambda x: x @ GAMMA.T,
        ((2, 3, 5),),
    ),
    *(
        MilCase(
            "matmul",
            lambda mb, x, y, s=sides: mb.matmul(x=x, y=y, transpose_x=s[0], transpose_y=s[1]),
            lambda x, y, s=sides: (x.mT if s[0] else x) @ (y.mT if s[1] else y),
            ((2, 5, 4) if sides[0] else (2, 4, 5), (3, 5) if sides[1] else (5, 3)),
        )
        for sides in ((False, False), (True, False), (False, True), (True, True))
    ),
    MilCase(
        "einsum",
        lambda mb, x, y: mb.einsum(values=(x, y), equation="nchw,nwhu->nchu"),
        lambda x, y: np.einsum("nchw,nwhu->nchu", x, np.broadcast_to(y, (2, 5, 4, 6))),
        ((2, 3, 4, 5), (1, 5, 4, 6)),
    ),
    MilCase(
        "scaled_dot_product_attention",
        lambda mb, x, y: mb.scaled_dot_product_attention(query=x, key=y, value=y),
        lambda x, y: attention(x, y, y),
        ((2, 4, 5), (2, 6, 5)),
        opset="iOS18",
    ),
    # elementwise, two operands
    binary("add", np.add),
    binary("sub", np.subtract),
    binary("mul", np.multiply),
    binary("real_div", np.divide, low=0.5),
    binary("floor_div", np.floor_divide, low=0.5),
    binary("mod", lambda x, y: x % y, low=0.5),
    binary("pow", np.power, low=0.1),
    binary("maximum", np.maximum),
    binary("minimum", np.minimum),
    comparison("equal", np.equal),
    comparison("not_equal", np.not_equal),
    comparison("greater", np.greater),
    comparison("greater_equal", np.greater_equal),
    comparison("less", np.less),
    comparison("less_equal", np.less_equal),
    logical("logical_and", np.logical_and),
    logical("logical_or", np.logical_or),
    MilCase(
        "select",
        lambda mb, x, y: mb.select(cond=mb.less(x=x, y=y), a=x, b=y),
        np.minimum,
        ((4, 5), (4, 5)),
    ),
    # elementwise, one operand
    unary("abs", np.abs),
    unary("ceil", np.ceil),
    unary("clip", lambda x: np.clip(x, -0.5, 1.0), alpha=-0.5, beta=1.0),
    unary("cos", np.cos),
    unary("erf", erf),
    unary("exp", np.exp),
    unary("exp2", np.exp2),
    unary("floor", np.floor),
    unary("inverse", lambda x: 1 / (x + 0.1), low=0.1, epsilon=0.1),
    unary("log", lambda x: np.log(x + 0.1), low=0.1, epsilon=0.1),
    MilCase(
        "logical_not",
        lambda mb, x: mb.cast(x=mb.logical_not(x=mb.greater(x=x, y=0.0)), dtype="fp32"),
        lambda x: ~(x > 0),
    ),
    unary("round", np.round),
    unary("rsqrt", lambda x: 1 / np.sqrt(x + 0.1), low=0.1, epsilon=0.1),
    unary("sign", np.sign),
    unary("sin", np.sin),
    unary("sqrt", np.sqrt, low=0.0),
    unary("square", np.square),
    unary("tanh", np.tanh),
    # activations
    unary(
        "clamped_relu",
        lambda x: np.minimum(np.where(x < 0, 0.2 * x, x), 1.5),
        alpha=0.2,
        beta=1.5,
    ),
    unary("elu", lambda x: np.where(x > 0, x, 0.7 * (np.exp(x) - 1)), alpha=0.7),
    unary("gelu", lambda x: x * (1 + erf(x / math.sqrt(2))) / 2, mode="EXACT"),
    unary(
        "gelu",
        lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
        mode="TANH_APPROXIMATION",
    ),
    unary("gelu", lambda x: x / (1 + np.exp(-1.702 * x)), mode="SIGMOID_APPROXIMATION"),
    unary("leaky_relu", lambda x: np.where(x < 0, 0.2 * x, x), alpha=0.2),
    unary("linear_activation", lambda x: 0.2 * x + 3, alpha=0.2, beta=3.0),
    unary("prelu", lambda x: np.where(x < 0, x * A345.reshape(3, 1, 1), x), alpha=f32(A345)),
    unary("relu", lambda x: np.maximum(x, 0)),
    MilCase("relu6", lambda mb, x: mb.relu6(x=mb.mul(x=x, y=9.0)), lambda x: np.clip(9 * x, 0, 6)),
    unary("scaled_tanh", lambda x: 0.2 * np.tanh(3 * x), alpha=0.2, beta=3.0),
    unary("sigmoid", lambda x: 1 / (1 + np.exp(-x))),
    unary("sigmoid_hard", lambda x: np.clip(0.4 * x + 0.3, 0, 1), alpha=0.4, beta=0.3),
    unary("silu", lambda x: x / (1 + np.exp(-x))),
    unary("softmax", lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True), axis=1),
    unary("softplus", lambda x: np.log(1 + np.exp(x))),
    unary("softsign", lambda x: x / (1 + np.abs(x))),
    unary("thresholded_relu", lambda x: np.where(x < 0.5, 0, x), alpha=0.5),
    # normalisation
    unary(
        "batch_norm",
        lambda x: (x - 0.3) / np.sqrt(A345.reshape(3, 1, 1) + 0.01) * 2 + A345.reshape(3, 1, 1),
        mean=f32([0.3] * 3),
        variance=f32(A345),
        gamma=f32([2] * 3),
        beta=f32(A345),
        epsilon=np.float32(0.01),
    ),
    unary(
        "instance_norm",
        lambda x: normalized(x, (2, 3), 0.01) * A345.reshape(3, 1, 1) + 1,
        gamma=f32(A345),
        beta=f32([1] * 3),
        epsilon=np.float32(0.01),
    ),
    unary(
        "l2_norm",
        lambda x: x / np.sqrt(np.square(x).sum((1, 2, 3), keepdims=True) + 0.1),
        epsilon=np.float32(0.1),
    ),
    unary(
        "layer_norm",
        lambda x: normalized(x, (2, 3), 0.01) * GAMMA + BETA,
        axes=[-2, -1],
        gamma=f32(GAMMA),
        beta=f32(BETA),
        epsilon=np.float32(0.01),
    ),
    unary("layer_norm", lambda x: normalized(x, (1,), 1e-5), axes=[1]),
    # reduction and pooling
    *(
        unary(
            "avg_pool",
            lambda x, p=pad_type: strides_2_same(x, 3, p, np.mean),
            kernel_sizes=[3, 3],
            strides=[2, 2],
            pad_type=pad_type,
            exclude_padding_from_average=True,
        )
        for pad_type in ("same", "same_lower")
    ),
    unary(
        "avg_pool",
        lambda x: strides_2_same(x, 3, "same", lambda part, axis: part.sum(axis) / 3),
        kernel_sizes=[3, 3],
        strides=[2, 2],
        pad_type="same",
    ),
    *(
        unary(
            "max_pool",
            lambda x, p=pad_type: strides_2_same(x, 3, p, np.max),
            kernel_sizes=[3, 3],
            strides=[2, 2],
            pad_type=pad_type,
        )
        for pad_type in ("same", "same_lower")
    ),
    unary("reduce_argmax", lambda x: x.argmax(2), axis=2),
    unary("reduce_argmin", lambda x: x.argmin(1)[:, None], axis=1, keep_dims=True),
    *reduction("reduce_l1_norm", lambda x, axes: np.abs(x).sum(axes)),
    *reduction("reduce_l2_norm", lambda x, axes: np.sqrt(np.square(x).sum(axes))),
    *reduction("reduce_log_sum_exp", lambda x, axes: np.log(np.exp(x).sum(axes))),
    *reduction("reduce_max", np.max),
    *reduction("reduce_mean", np.mean),
    *reduction("reduce_min", np.min),
    *reduction("reduce_prod", np.prod),
    *reduction("reduce_sum", np.sum),
    *reduction("reduce_sum_square", lambda x, axes: np.square(x).sum(axes)),
    # shapes and places
    unary("band_part", lambda x: np.triu(np.tril(x, 2), -1), lower=1, upper=2),
    unary("band_part", np.triu, lower=0, upper=-1),
    unary("cast", np.trunc, dtype="int32"),
    MilCase(
        "concat",
        lambda mb, x, y: mb.concat(values=(x, y), axis=-1),
        lambda x, y: np.concatenate([x, y], 1),
        ((3, 2), (3, 4)),
    ),
    MilCase(
        "concat",
        lambda mb, x, y: mb.concat(values=(x, y), axis=0, interleave=True),
        lambda x, y: np.stack([x, y], 1).reshape(6, 2),
        ((3, 2), (3, 2)),
    ),
    unary("cumsum", lambda x: x.cumsum(1), axis=1),
    unary(
        "cumsum",
        lambda x: x[:, ::-1].cumsum(1)[:, ::-1] - x,
        axis=1,
        exclusive=True,
        reverse=True,
    ),
    unary("expand_dims", lambda x: x[:, None], axes=[-4]),
    MilCase(
        "fill",
        lambda mb, x: mb.fill(shape=mb.shape(x=x), value=0.7),
        lambda x: np.full_like(x, 0.7),
    ),
    unary("gather", lambda x: x[:, :, [[3, -4], [1, 1]]], indices=[[3, -4], [1, 1]], axis=2),
    unary("gather", lambda x: x[..., 2], indices=2, axis=-1),
    unary(
        "gather",
        lambda x: np.stack([x[0][:, [0, 3]], x[1][:, [2, 1]]]),
        indices=[[0, 3], [2, 1]],
        axis=2,
        batch_dims=1,
    ),
    MilCase(
        "gather_along_axis",
        lambda mb, x: mb.gather_along_axis(x=x, indices=[[2, 0], [1, -1]], axis=1),
        lambda x: np.take_along_axis(x, np.array([[2, 0], [1, -1]]), 1),
        ((2, 3),),
    ),
    unary("identity", lambda x: x),
    *(
        MilCase(
            "pad",
            lambda mb, x, m=mode: mb.pad(x=x, pad=[1, 0, 2, 1], mode=m, constant_val=0.3),
            lambda x, m=np_mode: np.pad(x, [(0, 0), (0, 0), (1, 0), (2, 1)], **m),
        )
        for mode, np_mode in (
            ("constant", {"mode": "constant", "constant_values": 0.3}),
            ("reflect", {"mode": "reflect"}),
            ("replicate", {"mode": "edge"}),
        )
    ),
    MilCase(
        "expand_dims",
        lambda mb, x: mb.expand_dims(x=x, axes=[-1, 0, 2]),
        lambda x: x[None, :, None, :, None],
        ((3, 4),),
    ),
    unary("reshape", lambda x: x.reshape(6, 20), shape=[6, -1]),
    unary("reshape", lambda x: x.reshape(3, 8, 5), shape=[0, -1, 0]),
    MilCase(
        "reshape",
        lambda mb, x: mb.reshape(x=x, shape=[1, 0, -1, 0]),
        lambda x: x.reshape(1, 1, 2, 50),
        ((2, 50),),
    ),
    unary("reverse", lambda x: x[:, ::-1, :, ::-1], axes=[1, -1]),
    unary("reverse", np.flip),
    *affine("int8", None),
    *affine("int8", 7),
    *affine("uint8", 133),
    *affine("int8", [0, -3, 90]),
    MilCase("shape", lambda mb, x: mb.shape(x=mb.relu(x=x)), lambda x: np.array(x.shape)),
    unary(
        "slice_by_index",
        lambda x: x[:, 1:2, 1:4:2],
        begin=[0, 1, 1, 0],
        end=[2, 2, 4, 5],
        stride=[1, 1, 2, 1],
    ),
    unary(
        "slice_by_index",
        lambda x: x[:, -1, 3:0:-2, :3],
        begin=[1, -1, 3, 4],
        end=[1, 0, 0, 3],
        stride=[1, 1, -2, 1],
        begin_mask=[True, False, False, True],
        end_mask=[True, False, False, False],
        squeeze_mask=[False, True, False, False],
    ),
    unary("slice_by_size", lambda x: x[:, 1:, 1:3, -2:], begin=[0, 1, 1, -2], size=[2, -1, 2, 2]),
    unary("split", lambda x: np.split(x, 2, 2), num_splits=2, axis=2),
    unary("split", lambda x: np.split(x, [1, 4], -1), split_sizes=[1, 3, 1], axis=-1),
    MilCase("squeeze", lambda mb, x: mb.squeeze(x=x), np.squeeze, ((2, 1, 3, 1),)),
    MilCase("squeeze", lambda mb, x: mb.squeeze(x=x, axes=[-1]), lambda x: x[..., 0], ((2, 1, 3, 1),)),
    MilCase(
        "stack",
        lambda mb, x, y: mb.stack(values=(x, y), axis=-1),
        lambda x, y: np.stack([x, y], -1),
        ((3, 2), (3, 2)),
    ),
    unary("tile", lambda x: np.tile(x, (1, 2, 1, 3)), reps=[1, 2, 1, 3]),
    unary("transpose", lambda x: x.transpose(2, 0, 3, 1), perm=[2, 0, -1, 1]),
    unary(
        "upsample_nearest_neighbor",
        lambda x: np.repeat(np.repeat(x, 3, 2), 2, 3),
        scale_factor_height=3,
        scale_factor_width=2,
    ),
]


PASSES = {"fp32": [], "fp16": ["common::add_fp16_cast"]}


def build(case: MilCase, precision: str = "fp32") -> Any:
    """The program as written: no pass of the converter touches it, but the one that puts casts around each op."""
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb

    def of_one(x: Any) -> Any:
        return case.build(mb, x)

    def of_two(x: Any, y: Any) -> Any:
        return case.build(mb, x, y)

    target = getattr(ct.target, case.opset)
    specs = [mb.TensorSpec(shape=shape) for shape in case.shapes]
    program = mb.program(input_specs=specs, opset_version=target)
    return ct.convert(
        program(of_one if len(specs) == 1 else of_two),
        convert_to="mlprogram",
        minimum_deployment_target=target,
        pass_pipeline=ct.PassPipeline(PASSES[precision]),
        skip_model_load=True,
    )


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("case", MIL_CASES, ids=lambda case: case.op)
def test_op_equals_its_definition(case: MilCase, precision: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    inputs = [f32(random.uniform(case.low, 2, shape).astype(np.float16)) for shape in case.shapes]
    interpreter = MilInterpreter(saved(build(case, precision), tmp_path))
    results = run_all(interpreter, *inputs)

    expected = case.reference(*(x.astype(np.float64) for x in inputs))
    assert case.op in interpreter.op_types
    for actual, reference in zip(results, expected if isinstance(expected, list) else [expected], strict=True):
        assert relative_error(actual, np.asarray(reference)) < TOLERANCE[precision]
        assert precision == "fp32" or (actual == actual.astype(np.float16)).all()


@pytest.mark.parametrize("op", ["tanh", "matmul", "layer_norm"])
def test_fp16_is_seen(op: str, tmp_path: Path) -> None:
    """What the fp16 test allows is needed: such a program is too far off for the fp32 test."""
    case = next(case for case in MIL_CASES if case.op == op)
    inputs = [f32(np.random.default_rng(0).uniform(case.low, 2, shape).astype(np.float16)) for shape in case.shapes]
    (actual,) = run_all(MilInterpreter(saved(build(case, "fp16"), tmp_path)), *inputs)
    assert relative_error(actual, case.reference(*(x.astype(np.float64) for x in inputs))) > TOLERANCE["fp32"]


@dataclass(frozen=True)
class PackedCase:
    """A constant that is unpacked when the model is loaded."""

    op: str
    stored: Callable[[Any], dict[str, Any]]  # its arguments, with numbers of this type
    weight: Callable[[Any], Array]  # what they stand for, (4, 6)
    opset: str = "iOS17"


def two_bits(values: Array) -> Array:
    """Stored as iOS 18 does."""
    from coremltools.converters.mil.mil.types import np_uint2_dtype

    return values.astype(np_uint2_dtype)


def packed(values: Array, bits: int) -> Array:
    """Stored as iOS 16 does: bits of one value after the other, the lowest first."""
    rows = np.unpackbits(values.astype(np.uint8).reshape(-1, 1), axis=1, count=bits, bitorder="little")
    return np.packbits(rows, bitorder="little")


LEVELS = np.random.default_rng(2).integers(-100, 100, (4, 6), np.int8)
PALETTE = np.random.default_rng(3).integers(0, 4, (4, 6), np.uint8)
STEPS = np.array([0.11, -0.23, 0.17, 0.31])
BLOCKS, OFFSETS = np.linspace(0.01, 0.08, 8).reshape(4, 2), np.arange(1, 9).reshape(4, 2)
PLACES = [1, 8, 13, 23]
CAST_FP16 = ("cast", "fp16")
PACKED_CASES = [
    PackedCase(
        "affine_dequantize",
        lambda t: {"quantized_data": LEVELS, "zero_point": np.int8(3), "scale": t(STEPS), "axis": 0},
        lambda t: np.float64(t(STEPS))[:, None] * (LEVELS - 3.0),
    ),
    PackedCase(
        "blockwise_shift_scale",
        lambda t: {"data": LEVELS, "scale": t(BLOCKS), "offset": np.int8(OFFSETS)},
        lambda t: np.repeat(np.float64(t(BLOCKS)), 3, 1) * (LEVELS - np.repeat(OFFSETS, 3, 1).astype(float)),
        "iOS18",
    ),
    PackedCase(
        "lut_to_dense",
        lambda t: {"lut": t(STEPS), "indices": packed(PALETTE, 2), "shape": np.uint32([4, 6])},
        lambda t: t(STEPS)[PALETTE],
    ),
    PackedCase(
        "lut_to_dense",
        lambda t: {"lut": t(STEPS).reshape(1, 1, 4, 1), "indices": two_bits(PALETTE)},
        lambda t: t(STEPS)[PALETTE],
        "iOS18",
    ),
    PackedCase(
        "sparse_to_dense",
        lambda t: {
            "nonzero_data": t(STEPS),
            "mask": packed(np.isin(np.arange(24), PLACES), 1),
            "shape": np.uint32([4, 6]),
        },
        lambda t: (np.eye(24)[:, PLACES] @ t(STEPS)).reshape(4, 6),
    ),
    PackedCase(
        "cast",
        lambda t: {"source_val": np.float16(LEVELS / 8), "output_dtype": "fp32"},
        lambda t: LEVELS / 8,
    ),
]


def linear_of(case: PackedCase, precision: str) -> Any:
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb

    number = {"fp32": np.float32, "fp16": np.float16}[precision]
    target = getattr(ct.target, case.opset)

    def layer(x: Any) -> Any:
        weight = getattr(mb, f"constexpr_{case.op}")(**case.stored(number))
        return mb.cast(x=mb.linear(x=mb.cast(x=x, dtype=precision), weight=weight), dtype="fp32")

    return ct.convert(
        mb.program(input_specs=[mb.TensorSpec(shape=(3, 6))], opset_version=target)(layer),
        convert_to="mlprogram",
        minimum_deployment_target=target,
        pass_pipeline=ct.PassPipeline.EMPTY,
        skip_model_load=True,
    )


@pytest.mark.parametrize(
    ("case", "precision"),
    # a constant that is cast is fp32
    [(case, precision) for case in PACKED_CASES for precision in ("fp32", "fp16") if (case.op, precision) != CAST_FP16],
    ids=lambda value: value if isinstance(value, str) else f"{value.op}-{value.opset}",
)
def test_packed_constant_equals_its_definition(case: PackedCase, precision: str, tmp_path: Path) -> None:
    x = np.random.default_rng(0).uniform(-2, 2, (3, 6)).astype(np.float16)
    interpreter = MilInterpreter(saved(linear_of(case, precision), tmp_path))
    (actual,) = run_all(interpreter, f32(x))
    weight = case.weight({"fp32": np.float32, "fp16": np.float16}[precision]).astype(np.float64)
    assert f"constexpr_{case.op}" in interpreter.op_types
    assert relative_error(actual, x.astype(np.float64) @ weight.T) < TOLERANCE[precision]
    weight[1, 2] *= 1.1  # one value of the constant
    assert relative_error(actual, x.astype(np.float64) @ weight.T) > TOLERANCE[precision]


def test_every_op_of_the_table_is_tested() -> None:
    assert set(_OPS) == {case.op for case in MIL_CASES} | {"classify"}
    assert {"const", *(f"constexpr_{case.op}" for case in PACKED_CASES)} == _CONSTANTS


# What the converter emits for this project's networks ---------------------------------------------

# The parts of dmf_nano, two blocks of them.
SMALL = {"block_hidden": (32, 48), "block_channels": (12, 16), "cross_heads": (2, 2), "downsample": (0, 1)}
ABLATIONS: list[dict[str, Any]] = [{"routing": "softmax"}, {"grn": "spatial"}, {"token_input": False}]
EMITTED = [
    *((form, "fp16", {}) for form in NAMES),
    *(("matmul/taps", "fp32", changes) for changes in ({}, *ABLATIONS)),
]


def exported(form: str, precision: str, changes: dict[str, Any], path: Path) -> Path:
    model = dmf.seed_weights(dmf.create_model("dmf_nano", image_size=16, **SMALL, **changes), 0)
    graph = lower(reparameterize(model.double()).float(), Lowering.parse(form))
    image_input = form == "matmul/conv"  # once with all that an image input and a classifier add
    options = Options(
        path / "log",
        in_half=precision == "fp16",
        mean=(0.5, 0.5, 0.5) if image_input else None,
        std=(0.2, 0.2, 0.2) if image_input else None,
        labels=tuple("abcdefghij") if image_input else None,
    )
    package = path / "model.mlpackage"
    coreml.convert(graph, torch.zeros(1, 3, 16, 16), package, options)
    return package


def covered() -> set[str]:
    """Op types with a test of their own against NumPy, and one against PyTorch, each in fp32 and fp16."""
    by_pytorch = {op for case in TORCH_CASES for op in case.ops}
    by_pytorch |= {"classify", "cast", *_CONSTANTS}  # by test_image_classifier, all fp16 ones, test_compressed_weights
    return {"classify", *(case.op for case in MIL_CASES), *_CONSTANTS} & by_pytorch


@pytest.mark.parametrize(("form", "precision", "changes"), EMITTED, ids=lambda value: str(value))
def test_every_op_that_is_emitted_is_tested_alone(
    form: str, precision: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    interpreter = MilInterpreter(exported(form, precision, changes, tmp_path))
    assert len(interpreter.op_types) > 15
    assert set(interpreter.op_types) <= covered()


@pytest.mark.parametrize(
    ("way", "precision"),
    [
        ("linear_quantize_weights", "fp32"),
        ("linear_quantize_weights", "fp16"),
        ("palettize_weights", "fp16"),
        ("prune_weights", "fp16"),
    ],
)
def test_every_op_of_a_compressed_network_is_tested_alone(way: str, precision: str, tmp_path: Path) -> None:
    import coremltools as ct
    import coremltools.optimize.coreml as cto

    settings = {
        "linear_quantize_weights": cto.OpLinearQuantizerConfig(),
        "palettize_weights": cto.OpPalettizerConfig(mode="uniform", nbits=6),
        "prune_weights": cto.OpMagnitudePrunerConfig(target_sparsity=0.5),
    }
    model = ct.models.MLModel(str(exported("matmul/taps", precision, {}, tmp_path)), skip_model_load=True)
    compressed = getattr(cto, way)(model, cto.OptimizationConfig(settings[way]))
    (tmp_path / "compressed").mkdir()
    interpreter = MilInterpreter(saved(compressed, tmp_path / "compressed"))
    assert any(op.startswith("constexpr_") for op in interpreter.op_types)
    assert set(interpreter.op_types) <= covered()


# Packages as a whole ------------------------------------------------------------------------------

PIXELS = np.random.default_rng(0).integers(0, 256, (1, 3, 9, 7)).astype(np.float32)
SCALE, BIAS = 1 / 58.0, [-2.1, -2.0, -1.8]


def small_network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(8, 4), nn.Softmax(-1)).eval()


def pixels_through(network: nn.Module) -> Array:
    images = torch.from_numpy(PIXELS).double() * SCALE + torch.tensor(BIAS).double()[:, None, None]
    with torch.no_grad():
        return np.asarray(network.double()(images))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_image_classifier(precision: str, tmp_path: Path) -> None:
    import coremltools as ct

    network, labels = small_network(), ["cat", "dog", "newt", "owl"]
    image = ct.ImageType("image", PIXELS.shape, SCALE, BIAS, color_layout=ct.colorlayout.RGB)
    model = convert(
        network,
        (torch.from_numpy(PIXELS),),
        precision,
        inputs=[image],
        classifier_config=ct.ClassifierConfig(labels),
    )
    interpreter = MilInterpreter(saved(model, tmp_path))
    assert [i.color_space for i in interpreter.inputs] == ["RGB"]
    assert interpreter.classes == tuple(labels)

    label, probabilities = run_all(interpreter, PIXELS)
    reference = pixels_through(network)[0]
    assert relative_error(probabilities, reference) < TOLERANCE[precision]
    assert label == labels[int(reference.argmax())]
    with pytest.raises(ValueError, match=r"'image' must hold whole numbers"):
        interpreter.run({"image": PIXELS / 255})


def test_scale_and_bias_of_an_image_are_seen(tmp_path: Path) -> None:
    import coremltools as ct

    network = small_network()
    image = ct.ImageType("image", PIXELS.shape, SCALE, [b + 0.1 for b in BIAS])
    model = convert(network, (torch.from_numpy(PIXELS),), "fp32", inputs=[image])
    (result,) = run_all(MilInterpreter(saved(model, tmp_path)), PIXELS)
    assert relative_error(result, pixels_through(network)) > 10 * TOLERANCE["fp32"]


@pytest.mark.parametrize(
    ("damage", "found"),
    [(lambda w: w, False), (lambda w: w[::-1], True), (lambda w: w * np.float32(1.01), True)],
    ids=["untouched", "permuted", "scaled"],
)
def test_damaged_weights_are_seen(damage: Callable[[Array], Array], found: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(16, 32), torch.randn(2, 16)
    package = saved(convert(layer, (x,), "fp32"), tmp_path)
    blob = package / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"
    weight = layer.weight.detach().numpy()
    assert blob.read_bytes().count(weight.tobytes()) == 1
    blob.write_bytes(blob.read_bytes().replace(weight.tobytes(), damage(weight).tobytes()))

    (result,) = run_all(MilInterpreter(package), x.numpy())
    error = relative_error(result, layer(x).detach().numpy())
    assert (error > 10 * TOLERANCE["fp32"]) == found
    assert (error < TOLERANCE["fp32"]) != found


def test_unknown_ops_are_refused_all_at_once_by_name(tmp_path: Path) -> None:
    def two_unknown(mb: Any, x: Any) -> Any:
        values, _ = mb.topk(x=mb.relu(x=x), k=2, axis=0, name="best_two")
        return mb.atan(x=values, name="angle")

    package = saved(build(MilCase("", two_unknown, np.arctan, ((4, 5),))), tmp_path)
    with pytest.raises(UnsupportedMilOp, match=r"topk \(best_two\), atan \(angle\)") as refused:
        MilInterpreter(package)
    assert refused.value.ops == (("topk", "best_two"), ("atan", "angle"))


def test_fp16_is_rounded_after_every_op(tmp_path: Path) -> None:
    x = torch.full((1, 4), 0.3)  # fp16 counts by 2 from 2048 on: 2048.3 is none of its numbers
    model = convert(Calls(lambda x: (x + 2048.0) - 2048.0), (x,), "fp16")
    package = saved(model, tmp_path)
    (rounded,) = run_all(MilInterpreter(package), x.numpy())
    (exact,) = run_all(MilInterpreter(package, compute="float64"), x.numpy())
    assert (rounded == 0).all()
    assert np.allclose(exact, 0.3, rtol=1e-7)


def test_float64_leaves_no_rounding(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(64, 8), torch.randn(2, 64)
    package = saved(convert(layer, (x,), "fp32"), tmp_path)
    (result,) = run_all(MilInterpreter(package, compute="float64"), x.numpy())
    assert result.dtype == np.float64
    assert relative_error(result, layer.double()(x.double()).detach().numpy()) < 1e-14


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"y": np.zeros((2, 16))}, r"\['y'\] given, \['input'\] expected"),
        ({}, r"\[\] given, \['input'\] expected"),
        ({"input": np.zeros((3, 16))}, r"'input' has shape \(3, 16\), not \(2, 16\)"),
    ],
    ids=["name", "missing", "shape"],
)
def test_wrong_inputs_are_refused(inputs: dict[str, Array], message: str, tmp_path: Path) -> None:
    package = saved(convert(nn.Linear(16, 4), (torch.zeros(2, 16),), "fp32"), tmp_path)
    with pytest.raises(ValueError, match=message):
        MilInterpreter(package).run(inputs)


@pytest.mark.parametrize(
    ("op", "target", "compress", "tolerance"),
    [
        (
            "constexpr_affine_dequantize",
            "iOS17",
            lambda cto, m: cto.linear_quantize_weights(
                m, cto.OptimizationConfig(cto.OpLinearQuantizerConfig(weight_threshold=0))
            ),
            1e-2,
        ),
        (
            "constexpr_blockwise_shift_scale",
            "iOS18",
            lambda cto, m: cto.linear_quantize_weights(
                m, cto.OptimizationConfig(cto.OpLinearQuantizerConfig(weight_threshold=0))
            ),
            1e-2,
        ),
        (
            "constexpr_lut_to_dense",
            "iOS17",
            lambda cto, m: cto.palettize_weights(
                m,
                cto.OptimizationConfig(cto.OpPalettizerConfig(mode="uniform", nbits=8, weight_threshold=0)),
            ),
            1e-2,
        ),
        (
            "constexpr_sparse_to_dense",
            "iOS17",
            lambda cto, m: cto.prune_weights(
                m,
                cto.OptimizationConfig(cto.OpMagnitudePrunerConfig(target_sparsity=0.5, weight_threshold=0)),
            ),
            TOLERANCE["fp32"],  # the weights that are dropped were zero
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_compressed_weights(
    op: str, target: str, compress: Callable[..., Any], tolerance: float, tmp_path: Path
) -> None:
    import coremltools as ct
    import coremltools.optimize.coreml as cto

    torch.manual_seed(0)
    layer, x = nn.Linear(64, 64), torch.randn(2, 64)
    layer.weight.data[::2] = 0
    model = convert(layer, (x,), "fp32", target=getattr(ct.target, target))
    interpreter = MilInterpreter(saved(compress(cto, model), tmp_path))
    (result,) = run_all(interpreter, x.numpy())
    assert op in interpreter.op_types
    assert relative_error(result, layer(x).detach().numpy()) < tolerance


def test_no_package(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no Core ML package"):
        MilInterpreter(tmp_path / "none.mlpackage")


def test_import_needs_no_coremltools() -> None:
    code = "import sys; sys.modules['coremltools'] = None; import export.verify.mil_interpreter"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
