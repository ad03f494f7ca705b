"""Measure the latencies that the documents show: `make bench`, about an hour, ten minutes of which are measuring.

Everything is converted first. Then each pair is measured in alternation:

- every lowering of DMF-XXS in every format that this host runs, against its static twin (the twin against itself, too:
  that is the noise); the default against the naive export; and the two converters to TFLite, each at its best;
- the default lowering of DMF-XXS, XS and S against its twin, on one thread and on two, and at batch 4 in ONNX Runtime;
- each of the three against each peer.

The machine should do nothing else meanwhile. Raw results go to benchmarks/results (export, lowerings and latency.json),
the plot to docs/latency_vs_accuracy.png; `python -m benchmarks.readme` makes the tables.
"""

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import dmf
from benchmarks import latency_vs_accuracy
from benchmarks.peers import PEERS, open_peer
from export.cli import as_json, measure_here, size_bytes
from export.pipeline import Prepared, prepare, write_package
from export.plan import make_plan
from export.provenance import Origin
from runtime import commandline
from runtime.commandline import ArgumentParser, Progress
from runtime.latency import Comparison
from runtime.manifest import Package, open_package
from runtime.measure import Subject, compare

RESULTS = Path(__file__).parent / "results"
MODELS, SEED, REPEATS = ("dmf_xxs", "dmf_xs", "dmf_s"), 0, 200
TWIN, NAIVE = "twin/twin", "conv/conv"
FORMS = (NAIVE, "matmul/conv", "matmul/taps", "matmul/bank", TWIN)
ROUTES = {  # converter -> its format, and the lowerings to measure
    "torch-onnx": ("onnx", FORMS),
    "litert-torch": ("tflite", FORMS),
    "onnx2tf": ("tflite", ("matmul/taps", TWIN)),
}
SETTINGS = (  # format, batch and threads of each model's default lowering against its twin
    ("tflite", 1, 1),
    ("tflite", 1, 2),
    ("onnx", 1, 1),
    ("onnx", 1, 2),
    ("onnx", 4, 1),
)
Pairs = list[tuple[Package, Package | Subject, int]]
"""A package, what it is measured against, and the threads."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(prog="benchmarks.run", description=__doc__)
    parser.add_argument(
        "--packages",
        metavar="FOLDER",
        help="keep the converted packages there, and take those that are there already; they are not compared with "
        "the source: remove those that it has changed",
    )
    kept, progress = parser.parse_args(argv).packages, Progress()
    with tempfile.TemporaryDirectory() as folder:
        exported, pairs = convert(MODELS, list(PEERS), Path(kept or folder), progress)
        measure(exported, pairs, RESULTS, REPEATS, progress)
    return latency_vs_accuracy.main()


class Packages:
    """The packages of a model with seeded weights, each converted when it is first asked for."""

    def __init__(self, name: str, folder: Path, progress: Progress) -> None:
        self._model = dmf.seed_weights(dmf.create_model(name), SEED)
        self._folder, self._progress = folder, progress

    @cached_property
    def _prepared(self) -> Prepared:
        return prepare(self._model, Origin(seed=SEED), self._progress)

    def get(self, format: str, **choices: Any) -> Package:
        """The package of a plan; `choices` are those of `make_plan`."""
        plan = make_plan(self._model, format, **choices)
        if not (self._folder / plan.name).exists():
            write_package(plan, self._prepared, self._folder, False, self._progress)
        return open_package(self._folder / plan.name)


def convert(
    models: Sequence[str], peers: Sequence[str], folder: Path, progress: Progress
) -> tuple[list[Package], dict[str, Pairs]]:
    """The first model in every format, and what is to be measured: file of the results -> pairs."""
    every = [Packages(model, folder, progress) for model in models]
    first = every[0]
    exported = [first.get(format) for format in ("onnx", "coreml", "tflite")]
    lowerings: Pairs = [
        (
            first.get(format, converter=converter, lowering=lowering),
            first.get(format, converter=converter, lowering=TWIN),
            1,
        )
        for converter, (format, names) in ROUTES.items()
        for lowering in names
    ]
    naive = (("tflite", None), ("onnx", "matmul/conv"))  # in ONNX Runtime the default is the naive form
    pairs: Pairs = [
        (first.get(format, lowering=lowering), first.get(format, lowering=NAIVE), 1) for format, lowering in naive
    ]
    pairs.append((first.get("tflite", converter="onnx2tf"), first.get("tflite"), 1))
    opened = []
    for name in peers:
        with progress.stage(f"{name}: open or convert"):
            opened.append(open_peer(name, folder))
    for packages in every:
        for format, batch, threads in SETTINGS:
            twin = packages.get(format, batch=batch, lowering=TWIN)
            pairs.append((packages.get(format, batch=batch), twin, threads))
        pairs += [(packages.get("tflite"), peer, 1) for peer in opened]
    return exported, {"lowerings.json": lowerings, "latency.json": pairs}


def measure(
    exported: Sequence[Package], pairs: Mapping[str, Pairs], results: Path, repeats: int, progress: Progress
) -> None:
    """Measure each exported package by itself and each pair in alternation; write to the folder `results`."""
    latencies = measure_here(exported, progress)
    entries = [as_json(package, latencies[package.manifest.name]) for package in exported]
    for entry in entries:
        entry.pop("package")  # a path of this machine
    write("export.json", entries, results)
    for file, each in pairs.items():
        rows = []
        for package, against, threads in each:
            name = against.name if isinstance(against, Subject) else against.manifest.name
            with progress.stage(f"{package.manifest.name} against {name}, threads: {threads}"):
                rows.append(row(package, compare(package, against, threads=threads, repeats=repeats)))
        write(file, rows, results)


def row(package: Package, comparison: Comparison) -> dict[str, object]:
    """A comparison with what it was measured under, and what the package says of itself."""
    manifest, report, against = package.manifest, comparison.package, comparison.against
    output = manifest.parity.outputs[0]
    return {
        "model": report.model,
        "converter": manifest.converter,
        "lowering": f"{manifest.lowering.pointwise}/{manifest.lowering.depthwise}",
        "batch": manifest.inputs[0].shape[0],
        "threads": report.threads,
        "against": against.package,
        "p50_ms": report.p50_ms,
        "against_p50_ms": against.p50_ms,
        "ratio": comparison.latency_ratio,
        "ratio_q25": comparison.ratio_q25,
        "ratio_q75": comparison.ratio_q75,
        "baseline_memory_bytes": report.baseline_memory_bytes,
        "peak_memory_bytes": report.peak_memory_bytes,
        "against_peak_memory_bytes": against.peak_memory_bytes,
        "cold_load_ms": report.cold_load_ms,
        "size_bytes": size_bytes(package),
        "max_abs_error": output.max_abs_error,
        "budget_max_abs_error": output.budget_max_abs_error,
        "psnr_db": output.psnr_db,
        "commit": manifest.source.commit,
        "artifact_sha256": report.artifact_sha256,
        "against_artifact_sha256": against.artifact_sha256,
        "runtime": asdict(report.runtime),
        "conditions": asdict(report.conditions),
        "samples_ms": [round(sample, 4) for sample in report.samples_ms],
        "against_samples_ms": [round(sample, 4) for sample in against.samples_ms],
    }


def write(name: str, results: object, folder: Path = RESULTS) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(commandline.run("benchmarks.run", main))
