"""What a delegate refuses, and where that is written."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from export.delegates.op import Op


@dataclass(frozen=True)
class Rule:
    """An operation of these kinds for which `refuses` holds stays outside the delegate."""

    kinds: tuple[str, ...]  # none: any
    refuses: Callable[[Op], bool]
    reason: str
    source: str  # project, version, file, function
    stops: bool = False  # the delegate accepts the operation, then fails to build: nothing at all runs on it

    def applies_to(self, op: Op) -> bool:
        return (not self.kinds or op.kind in self.kinds) and self.refuses(op)


@dataclass(frozen=True)
class Refusal:
    """An operation and the first rule that refuses it."""

    op: Op
    rule: Rule


@dataclass(frozen=True)
class Delegate:
    """Rules, in the order in which they are asked. `takes` are the kinds of operations it knows; None: all."""

    name: str
    rules: tuple[Rule, ...]
    takes: frozenset[str] | None = None
    takes_source: str = ""
    float32: Rule | None = None  # why it refuses a float32 program as a whole, if it does
    note: str = ""
    checked: str = "not run here"  # what the rules have been compared with

    def refusals(self, ops: Iterable[Op]) -> list[Refusal]:
        """The operations that stay outside, each with the reason."""
        found = []
        for op in ops:
            if self.takes is not None and op.kind not in self.takes:
                found.append(Refusal(op, self._unknown(op.kind)))
            elif rule := next((rule for rule in self.rules if rule.applies_to(op)), None):
                found.append(Refusal(op, rule))
        return found

    def _unknown(self, kind: str) -> Rule:
        return Rule((kind,), _any, f"{self.name} has no {kind}", self.takes_source)


def _any(_: Op) -> bool:
    return True
