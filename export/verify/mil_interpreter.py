"""Runs a saved Core ML package op by op with PyTorch, on a machine without Core ML.

What is read is the `.mlpackage` on disk: its model description, its ML program (MIL) and its weight
file. Every op is computed by a function of `_OPS`, written from the op's definition in the MIL
reference, not by the converter's own evaluation. So a wrong weight, a wrong op, a wrong constant or
a wrong layout in the package shows in the numbers.

Number formats follow the types the program declares: each op is computed in float32 and its result
is rounded to its declared type, so an fp16 program is rounded to float16 after every single op.
With `compute="float64"` nothing is rounded on the way; what then still differs from a float64
reference is the converter's doing (and the rounding of the constants as stored).

What this does not prove: Apple's runtime was not run. Its compiler fuses ops, its kernels sum in
another order and partly in float16, and which compute unit takes which op is not seen here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Compute = Literal["float32", "float64"]


class UnsupportedMilOp(NotImplementedError):
    """The program holds ops that the interpreter has no function for; names each type and op."""

    def __init__(self, ops: Sequence[tuple[str, str]]) -> None:
        self.ops = tuple(ops)  # (op type, op name)
        named = ", ".join(f"{op_type} ({name})" for op_type, name in self.ops)
        super().__init__(f"no interpretation for {len(self.ops)} MIL op(s): {named}")


@dataclass(frozen=True)
class MilInput:
    """One input of the program.

    An image input (`color_space` set) takes the pixels as whole numbers 0..255 in a float array of
    `shape`, channels in the order of `color_space`; its scale and bias are ops of the program.
    """

    name: str
    shape: tuple[int | None, ...]  # None: a flexible dimension
    dtype: str  # as the program declares it: "fp32", "fp16", "int32", ...
    color_space: str | None = None  # "RGB", "BGR", "GRAYSCALE", ...; None: a tensor


class MilInterpreter:
    """A saved ML program, ready to run: `MilInterpreter(package).run({"image": array})`.

    `function` is which of the program's is run; None: the only one. `spec` is a program's own where the package is a
    pipeline that holds it. Raises `ValueError` where there is none.
    """

    def __init__(
        self, package: Path, compute: Compute = "float32", function: str | None = None, spec: Any = None
    ) -> None:
        from coremltools.converters.mil.frontend.milproto.load import (
            load,
        )
        from coremltools.models.utils import load_spec

        if not package.is_dir():
            raise FileNotFoundError(f"no Core ML package at {package}")
        spec = load_spec(str(package)) if spec is None else spec
        names = set(spec.mlProgram.functions)
        if spec.WhichOneof("Type") != "mlProgram" or (function is None and names != {"main"}):
            raise ValueError(f"{package} is not an ML program with the one function 'main'")
        name = function or "main"
        if name not in names:
            raise ValueError(f"{package} has no function {name!r}, only {', '.join(sorted(names))}")

        # From the file itself: the loader below adds a const op for every default it fills in.
        self.op_types: Counter[str] = Counter(op.type for op in _operations(spec, name))
        unsupported = [
            (op.type, _operation_name(op))
            for op in _operations(spec, name)
            if op.type not in _OPS and op.type not in _CONSTANTS
        ]
        if unsupported:
            raise UnsupportedMilOp(unsupported)

        weights = package / "Data" / "com.apple.CoreML" / "weights"
        program = load(spec, spec.specificationVersion, str(weights)).functions[name]
        self._compute = torch.float64 if compute == "float64" else torch.float32
        self._constants = {
            op.outputs[0]: self._rounded(self._constant(_constant_value(op)), op.outputs[0])
            for op in program.operations
            if op.op_type in _CONSTANTS
        }
        self._operations = [op for op in program.operations if op.op_type not in _CONSTANTS]
        self._inputs = dict(program.inputs)
        self._outputs = list(program.outputs)

        color_spaces = {
            feature.name: feature.type.imageType.ColorSpace.Name(feature.type.imageType.colorSpace)
            for feature in description(spec, function).input
            if feature.type.WhichOneof("Type") == "imageType"
        }
        self.inputs: tuple[MilInput, ...] = tuple(
            MilInput(name, _shape(var), _declared(var), color_spaces.get(name)) for name, var in self._inputs.items()
        )
        self.outputs: tuple[str, ...] = tuple(var.name for var in self._outputs)
        self.classes: tuple[str | int, ...] | None = next(
            (tuple(op.classes.val) for op in self._operations if op.op_type == "classify"), None
        )

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Every output of the program by name, in its declared type.

        A classifier yields its label as a 0-d array and its probabilities as one array in the order
        of `classes`, where Core ML would give a dictionary.
        """
        self._check(inputs)
        values: dict[Any, Any] = dict(self._constants)
        with torch.inference_mode():
            for name, var in self._inputs.items():
                values[var] = self._rounded(torch.from_numpy(np.array(inputs[name])), var)
            for op in self._operations:
                arguments = {name: _lookup(values, getattr(op, name)) for name in op.input_spec.input_types}
                result = _OPS[op.op_type](**arguments)
                results = result if isinstance(result, tuple) else (result,)
                for var, value in zip(op.outputs, results, strict=True):
                    if isinstance(value, Tensor) and not _fits(value.shape, var):
                        raise RuntimeError(
                            f"{op.op_type} ({op.name}) gave shape {tuple(value.shape)}, "
                            f"the program declares {_shape(var)}"
                        )
                    values[var] = self._rounded(value, var)
        return {var.name: self._array(values[var], var) for var in self._outputs}

    def _check(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        expected = {declared.name: declared for declared in self.inputs}
        if set(inputs) != set(expected):
            raise ValueError(f"inputs {sorted(inputs)} given, {sorted(expected)} expected")
        for name, array in inputs.items():
            declared = expected[name]
            if not _fits(array.shape, self._inputs[name]):
                raise ValueError(f"input {name!r} has shape {array.shape}, not {declared.shape}")
            if declared.color_space is not None and not _are_pixels(array):
                raise ValueError(f"image input {name!r} must hold whole numbers in 0..255")

    def _constant(self, value: Any) -> Any:
        """A constant of the file as the op functions take it: tensors, strings, lists of labels."""
        array = np.asarray(getattr(value, "ls", value))  # a MIL list keeps its items in `ls`
        if array.dtype.kind in "US":
            return array.tolist()
        tensor = torch.from_numpy(array.astype(np.int64) if array.dtype.kind in "iu" else array)
        return tensor.to(self._compute) if tensor.is_floating_point() else tensor

    def _rounded(self, value: Any, var: Any) -> Any:
        """`value` as its declared type can hold it, in the type that is computed with."""
        if not isinstance(value, Tensor):
            return value  # a string or class labels
        declared = _declared(var)
        if declared.startswith(("int", "uint")):
            return value.to(torch.int64)
        if declared == "bool":
            return value.to(torch.bool)
        if declared == "fp16" and self._compute is torch.float32:
            value = value.to(torch.float16)
        return value.to(self._compute)

    def _array(self, value: Any, var: Any) -> NDArray[Any]:
        if not isinstance(value, Tensor):
            return np.asarray(value)  # a class label
        array: NDArray[Any] = value.numpy()
        if value.is_floating_point() and self._compute is torch.float64:
            return array
        return array.astype(_NUMPY_TYPES.get(_declared(var), array.dtype))


_NUMPY_TYPES: dict[str, type[np.generic]] = {
    "fp16": np.float16,
    "fp32": np.float32,
    "int8": np.int8,
    "uint8": np.uint8,
    "int16": np.int16,
    "uint16": np.uint16,
    "int32": np.int32,
    "bool": np.bool_,
}


# Reading the program ------------------------------------------------------------------------------


def description(spec: Any, function: str | None) -> Any:
    """What a model says of the inputs and outputs of one of its functions, or of its only one."""
    return spec.description if function is None else {each.name: each for each in spec.description.functions}[function]


def _operations(spec: Any, name: str) -> Iterator[Any]:
    function = spec.mlProgram.functions[name]
    yield from function.block_specializations[function.opset].operations


def _operation_name(operation: Any) -> str:
    if "name" in operation.attributes:
        return str(operation.attributes["name"].immediateValue.tensor.strings.values[0])
    return str(operation.outputs[0].name) if operation.outputs else "unnamed"


# const, and the ops that unpack a compressed constant when the model is loaded.
_CONSTANTS = frozenset(
    {
        "const",
        "constexpr_affine_dequantize",
        "constexpr_blockwise_shift_scale",
        "constexpr_cast",
        "constexpr_lut_to_dense",
        "constexpr_sparse_to_dense",
    }
)


def _constant_value(op: Any) -> Any:
    # Unpacking is a matter of the storage format: there the library's own reading is taken.
    return op.outputs[0].val if op.op_type == "const" else op.materialized_val_inference()


def _declared(var: Any) -> str:
    """The element type that the program declares: "fp16", "fp32", "int32", "bool", "str", "dict"."""
    from coremltools.converters.mil.mil import types

    if types.is_dict(var.sym_type):
        return "dict"
    return str(types.builtin_to_string(var.dtype))


def _shape(var: Any) -> tuple[int | None, ...]:
    return tuple(int(size) if isinstance(size, int | np.integer) else None for size in var.shape)


def _fits(shape: Sequence[int], var: Any) -> bool:
    """Whether `shape` is what the program declares for `var`, flexible dimensions aside."""
    if _declared(var) == "dict":
        return True
    declared = _shape(var)
    return len(shape) == len(declared) and all(
        size in (None, given) for given, size in zip(shape, declared, strict=True)
    )


def _are_pixels(array: NDArray[Any]) -> bool:
    return bool(((array >= 0) & (array <= 255) & (array == np.rint(array))).all())


def _lookup(values: Mapping[Any, Any], argument: Any) -> Any:
    if isinstance(argument, list | tuple):
        return [values[var] for var in argument]
    return None if argument is None else values[argument]


# The ops ------------------------------------------------------------------------------------------
# Parameters are named as in the MIL reference. Every one arrives: as a tensor (also axes and flags,
# constant or computed) or a string; where it is not given, as its default or else as None.


def _positive(axes: Tensor | None, rank: int) -> list[int]:
    """Axes counted from the front; all of them where none are given."""
    return list(range(rank)) if axes is None else [int(a) % rank for a in axes.reshape(-1)]


def _along(vector: Tensor | None, x: Tensor, axes: Sequence[int]) -> Tensor | float:
    """`vector` (or a neutral 1.0) in a shape that broadcasts along `axes` of `x`."""
    if vector is None:
        return 1.0
    return vector.reshape([size if i in axes else 1 for i, size in enumerate(x.shape)])


def _reduction(reduce: Callable[[Tensor, list[int], bool], Tensor]) -> Callable[..., Tensor]:
    return lambda x, axes, keep_dims: reduce(x, _positive(axes, x.ndim), bool(keep_dims))


def _product(x: Tensor, axes: list[int], keep_dims: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep_dims)
    return x


def _padding(
    x: Tensor,
    kernel: Sequence[int],
    strides: list[int],
    pad_type: str,
    pad: Tensor,
    dilations: list[int],
) -> list[int]:
    """Elements before and after each spatial dimension: [before_0, after_0, before_1, ...]."""
    if pad_type == "custom":
        return [int(p) for p in pad]
    if pad_type == "valid":
        return [0] * 2 * len(kernel)
    if pad_type not in ("same", "same_lower"):
        raise ValueError(f"pad_type {pad_type!r} is none of valid, same, same_lower, custom")
    result: list[int] = []
    for size, k, stride, dilation in zip(x.shape[2:], kernel, strides, dilations, strict=True):
        extent = (k - 1) * dilation + 1
        total = max(0, (math.ceil(size / stride) - 1) * stride + extent - size)
        less, more = total // 2, total - total // 2
        result += [less, more] if pad_type == "same" else [more, less]
    return result


def _pad_constant(x: Tensor, pads: Sequence[int], value: float) -> Tensor:
    """`pads` in MIL order, first dimension first; PyTorch wants the last dimension first."""
    pairs = [pads[i : i + 2] for i in range(0, len(pads), 2)]
    return F.pad(x, [p for pair in reversed(pairs) for p in pair], value=value)


def _pad(x: Tensor, pad: Tensor, mode: str, constant_val: Tensor) -> Tensor:
    pads: list[int] = pad.tolist()
    if mode == "constant":
        return _pad_constant(x, pads, float(constant_val))
    first = x.ndim - len(pads) // 2
    for axis, (before, after) in enumerate(zip(pads[::2], pads[1::2], strict=True), first):
        last = x.shape[axis] - 1
        index = torch.arange(-before, last + 1 + after)
        if mode == "reflect":
            index = last - (last - index.abs()).abs()
        elif mode != "replicate":
            raise ValueError(f"pad mode {mode!r} is none of constant, reflect, replicate")
        x = x.index_select(axis, index.clamp(0, last))
    return x


def _conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    strides: Tensor,
    pad_type: str,
    pad: Tensor,
    dilations: Tensor,
    groups: Tensor,
) -> Tensor:
    stride, dilation = strides.tolist(), dilations.tolist()
    pads = _padding(x, weight.shape[2:], stride, pad_type, pad, dilation)
    convolve = (F.conv1d, F.conv2d, F.conv3d)[x.ndim - 3]
    return convolve(_pad_constant(x, pads, 0.0), weight, bias, stride, 0, dilation, int(groups))


def _pool_arguments(
    x: Tensor, kernel_sizes: Tensor, strides: Tensor, pad_type: str, pad: Tensor
) -> tuple[list[int], list[int], list[int]]:
    kernel, stride = kernel_sizes.tolist(), strides.tolist()
    return kernel, stride, _padding(x, kernel, stride, pad_type, pad, [1] * len(kernel))


def _avg_pool(
    x: Tensor,
    kernel_sizes: Tensor,
    strides: Tensor,
    pad_type: str,
    pad: Tensor,
    ceil_mode: Tensor,
    exclude_padding_from_average: Tensor,
) -> Tensor:
    kernel, stride, pads = _pool_arguments(x, kernel_sizes, strides, pad_type, pad)
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[x.ndim - 3]
    if ceil_mode:  # padding is symmetric then, by definition
        counted = not exclude_padding_from_average
        return pool(x, kernel, stride, pads[::2], True, counted)
    average = pool(_pad_constant(x, pads, 0.0), kernel, stride)
    if not exclude_padding_from_average:
        return average
    return average / pool(_pad_constant(torch.ones_like(x), pads, 0.0), kernel, stride)


def _max_pool(
    x: Tensor,
    kernel_sizes: Tensor,
    strides: Tensor,
    pad_type: str,
    pad: Tensor,
    ceil_mode: Tensor,
) -> Tensor:
    kernel, stride, pads = _pool_arguments(x, kernel_sizes, strides, pad_type, pad)
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[x.ndim - 3]
    if ceil_mode:
        return pool(x, kernel, stride, pads[::2], 1, True)
    return pool(_pad_constant(x, pads, -math.inf), kernel, stride)


def _matmul(x: Tensor, y: Tensor, transpose_x: Tensor, transpose_y: Tensor) -> Tensor:
    left = x.mT if transpose_x and x.ndim > 1 else x
    right = y.mT if transpose_y and y.ndim > 1 else y
    return left @ right


def _gelu(x: Tensor, mode: str) -> Tensor:
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    return F.gelu(x, approximate={"EXACT": "none", "TANH_APPROXIMATION": "tanh"}[mode])


def _normalized(x: Tensor, axes: list[int], epsilon: Tensor) -> Tensor:
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    return (x - mean) / torch.sqrt(variance + epsilon)


def _affine(x: Tensor, gamma: Tensor | None, beta: Tensor | None, axes: list[int]) -> Tensor:
    scaled = x * _along(gamma, x, axes)
    return scaled if beta is None else scaled + _along(beta, x, axes)


def _layer_norm(x: Tensor, axes: Tensor, gamma: Tensor | None, beta: Tensor | None, epsilon: Tensor) -> Tensor:
    over = _positive(axes, x.ndim)
    return _affine(_normalized(x, over, epsilon), gamma, beta, over)


def _instance_norm(x: Tensor, gamma: Tensor | None, beta: Tensor | None, epsilon: Tensor) -> Tensor:
    return _affine(_normalized(x, list(range(2, x.ndim)), epsilon), gamma, beta, [1])


def _batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    epsilon: Tensor,
) -> Tensor:
    centred = x - _along(mean, x, [1])
    return _affine(centred / torch.sqrt(_along(variance, x, [1]) + epsilon), gamma, beta, [1])


def _l2_norm(x: Tensor, epsilon: Tensor) -> Tensor:
    return x / torch.sqrt(x.square().sum((-3, -2, -1), keepdim=True) + epsilon)


def _reshape(x: Tensor, shape: Tensor) -> Tensor:
    """A 0 takes the size of the dimension as far from the last one in `x`, or 1 if there is none."""
    sizes: list[int] = shape.tolist()
    for i, size in enumerate(sizes):
        j = i - len(sizes) + x.ndim
        sizes[i] = size if size != 0 else x.shape[j] if j >= 0 else 1
    return x.reshape(sizes)


def _expand_dims(x: Tensor, axes: Tensor) -> Tensor:
    for axis in sorted(_positive(axes, x.ndim + axes.numel())):
        x = x.unsqueeze(axis)
    return x


def _squeeze(x: Tensor, axes: Tensor | None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(_positive(axes, x.ndim))


def _concat(values: list[Tensor], axis: Tensor, interleave: Tensor) -> Tensor:
    if values[0].ndim == 0:
        return torch.stack(values)
    along = int(axis) % values[0].ndim
    if interleave:
        return torch.stack(values, along + 1).flatten(along, along + 1)
    return torch.cat(values, along)


def _split(x: Tensor, num_splits: Tensor | None, split_sizes: Tensor | None, axis: Tensor) -> tuple[Tensor, ...]:
    along = int(axis)
    if split_sizes is not None:
        return torch.split_with_sizes(x, split_sizes.tolist(), along)
    assert num_splits is not None, "split has neither num_splits nor split_sizes"
    return torch.tensor_split(x, int(num_splits), along)  # divisible, by definition


def _slice_by_index(
    x: Tensor,
    begin: Tensor,
    end: Tensor,
    stride: Tensor | None,
    begin_mask: Tensor | None,
    end_mask: Tensor | None,
    squeeze_mask: Tensor | None,
) -> Tensor:
    squeezed = []
    for axis, size in enumerate(x.shape):
        first = None if begin_mask is not None and begin_mask[axis] else int(begin[axis])
        last = None if end_mask is not None and end_mask[axis] else int(end[axis])
        step = 1 if stride is None else int(stride[axis])
        if squeeze_mask is not None and squeeze_mask[axis]:
            squeezed.append(axis)
            taken = [range(size)[first or 0]]
        else:
            taken = list(range(size)[first:last:step])
        if taken != list(range(size)):
            x = x.index_select(axis, torch.tensor(taken, dtype=torch.int64))
    return x.squeeze(squeezed)


def _slice_by_size(x: Tensor, begin: Tensor, size: Tensor) -> Tensor:
    for axis, extent in enumerate(x.shape):
        first = int(begin[axis]) % extent if extent else 0
        length = extent - first if size[axis] == -1 else int(size[axis])
        x = x.narrow(axis, first, length)
    return x


def _from_front(indices: Tensor, size: int) -> Tensor:
    return torch.where(indices < 0, indices + size, indices)


def _take(x: Tensor, indices: Tensor, axis: int, batch_dims: int) -> Tensor:
    if batch_dims:
        rows = zip(x, indices, strict=True)
        return torch.stack([_take(a, i, axis - 1, batch_dims - 1) for a, i in rows])
    shape = x.shape[:axis] + indices.shape + x.shape[axis + 1 :]
    flat = _from_front(indices.reshape(-1), x.shape[axis])
    return x.index_select(axis, flat).reshape(shape)


def _gather(
    x: Tensor,
    indices: Tensor,
    axis: Tensor,
    batch_dims: Tensor | None = None,  # since iOS 16
    validate_indices: Tensor | None = None,  # since iOS 17; indices are always validated here
) -> Tensor:
    return _take(x, indices, int(axis) % x.ndim, 0 if batch_dims is None else int(batch_dims))


def _gather_along_axis(x: Tensor, indices: Tensor, axis: Tensor, validate_indices: Tensor | None = None) -> Tensor:
    return x.gather(int(axis), _from_front(indices, x.shape[int(axis)]))


def _cumsum(x: Tensor, axis: Tensor, exclusive: Tensor, reverse: Tensor) -> Tensor:
    along = int(axis)
    x = x.flip(along) if reverse else x
    total = x.cumsum(along) - x if exclusive else x.cumsum(along)
    return total.flip(along) if reverse else total


def _band_part(x: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    rows, columns = (torch.arange(size) for size in x.shape[-2:])
    below, above = rows[:, None] - columns, columns - rows[:, None]
    return x * (((lower < 0) | (below <= lower)) & ((upper < 0) | (above <= upper)))


def _upsample_nearest(x: Tensor, scale_factor_height: Tensor, scale_factor_width: Tensor) -> Tensor:
    for axis, factor in ((-2, float(scale_factor_height)), (-1, float(scale_factor_width))):
        if factor != int(factor):
            raise ValueError(f"upsample_nearest_neighbor by {factor}; only whole factors are interpreted")
        x = x.repeat_interleave(int(factor), axis)
    return x


def _arg(reduce: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def function(x: Tensor, axis: Tensor, keep_dims: Tensor, output_dtype: str | None = None) -> Tensor:
        return reduce(x, int(axis), bool(keep_dims))  # the declared type says output_dtype

    return function


def _attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value, attn_mask)


def _quantize(
    input: Tensor, scale: Tensor, zero_point: Tensor | None, output_dtype: str, axis: Tensor | None
) -> Tensor:
    steps = torch.round(input / _along_axis(scale, input, axis))  # halves to even
    limits = torch.iinfo({"int8": torch.int8, "uint8": torch.uint8}[output_dtype])
    zero = 0 if zero_point is None else _along_axis(zero_point, input, axis)
    return (steps + zero).clamp(limits.min, limits.max)


def _dequantize(input: Tensor, scale: Tensor, zero_point: Tensor | None, axis: Tensor | None) -> Tensor:
    zero = 0 if zero_point is None else _along_axis(zero_point, input, axis)
    return (input - zero) * _along_axis(scale, input, axis)


def _along_axis(parameter: Tensor, x: Tensor, axis: Tensor | None) -> Tensor | float:
    """A number, or one for each place on an axis of `x`."""
    return parameter if axis is None else _along(parameter, x, _positive(axis, x.ndim))


def _classify(probabilities: Tensor, classes: list[str | int]) -> tuple[str | int, Tensor]:
    flat = probabilities.reshape(-1)
    return classes[int(flat.argmax())], flat


_OPS: dict[str, Callable[..., Any]] = {
    # linear algebra
    "conv": _conv,
    "linear": lambda x, weight, bias: F.linear(x, weight, bias),
    "matmul": _matmul,
    "einsum": lambda values, equation: torch.einsum(equation, *values),
    "scaled_dot_product_attention": _attention,
    # elementwise, two operands
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "real_div": lambda x, y: x / y,
    "floor_div": lambda x, y: torch.floor_divide(x, y),
    "mod": lambda x, y: torch.remainder(x, y),
    "pow": lambda x, y: torch.pow(x, y),
    "maximum": lambda x, y: torch.maximum(x, y),
    "minimum": lambda x, y: torch.minimum(x, y),
    "equal": lambda x, y: x == y,
    "not_equal": lambda x, y: x != y,
    "greater": lambda x, y: x > y,
    "greater_equal": lambda x, y: x >= y,
    "less": lambda x, y: x < y,
    "less_equal": lambda x, y: x <= y,
    "logical_and": lambda x, y: x & y,
    "logical_or": lambda x, y: x | y,
    "select": lambda cond, a, b: torch.where(cond.to(torch.bool), a, b),
    # elementwise, one operand
    "abs": lambda x: x.abs(),
    "ceil": lambda x: x.ceil(),
    "clip": lambda x, alpha, beta: x.clamp(alpha, beta),
    "cos": lambda x: x.cos(),
    "erf": lambda x: x.erf(),
    "exp": lambda x: x.exp(),
    "exp2": lambda x: x.exp2(),
    "floor": lambda x: x.floor(),
    "inverse": lambda x, epsilon: 1 / (x + epsilon),
    "log": lambda x, epsilon: torch.log(x + epsilon),
    "logical_not": lambda x: ~x,
    "round": lambda x: x.round(),
    "rsqrt": lambda x, epsilon: torch.rsqrt(x + epsilon),
    "sign": lambda x: x.sign(),
    "sin": lambda x: x.sin(),
    "sqrt": lambda x: x.sqrt(),
    "square": lambda x: x * x,
    "tanh": lambda x: x.tanh(),
    # activations
    "clamped_relu": lambda x, alpha, beta: torch.minimum(torch.where(x >= 0, x, alpha * x), beta),
    "elu": lambda x, alpha: torch.where(x > 0, x, alpha * x.expm1()),
    "gelu": _gelu,
    "leaky_relu": lambda x, alpha: torch.where(x >= 0, x, alpha * x),
    "linear_activation": lambda x, alpha, beta: alpha * x + beta,
    "prelu": lambda x, alpha: torch.where(x > 0, x, _along(alpha, x, [1]) * x),
    "relu": lambda x: x.relu(),
    "relu6": lambda x: x.clamp(0, 6),
    "scaled_tanh": lambda x, alpha, beta: alpha * torch.tanh(beta * x),
    "sigmoid": lambda x: x.sigmoid(),
    "sigmoid_hard": lambda x, alpha, beta: (alpha * x + beta).clamp(0, 1),
    "silu": lambda x: x * x.sigmoid(),
    "softmax": lambda x, axis: x.softmax(int(axis)),
    "softplus": lambda x: F.softplus(x),
    "softsign": lambda x: x / (1 + x.abs()),
    "thresholded_relu": lambda x, alpha: torch.where(x >= alpha, x, 0.0),
    # normalisation
    "batch_norm": _batch_norm,
    "instance_norm": _instance_norm,
    "l2_norm": _l2_norm,
    "layer_norm": _layer_norm,
    # reduction and pooling
    "avg_pool": _avg_pool,
    "max_pool": _max_pool,
    "reduce_argmax": _arg(torch.argmax),
    "reduce_argmin": _arg(torch.argmin),
    "reduce_l1_norm": _reduction(lambda x, axes, keep: x.abs().sum(axes, keepdim=keep)),
    "reduce_l2_norm": _reduction(lambda x, axes, keep: (x * x).sum(axes, keepdim=keep).sqrt()),
    "reduce_log_sum_exp": _reduction(lambda x, axes, keep: x.logsumexp(axes, keepdim=keep)),
    "reduce_max": _reduction(lambda x, axes, keep: x.amax(axes, keepdim=keep)),
    "reduce_mean": _reduction(lambda x, axes, keep: x.mean(axes, keepdim=keep)),
    "reduce_min": _reduction(lambda x, axes, keep: x.amin(axes, keepdim=keep)),
    "reduce_prod": _reduction(_product),
    "reduce_sum": _reduction(lambda x, axes, keep: x.sum(axes, keepdim=keep)),
    "reduce_sum_square": _reduction(lambda x, axes, keep: (x * x).sum(axes, keepdim=keep)),
    # int8 activations
    "dequantize": _dequantize,
    "quantize": _quantize,
    # shapes and places
    "band_part": _band_part,
    "cast": lambda x, dtype: x,  # every result is brought to its declared type, this one too
    "concat": _concat,
    "cumsum": _cumsum,
    "expand_dims": _expand_dims,
    "fill": lambda shape, value: value.expand(shape.tolist()),
    "gather": _gather,
    "gather_along_axis": _gather_along_axis,
    "identity": lambda x: x,
    "pad": _pad,
    "reshape": _reshape,
    "reverse": lambda x, axes: x.flip(_positive(axes, x.ndim)),
    "shape": lambda x: torch.tensor(x.shape),
    "slice_by_index": _slice_by_index,
    "slice_by_size": _slice_by_size,
    "split": _split,
    "squeeze": _squeeze,
    "stack": lambda values, axis: torch.stack(values, int(axis)),
    "tile": lambda x, reps: x.repeat(reps.tolist()),
    "transpose": lambda x, perm: x.permute(perm.tolist()),
    "upsample_nearest_neighbor": _upsample_nearest,
    # the end of a classifier
    "classify": _classify,
}
