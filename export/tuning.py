"""`--lowering auto`: each part of a network gets the lowering that is fastest there, by measurement.

A part is a block's dynamic convolutions, with what lies between them, or a dynamic convolution outside a block. Every
lowering makes a small artifact of it, and these are measured side by side; parts of equal shape are measured once. The
figures are kept in the toolkit's cache, by device, tools, code and shape, so that the next time nothing is measured.
"""

import copy
import hashlib
import json
import os
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from export import convert, layout, lowering, static
from export.captured import captured, interruptible
from export.convert.options import Options
from export.lowering import NAMES, Lowering, lower
from export.plan import Plan
from export.provenance import tools
from export.static import Block, DynamicConv, LaidOut
from runtime.arm64.runner import Workload
from runtime.cache import cache_folder
from runtime.commandline import SILENT, Progress
from runtime.errors import CommandError, ConverterError
from runtime.manifest import Choice, Measured

CACHE_NAME = "lowerings.json"

Figures = dict[str, float]
"""Lowering -> milliseconds or instructions."""


@dataclass(frozen=True, eq=False)
class Part:
    """Dynamic convolutions that get one lowering, and their input: a feature map (B, C, H, W), first tokens (B, D)."""

    name: str
    module: Block | DynamicConv
    x: torch.Size
    z: torch.Size

    @property
    def convs(self) -> list[DynamicConv]:
        return [module for module in self.module.modules() if isinstance(module, DynamicConv)]

    @property
    def shape(self) -> str:
        """Equal for parts that cost the same."""
        convs = [f"{list(conv.bank.shape)} {tuple(conv.geometry)} {conv.routing}" for conv in self.convs]
        return hashlib.sha256("; ".join([f"{list(self.x)} {list(self.z)}", *convs]).encode()).hexdigest()[:16]

    def lowerings(self, plan: Plan) -> list[Lowering]:
        """What it can be lowered to for this plan; of forms that it has no use for, the plan's own."""
        kinds = {conv.kind for conv in self.convs}
        found = {}
        for name in NAMES:
            each = Lowering.parse(name)
            if each.is_twin or (plan.batch == -1 and not each.any_batch):
                continue
            if each.pointwise not in plan.converter.pointwise or each.depthwise not in plan.converter.depthwise:
                continue
            pointwise = each.pointwise if "pointwise" in kinds else plan.lowering.pointwise
            depthwise = each.depthwise if "depthwise" in kinds else plan.lowering.depthwise
            found[f"{pointwise}/{depthwise}"] = Lowering(pointwise, depthwise, "measured")
        return list(found.values())


class Alone(LaidOut):
    """A part as a network of its own: a feature map -> a feature map. The tokens are a constant."""

    z: Tensor

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.part = part.module
        self.hold(z=torch.randn(part.z, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.part, Block):
            return self.part.mobile(x, self.z)
        return self.layout.join(self.part([x], self.z))


@torch.no_grad()
def parts(graph: nn.Module, images: tuple[int, ...]) -> list[Part]:
    """Those of a static graph that is not lowered yet, in the order in which images (B, 3, H, W) reach them."""
    shell = copy.deepcopy(graph).to("meta")
    blocks = [name for name, module in graph.named_modules() if isinstance(module, Block)]
    found: dict[str, tuple[torch.Size, torch.Size]] = {}

    def reached(part: str, _: nn.Module, inputs: tuple[list[Tensor], Tensor]) -> None:
        (x,), z = inputs
        found.setdefault(part, (x.shape, z.shape))  # a block's first one is reached first

    for name, module in shell.named_modules():
        if isinstance(module, DynamicConv):
            part = next((block for block in blocks if name.startswith(f"{block}.")), name)
            module.register_forward_pre_hook(partial(reached, part))
    shell(torch.zeros(images, dtype=next(graph.parameters()).dtype, device="meta"))
    return [Part(name, graph.get_submodule(name), *shapes) for name, shapes in found.items()]  # type: ignore[arg-type]  # one of the two


def tuned(plan: Plan, graph: nn.Module, size: tuple[int, int], progress: Progress = SILENT) -> Plan:
    """The plan with the lowering that its meter finds best, part by part; without a meter, the plan as it is.

    Raises `ConverterError` for a lowering that can't be converted, `RunnerError` for one that can't be run.
    """
    if plan.meter is None:
        return plan
    by_shape: dict[str, list[Part]] = {}
    for part in parts(graph, (abs(plan.batch), 3, *size)):
        by_shape.setdefault(part.shape, []).append(part)
    known, choices, chosen = Known(plan), list[Choice](), dict[str, str]()
    for shape, alike in by_shape.items():
        names = tuple(part.name for part in alike)
        if (figures := known.get(shape)) is None:
            with progress.stage(f"{plan.name}: compare lowerings of {', '.join(names)}"):
                figures = compare(plan, alike[0], progress)
            known.add(shape, figures)
        best = fastest(figures, str(plan.lowering), plan.meter.noise)
        choices.append(Choice(names, best, figures))
        chosen |= dict.fromkeys(names, best)
    most, _ = Counter(chosen.values()).most_common(1)[0]
    meter = plan.meter
    reason = f"the fastest in most parts, measured on {meter.device}"
    exceptions = tuple((name, Lowering.parse(other)) for name, other in chosen.items() if other != most)
    return replace(
        plan,
        lowering=replace(Lowering.parse(most), reason=reason, exceptions=exceptions),
        measured=Measured(meter.device, meter.threads, meter.unit, tuple(choices)),
    )


def fastest(figures: Figures, usual: str, noise: float) -> str:
    """The lowering of the lowest figure, unless the usual one is no more than `noise`, a ratio, above it."""
    best = min(figures, key=figures.__getitem__)
    return usual if usual in figures and figures[usual] <= noise * figures[best] else best


def compare(plan: Plan, part: Part, progress: Progress = SILENT) -> Figures:
    """Convert the part by itself in each of its lowerings, and measure these side by side."""
    assert plan.meter is not None
    write, lay = plan.converter.load(), plan.converter.layout
    candidates = part.lowerings(plan)
    x = torch.randn(part.x, generator=torch.Generator().manual_seed(1))
    if lay.name == "NHWC":
        x = x.permute(0, 2, 3, 1).contiguous()
    with tempfile.TemporaryDirectory(prefix="dmf-tuning-") as folder:
        workloads = []
        for i, each in enumerate(candidates):
            artifact, log = Path(folder, f"{i}-{plan.converter.artifact}"), Path(folder, f"{i}.log")
            try:
                with captured(log), interruptible():
                    write(lower(Alone(part), each, lay, lay), x, artifact, Options(log, in_half=plan.in_half))
            except (CommandError, MemoryError):
                raise
            except Exception as error:
                reason = (str(error).strip().splitlines() or [""])[0][:200]
                raise ConverterError(
                    f"{plan.converter.name} can't convert {part.name} in the lowering {each}, which auto compares: "
                    f"{type(error).__name__}: {reason}; name a lowering instead, or this one for the converter's log"
                ) from error
            workloads.append(Workload(plan.converter.format, artifact, np.asarray(x)))
        figures = plan.meter.compare(workloads, progress.say)
    return {str(each): figure for each, figure in zip(candidates, figures, strict=True)}


class Known:
    """The figures that were measured before under the same conditions, in the cache."""

    def __init__(self, plan: Plan) -> None:
        assert plan.meter is not None
        self.path = cache_folder() / CACHE_NAME
        threads = f"{plan.meter.threads} thread{'s' if plan.meter.threads > 1 else ''}"
        versions = hashlib.sha256(json.dumps(tools(), sort_keys=True).encode()).hexdigest()[:16]
        batch = "any batch" if plan.batch == -1 else f"batch {plan.batch}"
        self.conditions = (
            f"{plan.meter.device}, {threads}; {plan.converter.name}, {plan.precision}, {batch}; "
            f"tools {versions}, code {_code()}"
        )

    def get(self, shape: str) -> Figures | None:
        return self._read().get(self.conditions, {}).get(shape)

    def add(self, shape: str, figures: Figures) -> None:
        everything = self._read()
        everything.setdefault(self.conditions, {})[shape] = figures
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_name(f"{CACHE_NAME}.{os.getpid()}")
        beside.write_text(json.dumps(everything, indent=1), encoding="utf-8")
        beside.replace(self.path)

    def _read(self) -> dict[str, dict[str, Figures]]:
        try:
            everything: dict[str, dict[str, Figures]] = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # none yet, or cut off: it is measured again
            return {}
        return everything


def _code() -> str:
    """What the small artifacts are made by: another version of it may be faster or slower."""
    folders = [Path(str(module.__file__)).parent for module in (lowering, convert)]
    files = [
        Path(static.__file__),
        Path(layout.__file__),
        *(path for folder in folders for path in sorted(folder.glob("*.py"))),
    ]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
