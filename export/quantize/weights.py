"""The weights of a lowered graph, and what each is to be stored in; recognised in an artifact by their values.

Converters rename, transpose and reshape constants, but keep their values: so a constant of the artifact is the weight
that has the same values in any order.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from export.lowering.bank import Bank
from export.precision import Precision
from export.scopes import is_within, renamed
from export.static import Conv


@dataclass(frozen=True)
class Weight:
    """`module` is the model's whose weight it is, by its PyTorch name.

    One scale is enough for a weight that `generates` kernels; the others get one per output channel.
    """

    module: str
    precision: Precision
    generates: bool


@dataclass(frozen=True)
class Left:
    """A module that got more bits than it was to get, and why."""

    module: str
    precision: Precision
    reason: str


class Weights:
    """Of a lowered graph whose weights are stored in `precision`, but those in the modules of `exceptions`."""

    def __init__(self, graph: nn.Module, precision: Precision, exceptions: Mapping[str, Precision]) -> None:
        self._by_values: dict[str, Weight] = {}
        for name, module in graph.named_modules():
            path = renamed(name)
            within = [each for each in exceptions if is_within(path, [each])]
            inner = max(within, key=len, default=None)  # the innermost decides
            weight = Weight(path, precision if inner is None else exceptions[inner], name.endswith(".linear"))
            for tensor in constants(module):
                values = tensor.detach().float().numpy()
                for each in (values, values.astype(np.float16)):  # Core ML's have been rounded when they are looked for
                    self._by_values.setdefault(_key(each), weight)
        self.all = tuple(dict.fromkeys(self._by_values.values()))

    def find(self, values: NDArray[Any]) -> Weight | None:
        """Whose values these are, float32 or fp16, in any order and shape."""
        return self._by_values.get(_key(values))


def constants(module: nn.Module) -> list[Any]:
    """The weights that a module of a lowered graph itself has."""
    if isinstance(module, Bank):
        return [*module.bank, *module.agnostic]
    return [module.weight] if isinstance(module, nn.Linear | Conv) else []


def _key(values: NDArray[Any]) -> str:
    return hashlib.sha256(np.sort(values, axis=None).tobytes()).hexdigest()


