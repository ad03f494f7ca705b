"""Which modules fp16 can't hold: the range of every value, measured before anything is rounded.

Audited is the program that is converted, not the eager model: what a device computes is folded, and its values are
others. It is run in float32, one image at a time, and each operation is charged to the module of the model it computes.

- *overflows*: what a module reads or writes comes near fp16's largest number, 65504 (more than half of it).
- *vanishes*: what it reads or writes lies below fp16's smallest, 6e-8, and matters. Every network has such values, and
  most of them are noise (attention to what is not attended to). Hence the test is the outputs: setting those of one
  tensor to zero moves one by more than a thousandth of the largest.
- *may overflow*: a sum that a norm forms inside one operation is beyond it. Whether a device adds up in fp16 is not
  known here, so this is a warning. Core ML's group norm is several operations, whose squares are stored: they overflow.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from operator import getitem
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.fx import Interpreter, Node

from export.scopes import is_within, pytorch_name
from runtime.errors import ParityError

LARGEST, SMALLEST = 65504.0, 2.0**-24  # of fp16
APPROACHING = LARGEST / 2
NOTICEABLE = 1e-3  # of the largest value of an image's output
HEADER = ("module", "largest", "operation", "smallest", "summed", "flushed", "verdict")


@dataclass(frozen=True)
class Range:
    """One module over all images; magnitudes."""

    module: str
    largest: float  # of all that it reads and writes, weights too
    operation: str  # that reads or writes the largest, as torch names it
    smallest: float  # root mean square of the tensor where that is least
    summed: float  # the largest sum of squares that a norm forms inside, 0 without a norm
    flushed: float  # how far an output moves, of the largest, if its values below 6e-8 are 0; where that was measured
    verdict: Literal["fits", "may overflow", "overflows", "vanishes"]


@torch.no_grad()
def audit(graph: nn.Module, images: Tensor) -> list[Range]:
    """The modules of a lowered graph in the order of execution, for normalised images (N, 3, H, W)."""
    program = torch.export.export(graph.eval(), (images[:1],)).module()
    recorder = _Recorder(program)
    outputs = [_several(recorder.run(image)) for image in images.split(1)]
    flushed = _flushed(program, images, outputs, recorder.candidates)
    rows: dict[str, list[Node]] = {}
    for node in program.graph.nodes:
        if node.op == "call_function" and node in recorder.largest:
            rows.setdefault(pytorch_name(node), []).append(node)
    return [_range(name, nodes, recorder, flushed) for name, nodes in rows.items()]


def refuse(ranges: Sequence[Range], keep_fp32: Collection[str] = ()) -> None:
    """Raises `ParityError` for the modules that fp16 can't hold, other than those that stay in float32."""
    unfit = [
        each for each in ranges if each.verdict in ("overflows", "vanishes") and not is_within(each.module, keep_fp32)
    ]
    if unfit:
        named = ", ".join(f"{each.module} {each.verdict} ({_why(each)})" for each in unfit)
        options = " ".join(f"--keep-fp32 {each.module}" for each in unfit)
        raise ParityError(f"fp16 can't hold {named}; use fp32, or {options}")


def text(ranges: Sequence[Range]) -> str:
    """A table, one module a line."""
    rows = [HEADER]
    for each in ranges:
        numbers = (f"{each.smallest:.1e}", f"{each.summed:.3g}" if each.summed else "-", f"{each.flushed:.1e}")
        rows.append((each.module, f"{each.largest:.3g}", each.operation, *numbers, each.verdict))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def _why(each: Range) -> str:
    if each.verdict == "overflows":
        return f"{each.largest:.3g} in {each.operation}, of at most {LARGEST:.0f}"
    return f"without its values below 6e-8 the outputs move by {each.flushed:.1%}"


def _range(name: str, nodes: list[Node], recorder: "_Recorder", flushed: dict[Node, float]) -> Range:
    values = [(value, node) for node in nodes for value in (node, *node.all_input_nodes) if value in recorder.largest]
    largest, node = max(((recorder.largest[value], node) for value, node in values), key=lambda pair: pair[0])
    squares, squaring = max(((recorder.squares.get(node, 0.0), node) for node in nodes), key=lambda pair: pair[0])
    if squares > largest:
        largest, node = squares, squaring
    summed = max(recorder.summed.get(node, 0.0) for node in nodes)
    moved = max(flushed.get(_source(value), 0.0) for value, _ in values)
    fits: Literal["fits", "may overflow"] = "may overflow" if summed > APPROACHING else "fits"
    return Range(
        name,
        largest,
        _operation(node),
        min(recorder.smallest[value] for value, _ in values),
        summed,
        moved,
        "overflows" if largest > APPROACHING else "vanishes" if moved > NOTICEABLE else fits,
    )


def _flushed(
    program: torch.fx.GraphModule, images: Tensor, outputs: list[tuple[Tensor, ...]], candidates: Collection[Node]
) -> dict[Node, float]:
    """How far an output moves, of the largest, if the values below fp16's smallest of one node are 0.

    Most often nothing moves though all of them are: then that is all there is to measure.
    """

    def moved(nodes: Collection[Node], image: Tensor, expected: tuple[Tensor, ...]) -> float:
        found = _several(_Flushing(program, nodes).run(image))
        changes = [(a - b).abs().max() / b.abs().max() for a, b in zip(found, expected, strict=True)]
        return max(float(change.nan_to_num(torch.inf)) for change in changes)

    moving = [each for each in zip(images.split(1), outputs, strict=True) if moved(candidates, *each) > NOTICEABLE]
    return {node: max(moved([node], *each) for each in moving) for node in candidates if moving}


def _several(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


class _Recorder(Interpreter):
    """Runs the program, and keeps what there is to know of each node's values over all runs."""

    def __init__(self, program: torch.fx.GraphModule) -> None:
        super().__init__(program)
        self.largest: dict[Node, float] = {}
        self.smallest: dict[Node, float] = {}
        self.squares: dict[Node, float] = {}  # stored by what the node becomes
        self.summed: dict[Node, float] = {}  # inside what the node becomes
        self.candidates: dict[Node, None] = {}  # where something that is not noise lies below fp16's smallest

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor) and result.is_floating_point() and n.op != "output":
            self.record(n, result)
        return result

    def record(self, node: Node, result: Tensor) -> None:
        magnitude = result.abs().nan_to_num(torch.inf)
        _keep(self.largest, node, max, float(magnitude.max()))
        if magnitude.any():
            _keep(self.smallest, node, min, float(torch.linalg.vector_norm(magnitude)) / magnitude.numel() ** 0.5)
        else:
            self.smallest.setdefault(node, torch.inf)
        if _source(node) is node and _loses(magnitude):
            self.candidates[node] = None
        if squares := SQUARES.get(_operation(node)):
            stored, inside = squares(self.env[node.all_input_nodes[0]])
            _keep(self.squares, node, max, stored)
            _keep(self.summed, node, max, inside)


class _Flushing(Interpreter):
    """Runs the program with the values below fp16's smallest of some nodes set to 0."""

    def __init__(self, program: torch.fx.GraphModule, nodes: Collection[Node]) -> None:
        super().__init__(program)
        self.nodes = nodes

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        return result.where(result.abs() >= SMALLEST, 0) if n in self.nodes else result


def _loses(magnitude: Tensor) -> bool:
    """Whether a thousandth of some slice of a tensor, by its root mean square, lies below fp16's smallest."""
    energy = magnitude.square()
    lost = energy.where(magnitude < SMALLEST, 0)
    if not lost.any():
        return False
    axes = [[axis for axis in range(energy.dim()) if axis != kept] for kept in range(energy.dim())]
    return any(bool((lost.sum(each) > NOTICEABLE**2 * energy.sum(each)).any()) for each in axes)


def _group_norm(x: Tensor) -> tuple[float, float]:
    """Of one group. Core ML gets operations for it, of which one squares."""
    return float((x - x.mean()).square().max()), 0.0


def _layer_norm(x: Tensor) -> tuple[float, float]:
    return 0.0, float((x - x.mean(-1, keepdim=True)).square().sum(-1).max())


def _vector_norm(x: Tensor) -> tuple[float, float]:
    return 0.0, float(x.square().sum((-2, -1)).max())


SQUARES: dict[str, Callable[[Tensor], tuple[float, float]]] = {
    "group_norm": _group_norm,
    "layer_norm": _layer_norm,
    "linalg_vector_norm": _vector_norm,
}


def _operation(node: Node) -> str:
    """As torch names it; a parameter's is its own name."""
    return str(getattr(node.target, "__name__", node.target)).partition(".")[0]


def _source(node: Node) -> Node:
    """The node whose values a view shows."""
    while node.target is getitem or getattr(node.target, "is_view", False):
        node = node.all_input_nodes[0]
    return node


def _keep(figures: dict[Node, float], node: Node, better: Callable[[float, float], float], figure: float) -> None:
    figures[node] = better(figures.get(node, figure), figure)
