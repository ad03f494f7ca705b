"""Bits for each module under a budget: the smallest network that is still as good, or the best that is still as small.

Mean squares of what modules do to the logits are taken to add up, as independent errors do. Fewer bits for a module
are steps, each with a price: damage per byte saved. Cheapest first, as many as a budget allows are at most one step
from the optimum: the problem is a knapsack of multiple choice, and they solve its relaxation.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, fsum

from export.precision import Precision
from export.quantize.sensitivity import Damage
from runtime.errors import UsageError

Assignment = Mapping[str, Precision]
Costs = Mapping[str, Mapping[Precision, Damage]]  # of each module in each precision


@dataclass(frozen=True)
class Budget:
    """The largest size of an artifact in MB, or the least PSNR of its logits in dB; one of the two."""

    megabytes: float | None = None
    psnr_db: float | None = None

    def __str__(self) -> str:
        return f"{self.megabytes:g}mb" if self.megabytes is not None else f"{self.psnr_db:g}db"


@dataclass(frozen=True)
class Step:
    """From one precision of a module to another that saves more."""

    module: str
    before: Precision
    after: Precision
    price: float  # damage per byte saved


def assign(
    damages: Mapping[Precision, Sequence[Damage]],
    fixed_bytes: int,
    *,
    budget_bytes: int | None = None,
    min_psnr_db: float | None = None,
) -> Assignment:
    """Each module's precision: fp32, or one that it has a damage for (fp16 and w8, of the same modules and images).

    `fixed_bytes` is what a file holds besides these weights. Raises `UsageError` if there is not exactly one budget, or
    for a size that can't be reached.
    """
    costs = _by_module(damages)
    steps = sorted((step for module in costs for step in _steps(module, costs[module])), key=lambda step: step.price)
    chosen: Assignment = dict.fromkeys(costs, "fp32")
    if budget_bytes is not None and min_psnr_db is None:
        chosen = {**chosen, **{step.module: step.after for step in steps}}
        smallest = fixed_bytes + _bytes(costs, chosen)
        if smallest > budget_bytes:
            raise UsageError(
                f"a budget of {budget_bytes / 1e6:g} MB is too small: with the fewest bits everywhere it takes "
                f"{ceil(smallest / 1e4) / 100:.2f} MB; give that or more"
            )
        taken_back = [(step.module, step.before) for step in reversed(steps)]
        return _greedy(costs, chosen, taken_back, _bytes, budget_bytes - fixed_bytes)
    if min_psnr_db is not None and budget_bytes is None:
        peak = damages["fp16"][0].peak
        taken = [(step.module, step.after) for step in steps]
        return _greedy(costs, chosen, taken, _mean_square, peak**2 / 10 ** (min_psnr_db / 10))
    raise UsageError("give one budget, either a size or an accuracy")


def predicted(damages: Mapping[Precision, Sequence[Damage]], assignment: Assignment) -> tuple[int, float]:
    """Bytes of all weights, and the mean square of the change of the logits."""
    costs = _by_module(damages)
    return _bytes(costs, assignment), _mean_square(costs, assignment)


def _greedy(
    costs: Costs,
    chosen: Assignment,
    changes: Iterable[tuple[str, Precision]],
    cost: Callable[[Costs, Assignment], float],
    limit: float,
) -> Assignment:
    """The changes made one after the other, each if the cost stays within the limit."""
    for module, precision in changes:
        changed = {**chosen, module: precision}
        if cost(costs, changed) <= limit:
            chosen = changed
    return chosen


def _steps(module: str, costs: Mapping[Precision, Damage]) -> Iterator[Step]:
    """From fp32 on, always the cheapest one: so their prices rise, and a precision that is not worth it is left out."""
    at: Precision = "fp32"
    while onward := [
        Step(module, at, to, (cost.mean_square - costs[at].mean_square) / (cost.saved_bytes - costs[at].saved_bytes))
        for to, cost in costs.items()
        if cost.saved_bytes > costs[at].saved_bytes
    ]:
        step = min(onward, key=lambda each: each.price)
        yield step
        at = step.after


def _by_module(damages: Mapping[Precision, Sequence[Damage]]) -> Costs:
    costs: dict[str, dict[Precision, Damage]] = {}
    for precision, each in ((precision, each) for precision, rows in damages.items() for each in rows):
        of_module = costs.setdefault(each.module, {"fp32": replace(each, saved_bytes=0, mean_square=0.0)})
        of_module[precision] = each
    return costs


def _bytes(costs: Costs, assignment: Assignment) -> int:
    return sum(
        4 * costs[module][precision].weights - costs[module][precision].saved_bytes
        for module, precision in assignment.items()
    )


def _mean_square(costs: Costs, assignment: Assignment) -> float:
    return fsum(costs[module][precision].mean_square for module, precision in assignment.items())
