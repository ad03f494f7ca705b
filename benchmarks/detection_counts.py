"""Parameters and multiply-accumulates of the detectors beside the paper's: `python -m benchmarks.detection_counts`.

Shapes alone are needed, so it takes seconds. It prints two tables and writes benchmarks/results/detection_counts.json.

The paper counted with mmdetection's tool, which differs from a full count in three things, each measured here:
- parameters that don't learn are left out: those of the first two stages (blocks 0 to 3), which the released detectors
  freeze;
- only layers that are modules are seen: neither the dynamic convolutions (their kernel is no parameter of a layer) nor
  the products of attention;
- biases, normalisation, ReLU modules and pooling count as operations.
The paper's 800 x 1333 is 800 x 1344 there, padded to the stride; mmdetection's usual 800 x 1280 gives less.
"""

import copy
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.run import write
from dmf.detection import Detector, MaskRCNN, create_detector
from dmf.dynamic_conv import DynamicConv2d, KernelAttention
from runtime import commandline

SIZES = ((800, 1344), (800, 1280))  # padded from the paper's 800 x 1333; mmdetection's usual
PAPER = {  # Tables 4 and 5: parameters (M), FLOPs (G)
    "retinanet_dmf_xxs": (17.4, 160),
    "retinanet_dmf_xs": (20.2, 161),
    "retinanet_dmf_s": (23.6, 165),
    "mask_rcnn_dmf_s": (34.2, 181),
}
PROPOSALS, MASKS = 1000, 100  # that mmdetection's tool sends through the heads of Mask R-CNN
LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
OPERATIONS = ("biases", "normalisation", "relu", "pooling")
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)


@dataclass(frozen=True)
class Counts:
    """Of one image. Multiply-accumulates but for the last four, which are operations that mmdetection's tool adds."""

    parameters: int
    frozen_parameters: int
    layers: int
    dynamic_convolutions: int
    attention: int
    biases: int
    normalisation: int
    relu: int
    pooling: int

    @property
    def macs(self) -> int:
        """Every product of the network."""
        return self.layers + self.dynamic_convolutions + self.attention

    @property
    def as_the_papers_tool(self) -> int:
        return self.layers + self.biases + self.normalisation + self.relu + self.pooling

    @property
    def trained_parameters(self) -> int:
        return self.parameters - self.frozen_parameters


def count(detector: Detector, height: int, width: int) -> Counts:
    """For an image of this size, on the meta device, where tensors have shapes and no values."""
    parameters = sum(p.numel() for p in detector.parameters())
    frozen = sum(p.numel() for p in detector.parameters() if not p.requires_grad)
    operations: Counter[str] = Counter()

    def see(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, LAYERS) and module.bias is not None:
            operations["biases"] += output.shape[-1] if isinstance(module, nn.Linear) else output.numel()
        elif isinstance(module, NORMS):
            operations["normalisation"] += 2 * inputs[0].numel()
        elif isinstance(module, nn.ReLU):
            operations["relu"] += output.numel()
        elif isinstance(module, KernelAttention):
            operations["pooling"] += inputs[0].numel()

    detector = copy.deepcopy(detector).to("meta").requires_grad_(False)
    hooks = [module.register_forward_hook(see) for module in detector.modules()]
    with FlopCounterMode(display=False) as counter:
        run(detector, torch.zeros(1, 3, height, width, device="meta"))
    for hook in hooks:
        hook.remove()
    macs = {name: sum(flops.values()) // 2 for name, flops in counter.get_flop_counts().items()}
    root = type(detector).__name__

    def under(kinds: type | tuple[type, ...]) -> int:
        return sum(macs.get(f"{root}.{name}", 0) for name, m in detector.named_modules() if isinstance(m, kinds))

    layers = under(LAYERS)
    dynamic = under(DynamicConv2d) - under(KernelAttention)  # an attention's linear layers are layers
    return Counts(
        parameters, frozen, layers, dynamic, macs["Global"] - layers - dynamic, **{k: operations[k] for k in OPERATIONS}
    )


def run(detector: Detector, images: Tensor) -> None:
    """Once through every layer."""
    if not isinstance(detector, MaskRCNN):
        detector(images)
        return
    levels, _, _ = detector(images)
    boxes = images.new_zeros(PROPOSALS, 4)
    owners = torch.zeros(PROPOSALS, dtype=torch.int64, device=images.device)
    detector.box_outputs(levels, boxes, owners)
    detector.mask_outputs(levels, boxes[:MASKS], owners[:MASKS])


def main(argv: Sequence[str] | None = None) -> int:
    commandline.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None).parse_args(argv)
    rows = []
    for name, (parameters, flops) in PAPER.items():
        detector = create_detector(name)
        for height, width in SIZES:
            counts = count(detector, height, width)
            rows.append(
                {
                    "detector": name,
                    "height": height,
                    "width": width,
                    **asdict(counts),
                    "macs": counts.macs,
                    "trained_parameters": counts.trained_parameters,
                    "as_the_papers_tool": counts.as_the_papers_tool,
                    "paper_parameters_millions": parameters,
                    "paper_gflops": flops,
                }
            )
    write("detection_counts.json", {"torch": torch.__version__, "rows": rows})
    print("\n".join(tables(rows)))
    return 0


def tables(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of Markdown: what is counted beside the paper's, then what leads from a full count to the tool's."""
    lines = [
        "| detector | size | parameters (M) | not frozen | paper | MACs (G) | as the paper's tool | paper |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = (
            row["detector"],
            f"{row['height']} x {row['width']}",
            f"{row['parameters'] / 1e6:.2f}",
            f"{row['trained_parameters'] / 1e6:.2f}",
            row["paper_parameters_millions"],
            f"{row['macs'] / 1e9:.2f}",
            f"{row['as_the_papers_tool'] / 1e9:.2f}",
            row["paper_gflops"],
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += [
        "",
        "| detector | size | MACs (G) | - dynamic convolutions | - attention | + biases | + normalisation | + ReLU |"
        " + pooling | = the tool's |",
        "|" + "---|" * 10,
    ]
    for row in rows:
        names = ("macs", "dynamic_convolutions", "attention", *OPERATIONS, "as_the_papers_tool")
        cells = (row["detector"], f"{row['height']} x {row['width']}", *(f"{row[k] / 1e9:.3f}" for k in names))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    sys.exit(commandline.run("benchmarks.detection_counts", main))
