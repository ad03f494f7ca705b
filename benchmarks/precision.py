"""What each precision saves and what it costs, in every format: `make precision`, about half an hour.

- Of DMF-XXS with seeded weights, against fp32 of the same format: size; and where this host runs the format, time on
  one thread, measured in alternation (fp32 against itself, too: that is the noise), ARM64 instructions, and for LiteRT
  XNNPACK's parts of the graph.
- Of the trained dmf_nano, against the eager model in float64: PSNR of the logits and accuracy, on the pictures that it
  was not trained on. Core ML programs are interpreted op by op.

Results go to benchmarks/results/precision.json. The machine should do nothing else while times are measured.
"""

import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import dmf
from benchmarks import accuracy, run
from benchmarks.heldout import Heldout, open_heldout, parse
from benchmarks.instructions import CPU
from benchmarks.instructions import FORMATS as EMULATED
from export.cli import runs_here, size_bytes
from export.pipeline import prepare, write_package
from export.plan import make_plan
from export.precision import PRECISIONS
from export.quantize.calibration import ENOUGH
from export.quantize.sensitivity import psnr_db
from export.verify.artifact import run_artifact
from export.verify.inputs import PHOTOGRAPHS, photograph
from export.verify.reference import Values
from runtime import commandline
from runtime.commandline import ArgumentParser, Progress
from runtime.instructions import count
from runtime.manifest import Package
from runtime.measure import compare
from runtime.partitions import partitions

MODEL = run.MODELS[0]
FORMATS = ("tflite", "onnx", "coreml")
FEW = 4  # calibration pictures for Core ML, interpreted in half a minute each; its size does not depend on them
MADE = "crops of two photographs, blended with seeded noise: for ranges, not for accuracy"
Packages = Mapping[tuple[str, str], Package]
"""By format and precision."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(prog="benchmarks.precision", description=__doc__)
    parser.add_argument(
        "--packages",
        metavar="FOLDER",
        help=f"keep the packages of {MODEL} there, and take those that are there already; they are not compared with "
        "the source: remove those that it has changed",
    )
    kept, progress = parser.parse_args(argv).packages, Progress()
    heldout = open_heldout(parse(__doc__, []))
    conditions = heldout.conditions
    conditions["tools"]["ai-edge-quantizer"] = version("ai-edge-quantizer")
    conditions["calibration"] = MADE
    with tempfile.TemporaryDirectory() as folder:
        packages = convert(MODEL, Path(kept or folder), Path(folder), progress)
        fidelities = fidelity(heldout, progress)
        costs = cost(packages, run.REPEATS, progress)
    run.write("precision.json", {"conditions": conditions, "cost": costs, "fidelity": fidelities})
    return 0


def make_pictures(folder: Path, count: int, size: int) -> Path:
    """Fill the new `folder` with `count` pictures of size x size px for a calibration; the same for the same count."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for i in range(count):
        side = int(generator.integers(size // 2, size + 1))
        left, top = (int(edge) for edge in generator.integers(0, size - side + 1, 2))
        whole = Image.fromarray(photograph(PHOTOGRAPHS[i % len(PHOTOGRAPHS)], size, size))
        crop = whole.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BICUBIC)
        noise = Image.fromarray(generator.integers(0, 256, (size, size, 3), np.uint8))
        Image.blend(crop, noise, generator.uniform(0, 0.5)).save(folder / f"{i:03}.png")
    return folder


def convert(model: str, folder: Path, pictures: Path, progress: Progress) -> Packages:
    """(format, precision) -> its package in `folder`; calibration pictures are made in `pictures`."""
    packages, size = run.Packages(model, folder, progress), dmf.VARIANTS[model].image_size
    many = make_pictures(pictures / "made", ENOUGH, size)
    few = make_pictures(pictures / f"first {FEW} made", FEW, size)
    return {
        (format, precision): packages.get(
            format,
            precision=precision,
            calibration=None if precision != "w8a8" else few if format == "coreml" else many,
        )
        for format in FORMATS
        for precision in PRECISIONS
    }


def cost(packages: Packages, repeats: int, progress: Progress) -> list[dict[str, Any]]:
    """A row for each package, in the same order; each format needs its fp32. Raises as `count` and `compare` do."""
    emulated = {key: package for key, package in packages.items() if key[0] in EMULATED}
    with progress.stage(f"count on {CPU}"):
        counted = dict(zip(emulated, count(list(emulated.values()), CPU), strict=True))
    rows = []
    for (format, precision), package in packages.items():
        base, quantization = packages[format, "fp32"], package.manifest.quantization
        pictures = quantization.calibration if quantization is not None else None
        row: dict[str, Any] = {
            "format": format,
            "precision": precision,
            "package": package.manifest.name,
            "size_bytes": size_bytes(package),
            "size_share": size_bytes(package) / size_bytes(base),
            "calibration": None if pictures is None else asdict(pictures),
        }
        if format in EMULATED:
            instructions = counted[format, precision].instructions
            row["instructions"] = instructions
            row["instructions_ratio"] = instructions / counted[format, "fp32"].instructions
        if format == "tflite":
            parts = partitions(package.artifact)
            row["partitions"] = parts.count
            row["outside"] = dict(Counter(operator.kind for operator in parts.outside))
        if runs_here(package):
            with progress.stage(f"{package.manifest.name} against {base.manifest.name}"):
                row["time"] = run.row(package, compare(package, base, repeats=repeats))
        rows.append(row)
    return rows


def fidelity(heldout: Heldout, progress: Progress) -> list[dict[str, Any]]:
    """A row for each format and precision. Raises as `write_package` does."""
    prepared = prepare(heldout.model, heldout.origin, progress)
    with progress.stage("PyTorch, float64"):
        oracle = accuracy.pytorch(heldout, torch.float64)
    rows = []
    for format in FORMATS:
        for precision in PRECISIONS:
            plan = make_plan(heldout.model, format, precision=precision)
            with tempfile.TemporaryDirectory() as out:
                package = write_package(plan, prepared, Path(out), False, progress)
                with progress.stage(f"{plan.name}: {len(heldout.labels)} pictures"):
                    logits, run_by = answers(package, heldout.images)
            about = {"format": format, "precision": precision, "lowering": str(plan.lowering), "run_by": run_by}
            proof = package.manifest.parity.outputs[0].psnr_db
            rows.append(against_eager(heldout, oracle, logits, **about) | {"proof_psnr_db": proof})
    return rows


def answers(package: Package, images: NDArray[np.uint8]) -> tuple[Values, str]:
    """The logits (N, classes) of images (N, S, S, 3), and what computed them."""
    given, run_by = run_artifact(package.manifest.format, package.artifact, package.manifest.inputs[0], images)
    return np.concatenate(given["logits"]).astype(np.float64), run_by


def against_eager(heldout: Heldout, oracle: Values, logits: Values, **about: str) -> dict[str, Any]:
    """The row of `accuracy`, with the PSNR of all logits (N, classes) and the points of accuracy that are lost."""
    row = accuracy.row(heldout, oracle, logits, **about)
    eager = (oracle.argmax(1) == heldout.labels).mean()
    return row | {
        "psnr_db": psnr_db(float(((logits - oracle) ** 2).mean()), float(np.abs(oracle).max())),
        "lost_points": float(100 * (eager - row["accuracy"])),
    }


if __name__ == "__main__":
    sys.exit(commandline.run("benchmarks.precision", main))
