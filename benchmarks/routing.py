"""Whether a trained model's kernels follow the picture: `python -m benchmarks.routing`.

The routing weights pi of every dynamic convolution over the held-out set: the mean of each class, drawn in
docs/routing.png, and how much they vary, in benchmarks/results/training/routing.json. Two figures answer the question:
the share of the variance that lies between the classes (with shuffled labels it would be what chance gives), and the
accuracy that is left when every picture is routed alike, by the mean weights.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import dmf
from benchmarks.heldout import TRAINING_RESULTS, Heldout, open_heldout, parse
from dmf.dynamic_conv import KernelAttention
from export.verify.inputs import normalize
from runtime import commandline

PICTURE = Path(__file__).parent.parent / "docs" / "routing.png"
ROWS = ("pw_conv1", "dw_conv", "pw_conv2")  # the dynamic convolutions of a block
SHUFFLES = 20
Weights = dict[str, NDArray[np.float64]]
"""Of each dynamic convolution, by name, pi (N, K)."""


def main(argv: Sequence[str] | None = None) -> int:
    heldout = open_heldout(parse(__doc__, argv))
    weights, dynamic = routing(heldout)
    _, frozen = routing(heldout, {name: pi.mean(0) for name, pi in weights.items()})
    rng = np.random.default_rng(0)
    shuffled = [rng.permutation(heldout.labels) for _ in range(SHUFFLES)]
    layers = {name: figures(pi, heldout.labels, shuffled) for name, pi in weights.items()}
    overall = {
        "accuracy": accuracy(dynamic, heldout),
        "accuracy_all_routed_alike": accuracy(frozen, heldout),
        "predictions_changed": int((dynamic.argmax(1) != frozen.argmax(1)).sum()),
        "median_std": float(np.median([layer["std"] for layer in layers.values()])),
        "median_between_classes": float(np.median([layer["between_classes"] for layer in layers.values()])),
        "median_between_shuffled": float(np.median([layer["between_shuffled"] for layer in layers.values()])),
    }
    TRAINING_RESULTS.mkdir(parents=True, exist_ok=True)
    results = {"conditions": heldout.conditions, "overall": overall, "layers": layers}
    (TRAINING_RESULTS / "routing.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    draw(weights, layers, heldout)
    print(json.dumps(overall, indent=1))
    return 0


@torch.no_grad()
def routing(heldout: Heldout, held: Weights | None = None) -> tuple[Weights, NDArray[np.float64]]:
    """pi of each layer, and the logits (N, classes); with the weights (K) in `held` instead of its own, if given."""
    found: dict[str, list[Tensor]] = {}

    def see(name: str, pi: Tensor) -> Tensor:
        found.setdefault(name, []).append(pi)
        return pi if held is None else torch.from_numpy(held[name]).to(pi).expand_as(pi)

    model = heldout.model.float().eval()
    with watched(model, see):
        logits = torch.cat([model(x) for x in normalize(heldout.images).split(60)])
    return {name: torch.cat(parts).double().numpy() for name, parts in found.items()}, logits.double().numpy()


@contextmanager
def watched(model: dmf.DMF, see: Callable[[str, Tensor], Tensor]) -> Iterator[None]:
    """Within, every kernel attention's pi becomes what `see` makes of it, given its convolution's name."""
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, pi, name=name: see(name, pi))
        for name, module in (
            (name.removesuffix(".kernel_attention"), module)
            for name, module in model.named_modules()
            if isinstance(module, KernelAttention)
        )
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def figures(pi: NDArray[np.float64], labels: NDArray[np.int64], shuffled: list[NDArray[np.int64]]) -> dict[str, float]:
    """How pi (N, K) varies over the pictures, all kernels of the layer together."""
    return {
        "mean": float(pi.mean()),
        "smallest": float(pi.min()),
        "largest": float(pi.max()),
        "std": float(np.sqrt(pi.var(0).mean())),
        "between_classes": between(pi, labels),
        "between_shuffled": float(np.mean([between(pi, each) for each in shuffled])),
    }


def between(pi: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """The share of pi's variance over the pictures that the means of the classes have."""
    means = class_means(pi, labels)[np.unique(labels, return_inverse=True)[1]]
    return float(means.var(0).sum() / pi.var(0).sum())


def class_means(pi: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """(N, K) -> (classes, K)"""
    return np.stack([pi[labels == label].mean(0) for label in np.unique(labels)])


def accuracy(logits: NDArray[np.float64], heldout: Heldout) -> float:
    return float((logits.argmax(1) == heldout.labels).mean())


def draw(weights: Weights, layers: dict[str, dict[str, float]], heldout: Heldout) -> None:
    """One panel a layer, classes x kernels: how far the class' mean weight is from that of all pictures."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    deviations = {name: class_means(pi, heldout.labels) - pi.mean(0) for name, pi in weights.items()}
    limit = max(float(np.abs(each).max()) for each in deviations.values())
    columns = 1 + max(place(name)[1] for name in weights if name != "end_conv") + 1
    figure, axes = plt.subplots(
        len(ROWS), columns, figsize=(2.1 * columns + 1, 2.6 * len(ROWS) + 0.6), layout="constrained", squeeze=False
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for name, values in deviations.items():
        row, column, title = (0, columns - 1, "end_conv") if name == "end_conv" else (*place(name), short(name))
        axis, layer = axes[row][column], layers[name]
        axis.set_axis_on()
        shown = axis.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
        axis.set_title(f"{title}\nstd {layer['std']:.3f}, {layer['between_classes']:.0%} by class", fontsize=8)
        axis.set_xticks(range(values.shape[1]), [str(k + 1) for k in range(values.shape[1])], fontsize=7)
        axis.set_yticks(range(len(heldout.classes)), heldout.classes, fontsize=7)
        if column == 0:
            axis.set_ylabel("class", fontsize=8)
        if row == len(ROWS) - 1 or name == "end_conv":
            axis.set_xlabel("kernel", fontsize=8)
    bar = figure.colorbar(shown, cax=axes[1][-1].inset_axes((0.1, 0, 0.12, 1)))
    bar.set_label("mean weight of the class,\nless that of all pictures", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    axes[2][-1].text(
        0,
        1,
        "std: of a weight over\nthe pictures\n\nby class: share of the\nvariance between the\nclasses' means;\n"
        f"{np.mean([layer['between_shuffled'] for layer in layers.values()]):.0%} by chance",
        va="top",
        fontsize=8,
    )
    figure.suptitle(f"Routing weights by class, {len(heldout.labels)} held-out pictures", fontsize=11)
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=110, metadata={"Software": None})
    plt.close(figure)


def place(name: str) -> tuple[int, int]:
    """The panel's row and column, of blocks.COLUMN.dynamic_mobile.ROW"""
    _, block, _, conv = name.split(".")
    return ROWS.index(conv), int(block)


def short(name: str) -> str:
    _, block, _, conv = name.split(".")
    return f"block {block} {conv}"


if __name__ == "__main__":
    sys.exit(commandline.run("benchmarks.routing", main))
