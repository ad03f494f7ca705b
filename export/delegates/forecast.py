"""What an export would do and what would fall off, before it is done; and afterwards, whether that came true."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import nn

from export.delegates import DELEGATES
from export.delegates.artifact import Found, differences, operations
from export.delegates.op import Op
from export.delegates.predict import predict
from export.delegates.rule import Delegate, Refusal, Rule
from export.detection.mask_rcnn import StaticMaskRCNN
from export.layout import NCHW, NHWC, Layout
from export.lowering import NAMES, Lowering, lower
from export.plan import Plan, input_spec
from export.precision import precision_of
from export.scopes import renamed
from runtime.partitions import partitions

PROGRAM = Op("program", "the whole network", "", (), ())


@dataclass(frozen=True)
class Row:
    """So many operations of one kind and module, refused for one reason."""

    module: str
    operation: str
    count: int
    rule: Rule


@dataclass(frozen=True)
class Forecast:
    """A plan, and the operations of its artifact that the target's delegate will refuse."""

    plan: Plan
    delegate: Delegate
    refusals: tuple[Refusal, ...]
    avoided_by: Mapping[Rule, tuple[str, ...]] = field(default_factory=dict)  # the lowerings to which a rule is nothing

    @property
    def rows(self) -> list[Row]:
        """In the order of the graph."""
        counts = Counter((each.op.module or "the network", each.op.kind, each.rule) for each in self.refusals)
        return [Row(module, kind, count, rule) for (module, kind, rule), count in counts.items()]

    @property
    def summary(self) -> str:
        if not self.refusals:
            return f"{self.delegate.name} refuses nothing"
        if any(refusal.rule.stops for refusal in self.refusals):
            return f"nothing will run on {self.delegate.name}"
        return f"{self.delegate.name} refuses {len(self.refusals)} operations"

    def to_json(self) -> dict[str, object]:
        plan = self.plan
        return {
            "package": plan.name,
            "model": plan.variant,
            "format": plan.converter.format,
            "converter": plan.converter.name,
            "precision": plan.precision,
            "batch": plan.batch,
            "input_layout": plan.input_layout,
            "target": plan.target.name,
            "lowering": str(plan.lowering),
            "reason": plan.lowering.reason,
            "delegate": self.delegate.name,
            "checked": self.delegate.checked,
            "note": self.delegate.note,
            "falls_off": [
                {
                    "module": row.module,
                    "operation": row.operation,
                    "count": row.count,
                    "rule": row.rule.reason,
                    "source": row.rule.source,
                    "avoided_by_lowerings": list(self.avoided_by.get(row.rule, ())),
                    "stops_everything": row.rule.stops,
                }
                for row in self.rows
            ],
        }


@dataclass(frozen=True)
class Outcome:
    """What the artifact shows. `partitions` is None where no runtime here could tell."""

    operations: int
    outside: int
    partitions: int | None
    stopped: str  # why nothing at all runs on the delegate, if that is so
    unforeseen: tuple[str, ...]  # what differs from the forecast

    def describe(self, delegate: Delegate) -> str:
        """One line."""
        text = f"{delegate.name}: "
        if self.stopped:
            text += f"nothing runs on it ({self.stopped}); besides, "
        text += f"{self.outside} of {self.operations} operations stay outside"
        if self.partitions is None:
            text += ", by its rules (not run here)"
        else:
            text += f", in {self.partitions} partition{'' if self.partitions == 1 else 's'}"
        return text + (f"; not as predicted: {'; '.join(self.unforeseen)}" if self.unforeseen else ", as predicted")


def forecast(plan: Plan, graph: nn.Module, size: tuple[int, int]) -> Forecast:
    """Of a static graph, not lowered yet. Nothing is computed or converted; it takes a second or two."""
    layouts: dict[str, Layout] = {"NCHW": NCHW(), "NHWC": NHWC()}
    layout = layouts[plan.input_layout]
    if isinstance(graph, StaticMaskRCNN):  # what is behind its backbone computes as much as there are boxes
        graph = graph.backbone
    lowered = lower(graph, plan.lowering, plan.layout, layout, equalize=plan.is_quantized)
    batch, *rest = input_spec(plan, size).shape
    ops = predict(lowered, (abs(batch), *rest), plan.converter.format)
    if plan.precision == "w8a8":
        ops = [replace(op, int8=is_table(op, plan)) for op in ops]
    delegate = DELEGATES[plan.target.name]
    whole = [Refusal(PROGRAM, delegate.float32)] if delegate.float32 and plan.precision == "fp32" else []
    return Forecast(plan, delegate, (*whole, *delegate.refusals(ops)))


def is_table(op: Op, plan: Plan) -> bool:
    """Whether it is a GELU behind a convolution, which `export.quantize.tflite` makes int8."""
    kept = precision_of(renamed(op.module), "w8a8", plan.exceptions) != "w8a8"
    return op.kind == "GELU" and "former" not in op.module and not kept


def with_alternatives(expected: Forecast, graph: nn.Module, size: tuple[int, int]) -> Forecast:
    """The same, with the lowerings that avoid each rule: those in whose own forecast it has nothing to refuse."""
    plan, avoided_by = expected.plan, {refusal.rule: list[str]() for refusal in expected.refusals}
    for name in NAMES if expected.refusals else ():
        other = Lowering.parse(name)
        convertible = other.pointwise in plan.converter.pointwise and other.depthwise in plan.converter.depthwise
        if other.is_twin or not convertible or (plan.batch == -1 and not other.any_batch):
            continue
        refused = {each.rule for each in forecast(replace(plan, lowering=other), graph, size).refusals}
        for rule in avoided_by.keys() - refused:
            avoided_by[rule].append(name)
    return replace(expected, avoided_by={rule: tuple(names) for rule, names in avoided_by.items()})


def outcome(expected: Forecast, artifact: Path) -> Outcome | None:
    """Of the artifact that was made by the plan of this forecast; None for a format that is not looked into.

    The default delegate of LiteRT is asked itself. For others their rules are asked about the file's operations.
    """
    delegate, format = expected.delegate, expected.plan.converter.format
    predicted = [refusal for refusal in expected.refusals if refusal.op != PROGRAM]
    stopped = next((refusal.rule.reason for refusal in expected.refusals if refusal.rule.stops), "")
    found: list[Found]
    if expected.plan.target.name == "litert-cpu":
        parts = partitions(artifact)
        found, total, count = list(parts.outside), parts.operators, parts.count
        return Outcome(total, len(found), count, stopped, tuple(differences(predicted, found)))
    ops = operations(format, artifact)
    if not ops:
        return None
    found = [refusal.op for refusal in delegate.refusals(ops)]
    return Outcome(len(ops), len(found), None, stopped, tuple(differences(predicted, found)))
