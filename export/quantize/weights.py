"""The weights of a lowered graph, and what each is to be stored in; recognised in an artifact by their values.

Converters rename, transpose and reshape constants, but keep their values: so a constant of the artifact is the weight
that has the same values in any order.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from export.lowering.bank import Bank
from export.precision import Exceptions, Precision, precision_of
from export.scopes import renamed
from export.static import Conv


@dataclass(frozen=True)
class Weight:
    """`module` is the model's whose weight it is, by its PyTorch name."""

    module: str
    precision: Precision
    kind: Literal["convolution", "linear", "generation"]

    @property
    def generates(self) -> bool:
        """Kernels, by `Equalized`: one scale is enough. The others get one per output channel."""
        return self.kind == "generation"


@dataclass(frozen=True)
class Left:
    """A module that got more bits than it was to get, and why."""

    module: str
    precision: Precision
    reason: str


class Weights:
    """Of a lowered graph whose weights are stored in `precision`, but those in the modules of `exceptions`."""

    def __init__(self, graph: nn.Module, precision: Precision, exceptions: Exceptions) -> None:
        self._by_values: dict[str, Weight] = {}
        for name, module in graph.named_modules():
            path = renamed(name)
            weight = Weight(path, precision_of(path, precision, exceptions), kind_of(name, module))
            for tensor in constants(module):
                values = tensor.detach().float().numpy()
                for each in (values, *values) if values.ndim == 5 else (values,):  # a bank becomes a filter per kernel
                    for stored in (each, each.astype(np.float16)):  # Core ML rounds before they are looked for
                        self._by_values.setdefault(_key(stored), weight)
        self.all = tuple(dict.fromkeys(self._by_values.values()))

    def find(self, values: NDArray[Any]) -> Weight | None:
        """Whose values these are, float32 or fp16, in any order and shape."""
        return self._by_values.get(_key(values))


def kind_of(name: str, module: nn.Module) -> Literal["convolution", "linear", "generation"]:
    """What the weights of a module of a lowered graph do."""
    if not isinstance(module, nn.Linear):
        return "convolution"
    return "generation" if name.endswith(".linear") else "linear"


def constants(module: nn.Module) -> list[Any]:
    """The weights that a module of a lowered graph itself has."""
    if isinstance(module, Bank):
        return [*module.bank, *module.agnostic]
    return [module.weight] if isinstance(module, nn.Linear | Conv) else []


def _key(values: NDArray[Any]) -> str:
    return hashlib.sha256(np.sort(values, axis=None).tobytes()).hexdigest()
