"""A picture of where artifacts leave their reference: every module's error over its budget, by depth."""

from collections.abc import Mapping
from pathlib import Path

from export.verify.localise import Localisation
from runtime.extras import require

LEAST = 1e-4  # of a budget: what is drawn of smaller errors, for a logarithm has no zero


def draw(localisations: Mapping[str, Localisation], path: Path) -> None:
    """Write a PNG of 1200 x 600 px, a line per artifact by its name. Raises `UsageError` without matplotlib."""
    figure = require("matplotlib.figure", extra="train").Figure(figsize=(12, 6), dpi=100, layout="constrained")
    axes = figure.subplots()
    names = dict.fromkeys(module.module for each in localisations.values() for module in each.modules)
    depths = {name: depth for depth, name in enumerate(names)}
    for artifact, localisation in localisations.items():
        errors = [max(module.of_budget, LEAST) for module in localisation.modules]
        axes.plot([depths[module.module] for module in localisation.modules], errors, ".-", lw=0.8, label=artifact)
        if (first := localisation.first) is not None:
            place = depths[first.module], first.of_budget
            axes.plot(*place, "o", color="tab:red", markersize=9, fillstyle="none")
            axes.annotate(first.module, place, xytext=(-6, 6), textcoords="offset points", ha="right")
    axes.axhline(1, color="tab:red", lw=1)
    starts = {stage(name): depth for name, depth in reversed(depths.items())}
    ticks = {depth: name for name, depth in starts.items() if depth - 1 not in starts.values()}  # labels need room
    axes.set_xticks(list(ticks), list(ticks.values()), rotation=90)
    axes.set(yscale="log", xlabel="module, in the order of execution", ylabel="error over budget, of the worst image")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, format="png")


def stage(module: str) -> str:
    """`blocks.3` of `blocks.3.ffn.pw_conv1`, and `head` of `head.fc1`."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "blocks" else parts[0]
