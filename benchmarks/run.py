"""Measure what the README shows: `make bench`, about 20 minutes on two otherwise idle cores.

Every lowering of DMF-XXS in every format this host runs, each measured in alternation with its static twin (the twin
with itself, too: that is the noise); raw results
go to benchmarks/results/lowerings.json, and `benchmarks.readme` makes the tables from them.
"""

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import dmf
from export.cli import as_json, measure_here, size_bytes
from export.pipeline import prepare, write_package
from export.plan import make_plan
from export.provenance import Origin
from runtime.commandline import Progress
from runtime.manifest import Package
from runtime.measure import compare

RESULTS = Path(__file__).parent / "results"
MODEL, SEED = "dmf_xxs", 0
FORMS = ["conv/conv", "matmul/conv", "matmul/taps", "matmul/bank", "twin/twin"]
ROUTES = {  # converter -> its format, and the lowerings to measure
    "torch-onnx": ("onnx", FORMS),
    "litert-torch": ("tflite", FORMS),
    "onnx2tf": ("tflite", ["matmul/taps", "twin/twin"]),
}


def main() -> int:
    progress = Progress()
    prepared = prepare(dmf.seed_weights(dmf.create_model(MODEL), SEED), Origin(seed=SEED), progress)
    with tempfile.TemporaryDirectory() as out:
        packages = [
            write_package(make_plan(prepared.model, format), prepared, Path(out, "default"), False, progress)
            for format in ("onnx", "coreml", "tflite")
        ]
        latencies = measure_here(packages, progress)
        exported = [as_json(package, latencies[package.manifest.name]) for package in packages]
        for entry in exported:
            entry.pop("package")  # a temporary folder
        write("export.json", exported)
        rows, routes = [], {}
        for converter, (format, names) in ROUTES.items():
            route: dict[str, Package] = {}
            for name in names:
                plan = make_plan(prepared.model, format, converter=converter, lowering=name)
                route[name] = write_package(plan, prepared, Path(out, converter), False, progress)
            routes[converter] = route
            for name, package in route.items():
                with progress.stage(f"{package.manifest.name}: against its twin"):
                    rows.append(row(converter, name, package, route["twin/twin"]))
        write("lowerings.json", rows)
        onnx2tf, litert = routes["onnx2tf"]["matmul/taps"], routes["litert-torch"]["matmul/conv"]
        with progress.stage("the two converters to TFLite, each at its best"):
            write("tflite_converters.json", row("onnx2tf", "matmul/taps", onnx2tf, litert))
    return 0


def row(converter: str, name: str, package: Package, against: Package) -> dict[str, object]:
    """The figures of one lowering and its ratio to another's, with the conditions under which they were measured."""
    comparison = compare(package, against, repeats=200)
    report, output = comparison.package, package.manifest.parity.outputs[0]
    return {
        "converter": converter,
        "lowering": name,
        "p50_ms": report.p50_ms,
        "against": against.manifest.name,
        "against_p50_ms": comparison.against.p50_ms,
        "ratio": comparison.latency_ratio,
        "ratio_q25": comparison.ratio_q25,
        "ratio_q75": comparison.ratio_q75,
        "peak_memory_bytes": report.peak_memory_bytes,
        "cold_load_ms": report.cold_load_ms,
        "size_bytes": size_bytes(package),
        "max_abs_error": output.max_abs_error,
        "budget_max_abs_error": output.budget_max_abs_error,
        "psnr_db": output.psnr_db,
        "commit": package.manifest.source.commit,
        "threads": report.threads,
        "runtime": asdict(report.runtime),
        "conditions": asdict(report.conditions),
        "samples_ms": [round(sample, 4) for sample in report.samples_ms],
    }


def write(name: str, results: object) -> None:
    path = RESULTS / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
