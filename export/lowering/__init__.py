"""Static graph -> the same, each dynamic convolution in the form that its target runs best."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn

from export.layout import Layout
from export.lowering.bank import Bank
from export.lowering.conv import Conv
from export.lowering.matmul import Matmul
from export.lowering.taps import Taps
from export.lowering.twin import Twin
from export.static import DynamicConv, LaidOut, StaticDMF

Form = Callable[[DynamicConv, Layout], nn.Module]
POINTWISE: dict[str, Form] = {"conv": Conv, "matmul": Matmul, "twin": Twin}
DEPTHWISE: dict[str, Form] = {"conv": Conv, "taps": Taps, "bank": Bank, "twin": Twin}
FIXED_BATCH = ("conv",)  # forms that unroll the batch


@dataclass(frozen=True)
class Lowering:
    """A form for pointwise and one for depthwise dynamic convolutions, and why."""

    pointwise: str
    depthwise: str
    reason: str

    def __str__(self) -> str:
        return f"{self.pointwise}/{self.depthwise}"

    @property
    def any_batch(self) -> bool:
        return self.pointwise not in FIXED_BATCH and self.depthwise not in FIXED_BATCH

    @property
    def is_twin(self) -> bool:
        return self.pointwise == "twin"

    @classmethod
    def parse(cls, text: str) -> "Lowering":
        """`pointwise/depthwise`, as `matmul/taps`. Raises `ValueError` with the choices."""
        if text not in NAMES:
            raise ValueError(f"unknown lowering {text!r}; choose from {', '.join(NAMES)}")
        pointwise, depthwise = text.split("/")
        return cls(pointwise, depthwise, "requested")


NAMES = [f"{p}/{d}" for p in POINTWISE for d in DEPTHWISE if (p == "twin") == (d == "twin")]


def lower(graph: StaticDMF, lowering: Lowering, layout: Layout, input_layout: Layout) -> StaticDMF:
    """A new module whose dynamic convolutions have the given forms and whose feature maps have the given layout.

    A convolution that is neither pointwise nor depthwise keeps the `conv` form: no other one is known for it.
    """
    lowered = copy.deepcopy(graph)
    for name, module in list(lowered.named_modules()):
        if isinstance(module, DynamicConv):
            kind: Literal["pointwise", "depthwise"] | None = module.kind
            form = POINTWISE[lowering.pointwise] if kind == "pointwise" else Conv
            if kind == "depthwise":
                form = DEPTHWISE[lowering.depthwise]
            parent, _, child = name.rpartition(".")
            setattr(lowered.get_submodule(parent), child, form(module, layout))
        elif isinstance(module, LaidOut):
            module.layout = layout
    lowered.input_layout = input_layout
    return lowered.eval()
