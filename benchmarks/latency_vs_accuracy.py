"""Draw docs/latency_vs_accuracy.png from benchmarks/results/latency.json: `python -m benchmarks.latency_vs_accuracy`.

Latency is the median of every sample that was taken of a network beside another of the plot, on LiteRT, one thread;
accuracy is ImageNet top-1 as Table 2 of the paper (Yun and Ro, 2023) has it, peers included.
"""

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers import PEERS

RESULTS = Path(__file__).parent / "results" / "latency.json"
PICTURE = Path(__file__).parent.parent / "docs" / "latency_vs_accuracy.png"
NAMES = {
    "dmf_xxs": "DMF-XXS",
    "dmf_xs": "DMF-XS",
    "dmf_s": "DMF-S",
    "mobilenet_v3_large": "MobileNetV3-Large",
    "efficientnet_b0": "EfficientNet-B0",
}
TOP1 = {"dmf_xxs": 76.0, "dmf_xs": 77.8, "dmf_s": 79.4, "mobilenet_v3_large": 75.2, "efficientnet_b0": 77.1}  # %


def main() -> int:
    draw(latencies(json.loads(RESULTS.read_text(encoding="utf-8"))), PICTURE)
    return 0


def latencies(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Model -> median ms of all its samples in the comparisons of a DMF with a peer."""
    samples: dict[str, list[float]] = {}
    for row in rows:
        if row["against"] in PEERS:
            samples.setdefault(row["model"], []).extend(row["samples_ms"])
            samples.setdefault(row["against"], []).extend(row["against_samples_ms"])
    return {model: statistics.median(each) for model, each in samples.items()}


def draw(p50_ms: Mapping[str, float], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6.4, 4.2), layout="constrained")
    ours = [model for model in p50_ms if model not in PEERS]
    theirs = [model for model in p50_ms if model in PEERS]
    for models, style, name in ((ours, "o-", "DMF, default lowering"), (theirs, "s", "Keras applications")):
        points = [(p50_ms[model], TOP1[model]) for model in models]
        axis.plot(*zip(*points, strict=True), style, markersize=7, label=name)
    for model, x_ms in p50_ms.items():
        text = f"{NAMES[model]}\n{x_ms:.1f} ms, {TOP1[model]} %"
        where = (
            {"xytext": (0, 7), "ha": "center", "va": "bottom"} if model in PEERS else {"xytext": (9, -4), "va": "top"}
        )
        axis.annotate(text, (x_ms, TOP1[model]), textcoords="offset points", fontsize=9, **where)
    axis.set_xlim(0, 1.3 * max(p50_ms.values()))
    axis.margins(y=0.2)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_xlabel("latency of one image, ms (LiteRT, fp32, one thread, p50)")
    axis.set_ylabel("ImageNet top-1, % (as published)")
    axis.set_title("Latency and accuracy", fontsize=11)
    axis.legend(loc="upper left", frameon=False, fontsize=9)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
