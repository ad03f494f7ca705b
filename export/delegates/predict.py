"""The operations that a converter will write, from one run of the lowered graph without data (on the meta device).

Every call of a torch function is seen with the module that made it. What the converters make of it is modelled as far
as the rules of the delegates ask about it for the networks of this project: which operands are constants of the file,
which shapes they have, what becomes of a product. Functions that these do not use are passed over. Whether the model is
right is what the comparison with the artifact shows.
"""

import copy
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from export.delegates.op import Op, Value

SAME: dict[str, dict[str, str]] = {  # functions that become one operation with the same operands
    "tflite": {
        "gelu": "GELU",
        "hardswish": "HARD_SWISH",
        "sigmoid": "LOGISTIC",
        "softmax": "SOFTMAX",
        "sqrt": "SQRT",
        "rsqrt": "RSQRT",
        "mean": "MEAN",
        "sum": "SUM",
        "cat": "CONCATENATION",
        "pad": "PAD",
        "interpolate": "RESIZE_NEAREST_NEIGHBOR",  # the only mode that a graph of ours has
    },
    "coreml": {"gelu": "gelu", "softmax": "softmax", "matmul": "matmul", "linear": "linear", "cat": "concat"},
    "onnx": {},
}
BINARY = {"add": "ADD", "sub": "SUB", "mul": "MUL", "div": "DIV", "truediv": "DIV"}


@torch.no_grad()
def predict(graph: nn.Module, shape: Sequence[int], format: str) -> list[Op]:
    """The operations of an artifact of this format, for an input of this shape. `graph` is left as it is."""
    module = copy.deepcopy(graph).to("meta").eval()
    recorder = _Recorder(format)
    for name, child in module.named_modules():
        child.register_forward_pre_hook(recorder.enter(name))
        child.register_forward_hook(recorder.leave)
    image = torch.zeros(tuple(shape), device="meta")
    recorder.computed.add(image)
    with recorder:
        module(image)
    return recorder.ops


class _Recorder(TorchFunctionMode):
    """Sees every torch function. A tensor is computed if it depends on the input; others are constants."""

    def __init__(self, format: str) -> None:
        super().__init__()
        self.format, self.ops, self.modules = format, list[Op](), list[str]()
        self.computed = _Tensors()
        self.transposed = _Tensors()  # in their last two dimensions
        self.expanded = _Tensors()
        self.matrices = _Tensors()  # that the file holds in two dimensions
        self.parts: set[tuple[int, str, int]] = set()

    def enter(self, name: str) -> Callable[[nn.Module, Any], None]:
        return lambda _module, _inputs: self.modules.append(name.removeprefix("network."))

    def leave(self, _module: nn.Module, _inputs: Any, _outputs: Any) -> None:
        self.modules.pop()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        inputs = _tensors([*args, *kwargs.values()])
        outputs = _tensors([result])
        if outputs and any(each in self.computed for each in inputs):
            for each in outputs:
                self.computed.add(each)
            self.record(getattr(func, "__name__", ""), args, kwargs, inputs, outputs)
        return result

    def record(self, name: str, args: Any, kwargs: Any, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        """The operations that one call becomes, if any."""
        name = name.removeprefix("__r").removeprefix("__").removesuffix("__")
        if name == "conv2d":
            return self.convolution(*args, **kwargs, result=outputs[0])
        if self.format != "tflite":
            if name in SAME[self.format]:
                self.add(SAME[self.format][name], inputs, outputs)
            return None
        if name in BINARY:
            return self.arithmetic(BINARY[name], inputs, outputs[0])
        for each in inputs:
            if each in self.expanded:  # whatever is not arithmetic needs the copies
                self.add("BROADCAST_TO", [each], [each])
                self.expanded.remove(each)
        if name == "cat" and len(inputs) == 1:
            return None
        if name in SAME["tflite"]:
            return self.add(SAME["tflite"][name], inputs, outputs)
        if name == "linear":
            return self.add("FULLY_CONNECTED", inputs, outputs)
        if name == "matmul":
            return self.product(inputs[0], inputs[1], outputs)
        if name in ("transpose", "permute", "get"):  # .T, .mT and .shape are getters
            return self.transposition(inputs[0], outputs[0])
        if name in ("getitem", "chunk", "split", "narrow"):
            return self.slices(args, inputs[0], outputs)
        if name in ("reshape", "view", "flatten", "unflatten", "unsqueeze", "squeeze"):
            return self.add("RESHAPE", inputs, outputs)
        if name == "expand" and outputs[0].numel() > inputs[0].numel():
            self.expanded.add(outputs[0])
        return None

    def convolution(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        *,
        result: Tensor,
    ) -> None:
        """TFLite's is NHWC, has a kind of its own for depthwise ones, and always a bias; a computed one is added."""
        x_shape, y_shape, shape = tuple(x.shape), tuple(result.shape), tuple(weight.shape)
        kind = "conv"
        if self.format == "tflite":
            x_shape, y_shape = ((n, h, w, c) for n, c, h, w in (x_shape, y_shape))
            depthwise = groups > 1 and shape[1] == 1
            kind = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
            out, inner, *kernel = shape
            shape = (1, *kernel, out) if depthwise else (out, *kernel, inner)
        operands = (
            Value(x_shape, x not in self.computed),
            Value(shape, weight not in self.computed),
            Value((y_shape[-1 if self.format == "tflite" else 1],), constant=True),
        )
        largest = max(dilation) if isinstance(dilation, list | tuple) else dilation
        self.append(kind, operands, (Value(y_shape),), groups=groups, dilation=largest)
        if bias is not None and bias in self.computed and self.format == "tflite":
            self.append("ADD", (Value(y_shape), Value(tuple(bias.shape))), (Value(y_shape),))

    def product(self, a: Tensor, b: Tensor, outputs: list[Tensor]) -> None:
        """A product of single matrices is written without the other dimensions, which a RESHAPE gives back later. If
        the second one is a transpose or a constant it becomes the weights (out, in) of a FULLY_CONNECTED.
        """
        left, right = self.value(a), self.value(b)
        kind = "BATCH_MATMUL"
        if prod(a.shape[:-2]) == prod(b.shape[:-2]) == 1:
            left, right = (Value(value.shape[-2:], value.constant) for value in (left, right))
            self.matrices.add(outputs[0])
            if b in self.transposed or right.constant:
                kind, right = "FULLY_CONNECTED", Value(right.shape[::-1], right.constant)
        self.append(kind, (left, right), (self.value(outputs[0]),))

    def arithmetic(self, kind: str, inputs: list[Tensor], result: Tensor) -> None:
        """A constant that is no scalar gets leading ones, up to the rank of the result."""
        operands = []
        for each in inputs:
            value = self.value(each)
            if value.constant and value.shape:
                value = Value((1,) * (result.dim() - each.dim()) + value.shape, constant=True)
            operands.append(value)
        operands += [Value((), constant=True)] * (2 - len(operands))
        self.append(kind, tuple(operands), (self.value(result),))

    def transposition(self, x: Tensor, y: Tensor) -> None:
        if x.dim() > 1 and y.shape == torch.Size((*x.shape[:-2], x.shape[-1], x.shape[-2])):
            self.transposed.add(y)
        self.add("TRANSPOSE", [x], [y])

    def slices(self, args: Any, x: Tensor, outputs: list[Tensor]) -> None:
        """Once for each part of a tensor, however often it is taken: converters join what is the same."""
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        step = max((each.step or 1 for each in index if isinstance(each, slice)), default=1)
        for i, y in enumerate(outputs):
            part = (id(x), repr(args[1:]), i)
            if y.numel() < x.numel() and part not in self.parts:
                self.parts.add(part)
                self.append("STRIDED_SLICE" if step > 1 else "SLICE", (self.value(x),), (self.value(y),), step=step)

    def value(self, tensor: Tensor) -> Value:
        shape = tuple(tensor.shape)
        return Value(shape[-2:] if tensor in self.matrices else shape, tensor not in self.computed)

    def add(self, kind: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        self.append(kind, tuple(map(self.value, inputs)), tuple(map(self.value, outputs)))

    def append(self, kind: str, inputs: tuple[Value, ...], outputs: tuple[Value, ...], **attributes: Any) -> None:
        scope = ".".join(name.rpartition(".")[2] for name in self.modules if name)
        self.ops.append(Op(kind, self.modules[-1], scope, inputs, outputs, **attributes))


class _Tensors:
    """Tensors by identity. They are kept, for an identity is used again."""

    def __init__(self) -> None:
        self.by_id: dict[int, Tensor] = {}

    def add(self, tensor: Tensor) -> None:
        self.by_id[id(tensor)] = tensor

    def remove(self, tensor: Tensor) -> None:
        del self.by_id[id(tensor)]

    def __contains__(self, tensor: Tensor) -> bool:
        return id(tensor) in self.by_id


def _tensors(values: Any) -> list[Tensor]:
    """Those among the arguments or results, also in lists."""
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(value)
    return found
