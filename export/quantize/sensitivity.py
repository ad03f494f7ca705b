"""Which modules suffer most from fewer bits: each one's weights are rounded by themselves, and the logits compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import inf, log10, sqrt
from pathlib import Path

import torch
from torch import Tensor, nn

from export.precision import Precision
from export.quantize.rounding import held, round_to, stored_bytes
from export.quantize.weights import Weight, Weights
from runtime.commandline import SILENT, Progress
from runtime.extras import require

HEADER = ("module", "weights", "saved kB", "rms / peak", "PSNR dB")
WORST = 30  # that are drawn with their names
LEAST = 1e-9  # of the peak: what is drawn of smaller errors, for a logarithm has no zero


@dataclass(frozen=True)
class Damage:
    """What rounding the weights of one module alone does to the logits of some images.

    `module` is the model's by its PyTorch name; `peak` is the largest magnitude of all logits.
    """

    module: str
    weights: int
    saved_bytes: int  # against float32
    mean_square: float  # of the change of the logits
    peak: float

    @property
    def psnr_db(self) -> float:
        return psnr_db(self.mean_square, self.peak)


def psnr_db(mean_square: float, peak: float) -> float:
    return 10 * log10(peak**2 / mean_square) if mean_square else inf


@torch.no_grad()
def sensitivity(graph: nn.Module, images: Tensor, precision: Precision, progress: Progress = SILENT) -> list[Damage]:
    """Every module of a lowered graph that has weights, worst first, for normalised images (N, 3, S, S).

    Each costs a run of the graph on all images at once, so they should be few. The graph is left as it was.
    """
    modules: dict[str, list[tuple[Weight, Tensor]]] = {}
    for weight, tensor in held(graph, Weights(graph, precision, {})):
        modules.setdefault(weight.module, []).append((weight, tensor))
    with progress.stage(f"sensitivity of {len(modules)} modules to {precision}"):
        logits = graph(images)
        return sorted(
            (
                Damage(
                    module,
                    sum(tensor.numel() for _, tensor in parts),
                    sum(4 * tensor.numel() - stored_bytes(tensor, weight) for weight, tensor in parts),
                    float((_logits_when_rounded(graph, images, parts) - logits).double().square().mean()),
                    float(logits.abs().max()),
                )
                for module, parts in modules.items()
            ),
            key=lambda each: -each.mean_square,
        )


def _logits_when_rounded(graph: nn.Module, images: Tensor, parts: Sequence[tuple[Weight, Tensor]]) -> Tensor:
    """The logits when only these weights are rounded. They are themselves again afterwards, whatever happens."""
    originals = [tensor.data for _, tensor in parts]
    try:
        for weight, tensor in parts:
            tensor.data = round_to(tensor, weight)
        return graph(images)
    finally:
        for (_, tensor), original in zip(parts, originals, strict=True):
            tensor.data = original


def table(damages: Sequence[Damage]) -> str:
    """One module a line."""
    rows = [HEADER]
    for each in damages:
        rms = sqrt(each.mean_square) / each.peak
        rows.append(
            (each.module, f"{each.weights}", f"{each.saved_bytes / 1e3:.1f}", f"{rms:.1e}", f"{each.psnr_db:.1f}")
        )
    first, *others = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join([name.ljust(first), *map(str.rjust, numbers, others)]) for name, *numbers in rows)


def draw(damages: Sequence[Damage], title: str, path: Path) -> None:
    """Write a PNG of 1200 x 700 px: the worst modules, and what is left when ever more of them are spared.

    Raises `UsageError` without matplotlib.
    """
    figure = require("matplotlib.figure", extra="train").Figure(figsize=(12, 7), dpi=100, layout="constrained")
    bars, rest = figure.subplots(1, 2, width_ratios=(3, 2))
    worst = damages[:WORST]
    errors = [_drawn(each.mean_square, each.peak) for each in worst]
    bars.bar_label(
        bars.barh([each.module for each in worst], errors),
        [f"{each.psnr_db:.0f} dB" for each in worst],
        padding=3,
        fontsize=7,
    )
    bars.tick_params("y", labelsize=8)
    bars.set(xscale="log", xlabel="change of the logits, rms over peak")
    bars.set_title(f"the worst {len(worst)} of {len(damages)} modules", fontsize=10)
    bars.set_xlim(errors[-1] / 2, errors[0] * (2 * errors[0] / errors[-1]) ** 0.12)  # a label needs room
    bars.margins(y=0.01)
    bars.invert_yaxis()
    left = [_drawn(sum(each.mean_square for each in damages[i:]), damages[0].peak) for i in range(len(damages))]
    weights = list(accumulate((each.weights for each in damages), initial=0))
    rest.plot(left, label="change of the logits that is left")
    rest.set(yscale="log", xlabel="modules that are spared, worst first", ylabel="rms over peak, if changes add up")
    rest.set_title("what sparing them is worth", fontsize=10)
    share = rest.twinx()
    share.plot([100 * each / weights[-1] for each in weights], color="tab:orange", label="weights spared")
    share.set(ylabel="weights spared, %", ylim=(0, 100))
    figure.legend(loc="outside lower right", ncols=2)
    for axes in (bars, rest):
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
    figure.suptitle(title)
    figure.savefig(path, format="png")


def _drawn(mean_square: float, peak: float) -> float:
    return max(sqrt(mean_square) / peak, LEAST)
