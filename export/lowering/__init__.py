"""Static graph, or a user's own network -> the same, each dynamic convolution in the form that its target runs best."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from torch import nn

from export.layout import Layout
from export.lowering.bank import Bank
from export.lowering.bc1s import BC1S, to_bc1s
from export.lowering.conv import Conv
from export.lowering.generated import GeneratedConv, Pieces
from export.lowering.matmul import Matmul
from export.lowering.taps import Taps
from export.lowering.twin import Twin
from export.static import LAYOUT, DynamicConv, LaidOut, StaticBackbone

Form = Callable[[DynamicConv, Layout, int], Pieces]
POINTWISE: dict[str, Form] = {"conv": Conv, "matmul": Matmul, "twin": Twin}
DEPTHWISE: dict[str, Form] = {"conv": Conv, "taps": Taps, "bank": Bank, "twin": Twin}
FIXED_BATCH = ("conv",)  # forms that unroll the batch


@dataclass(frozen=True)
class Lowering:
    """A form for pointwise and one for depthwise dynamic convolutions, and why.

    `exceptions` are modules, by name, whose dynamic convolutions have another lowering.
    """

    pointwise: str
    depthwise: str
    reason: str
    exceptions: tuple[tuple[str, "Lowering"], ...] = ()

    def __str__(self) -> str:
        return f"{self.pointwise}/{self.depthwise}"

    def of(self, module: str) -> "Lowering":
        """The lowering of the dynamic convolution of this name."""
        return next((other for name, other in self.exceptions if f"{module}.".startswith(f"{name}.")), self)

    @property
    def any_batch(self) -> bool:
        return all(
            form not in FIXED_BATCH
            for each in (self, *(other for _, other in self.exceptions))
            for form in (each.pointwise, each.depthwise)
        )

    @property
    def is_twin(self) -> bool:
        return self.pointwise == "twin"

    @classmethod
    def parse(cls, text: str) -> "Lowering":
        """`pointwise/depthwise`, as `matmul/taps`. Raises `ValueError` with the choices."""
        if text not in NAMES:
            raise ValueError(f"unknown lowering {text!r}; choose from {', '.join([*NAMES, AUTO])}")
        pointwise, depthwise = text.split("/")
        return cls(pointwise, depthwise, "requested")


AUTO = "auto"  # not a lowering: each part's is chosen by measurement, in `export.tuning`
NAMES = [f"{p}/{d}" for p in POINTWISE for d in DEPTHWISE if (p == "twin") == (d == "twin")]


Graph = TypeVar("Graph", bound=nn.Module)


def lower(
    graph: Graph, lowering: Lowering, layout: Layout = LAYOUT, input_layout: Layout = LAYOUT, equalize: bool = False
) -> Graph:
    """A new module whose dynamic convolutions have the given forms and whose feature maps have the given layout.

    A convolution that is neither pointwise nor depthwise keeps the `conv` form, or is a twin: no other one is known.
    Of a user's network only the dynamic convolutions get the layout; what it takes and gives stays (B, C, H, W).
    `equalize` is for weights that will be stored in few bits.
    """
    lowered = copy.deepcopy(graph)
    for module in lowered.modules():
        if isinstance(module, LaidOut):
            module.lay_out(layout)
    for name, module in list(lowered.named_modules()):
        if isinstance(module, DynamicConv):
            parent, _, child = name.rpartition(".")
            setattr(lowered.get_submodule(parent), child, lower_conv(module, lowering.of(name), layout))
    for module in lowered.modules() if equalize else ():
        if isinstance(module, GeneratedConv):
            module.equalize()
    for module in list(lowered.modules()):
        if isinstance(module, StaticBackbone):
            module.input_layout = input_layout
            if isinstance(layout, BC1S):
                to_bc1s(module)
    return lowered.eval()


def lower_conv(conv: DynamicConv, lowering: Lowering, layout: Layout) -> Pieces:
    pieces = conv.pieces if layout.splits_groups and lowering.pointwise != "conv" else 1
    if lowering.is_twin:
        return Twin(conv, layout, pieces)
    if conv.kind == "pointwise":
        return POINTWISE[lowering.pointwise](conv, layout, pieces)
    if conv.kind == "depthwise":
        return DEPTHWISE[lowering.depthwise](conv, layout, pieces)
    return Conv(conv, layout, 1)
