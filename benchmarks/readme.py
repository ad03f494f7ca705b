"""The documents' tables, from benchmarks/results: `python -m benchmarks.readme` writes them between their markers."""

import hashlib
import json
import re
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from benchmarks.detection_counts import OPERATIONS
from benchmarks.latency_vs_accuracy import NAMES, TOP1
from benchmarks.peers import PEERS
from benchmarks.run import MODELS, RESULTS
from runtime.latency import LatencyReport, read_results

ROOT = Path(__file__).parent.parent
BLOCK = 10  # samples of a round, `runtime.measure.compare`'s default
MODEL = MODELS[0]
RUNTIMES = {"litert": "LiteRT", "onnxruntime": "ONNX Runtime"}
ENGINES = {"tflite": "LiteRT", "onnx": "ONNX Runtime", "coreml": "Core ML"}


def markdown(header: list[str], rows: list[list[str]]) -> str:
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, rule, *rows])


def results(name: str) -> Any:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def export_table() -> str:
    rows = []
    for entry in results("export.json"):
        manifest = entry["manifest"]
        output = manifest["parity"]["outputs"][0]
        size = sum(file["size_bytes"] for file in manifest["files"] if file["role"] == "artifact")
        latency = "on Apple only" if entry["p50_ms"] is None else f"{entry['p50_ms']:.2f}"
        rows.append(
            [
                manifest["name"],
                f"{output['max_abs_error']:.1e}",
                f"{output['budget_max_abs_error']:.1e}",
                "exact" if output["psnr_db"] is None else f"{output['psnr_db']:.1f}",
                f"{output['top1_agreement']:.0%}",
                f"{size / 1e6:.1f}",
                latency,
            ]
        )
    return markdown(["package", "max error", "allowed", "PSNR dB", "top-1", "MB", "p50 ms"], rows)


def lowerings_table() -> str:
    rows = [
        [
            f"{row['converter']} {row['lowering']}",
            f"{row['p50_ms']:.1f}",
            *ratio(row),
            mebibytes(row["peak_memory_bytes"]),
            f"{row['max_abs_error']:.1e}",
        ]
        for row in results("lowerings.json")
    ]
    return markdown(["converter, lowering", "p50 ms", "of its twin", "quartiles", "peak MiB", "max error"], rows)


def tflite_table() -> str:
    (row,) = latency(converter="onnx2tf")
    litert = next(
        r for r in latency(converter="litert-torch") if r["artifact_sha256"] == row["against_artifact_sha256"]
    )
    return markdown(
        ["converter, its best lowering", "p50 ms", "max error", "allowed"],
        [
            [
                f"{r['converter']} {r['lowering']}",
                f"{p50_ms:.1f}",
                f"{r['max_abs_error']:.1e}",
                f"{r['budget_max_abs_error']:.1e}",
            ]
            for r, p50_ms in ((litert, row["against_p50_ms"]), (row, row["p50_ms"]))
        ],
    )


def latency(**wanted: Any) -> list[dict[str, Any]]:
    """The rows of latency.json that have these values."""
    return [row for row in results("latency.json") if all(row[name] == value for name, value in wanted.items())]


def ratio(row: dict[str, Any]) -> list[str]:
    """The median and the quartiles of the rounds' ratios: whatever slows the machine slows both sides of a round."""
    q25, median, q75 = np.percentile(round_ratios(row), [25, 50, 75])
    return [f"{median:.2f}", f"{q25:.2f} to {q75:.2f}"]


def round_ratios(row: dict[str, Any]) -> list[float]:
    """Of a comparison's blocks of samples, the median of one side over that of the other side's beside it."""
    sides = (np.array(row[name]).reshape(-1, BLOCK) for name in ("samples_ms", "against_samples_ms"))
    ours, theirs = (np.median(side, 1) for side in sides)
    return [float(each) for each in ours / theirs]


def mebibytes(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.0f}"


def aims_table() -> str:
    """DMF-XXS, batch 1, one thread."""

    def of(against: str) -> str:
        (row,) = latency(model=MODEL, against=against, batch=1, threads=1)
        return ratio(row)[0]

    counted = results("instructions.json")[f"{MODEL} tflite"]
    (transposes,) = (row["ops"] for row in results("op_costs.json")["kinds"] if row["kind"] == "TRANSPOSE")
    (portable,) = (
        row["runtime"]["delegate_partitions"]
        for row in results("lowerings.json")
        if (row["converter"], row["lowering"]) == ("litert-torch", "matmul/taps")
    )
    rows = [
        ["LiteRT, time: of its twin", of(f"{MODEL}-tflite-twin_twin"), "1.10"],
        ["LiteRT, time: of the naive export", of(f"{MODEL}-tflite-conv_conv"), "0.20"],
        ["LiteRT, time: of MobileNetV3-Large", of("mobilenet_v3_large"), "1.45"],
        ["LiteRT, time: of EfficientNet-B0", of("efficientnet_b0"), "0.60"],
        ["ONNX Runtime, time: of its twin", of(f"{MODEL}-onnx-twin_twin"), "1.10"],
        ["LiteRT, ARM64 instructions", f"{counted['dynamic'] / 1e6:.1f} M", "132 M"],
        ["LiteRT, ARM64 instructions: of its twin", f"{counted['ratio']:.2f}", "1.05"],
        ["LiteRT, TRANSPOSE ops", str(transposes), "what [the tokens](how-it-works.md#layout) need"],
        ["LiteRT, XNNPACK partitions of the portable lowering, matmul/taps", str(portable), "1"],
    ]
    return markdown(["DMF-XXS, one image, one thread", "measured", "aim"], rows)


def twins_table() -> str:
    rows = [
        [
            f"{NAMES[row['model']]}, {RUNTIMES[row['runtime']['name']]} {row['lowering']}",
            str(row["batch"]),
            str(row["threads"]),
            f"{row['p50_ms']:.1f}",
            f"{row['against_p50_ms']:.1f}",
            *ratio(row),
            mebibytes(row["peak_memory_bytes"]),
            mebibytes(row["against_peak_memory_bytes"]),
        ]
        for row in latency()
        if "-twin_twin" in row["against"]
    ]
    header = ["", "batch", "threads", "p50 ms", "twin's", "of its twin", "quartiles", "peak MiB", "twin's"]
    return markdown(header, rows)


def naive_table() -> str:
    rows = [
        [
            f"{RUNTIMES[row['runtime']['name']]} {row['lowering']}",
            f"{row['p50_ms']:.1f}",
            f"{row['against_p50_ms']:.1f}",
            *ratio(row),
            mebibytes(row["peak_memory_bytes"]),
            mebibytes(row["against_peak_memory_bytes"]),
        ]
        for row in latency()
        if row["against"].endswith(("-conv_conv", "-onnx"))
    ]
    header = ["DMF-XXS", "p50 ms", "naive's", "of the naive export", "quartiles", "peak MiB", "naive's"]
    return markdown(header, rows)


def peers_table() -> str:
    rows = [
        [
            f"{NAMES[row['model']]}, of {NAMES[row['against']]}",
            f"{row['p50_ms']:.1f}",
            f"{row['against_p50_ms']:.1f}",
            *ratio(row),
            mebibytes(row["peak_memory_bytes"]),
            mebibytes(row["against_peak_memory_bytes"]),
            f"{TOP1[row['model']]} / {TOP1[row['against']]}",
        ]
        for row in latency()
        if row["against"] in PEERS
    ]
    header = ["LiteRT, one thread", "p50 ms", "peer's", "ratio", "quartiles", "peak MiB", "peer's", "top-1 / peer's, %"]
    return markdown(header, rows)


def conditions_table() -> str:
    rows = latency()
    conditions = [row["conditions"] for row in rows]
    first = conditions[0]
    runtimes = sorted({f"{RUNTIMES[row['runtime']['name']]} {row['runtime']['version']}" for row in rows})
    loads = [each[f"load_average_{when}"] for each in conditions for when in ("before", "after")]
    empty = {row["runtime"]["name"]: mebibytes(row["baseline_memory_bytes"]) for row in rows}
    return markdown(
        ["", "conditions"],
        [
            ["machine", f"{first['cpu']}, {first['machine']}, {first['logical_cores']} cores; {first['os']}"],
            ["runtimes", ", ".join([*runtimes, f"Python {first['python']}"])],
            ["measured", f"{first['measured_at']} to {conditions[-1]['measured_at']}"],
            ["samples of each side", str(len(rows[0]["samples_ms"]))],
            ["load average", f"{min(loads):.1f} to {max(loads):.1f}"],
            ["worker before it loads, MiB", ", ".join(f"{RUNTIMES[name]} {size}" for name, size in empty.items())],
            ["converted at commit", ", ".join(sorted({(row["commit"] or "none")[:7] for row in rows}))],
        ],
    )


def checkpoint_table() -> str:
    path = ROOT / "dmf" / "weights" / "dmf_nano.safetensors"
    with safe_open(path, "pt") as file:
        summary = json.loads(file.metadata()["training"])
    content = path.read_bytes()
    correct, total = summary["heldout_correct"], summary["heldout_images"]
    rows = [
        ["made by", "`dmf-train dmf_nano_digits --out build/digits`"],
        ["held-out accuracy", f"{correct / total:.2%} ({correct} of {total}; trained on {summary['train_images']})"],
        ["time", f"{summary['seconds'] / 60:.1f} minutes on {summary['device']}"],
        ["steps", f"{summary['steps']} in {summary['epochs']} epochs"],
        ["size", f"{len(content) / 1e6:.2f} MB"],
        ["sha256", f"`{hashlib.sha256(content).hexdigest()}`"],
        ["torch", summary["torch"]],
    ]
    return markdown(["dmf_nano.safetensors", ""], rows)


def accuracy_table() -> str:
    rows = []
    for row in results("training/accuracy.json")["rows"]:
        name = " ".join(filter(None, (row["converter"] or "PyTorch", row["lowering"], row["precision"])))
        if "rejected" in row:
            rows.append([name, "rejected by the parity gate", "", ""])
            continue
        rows.append(
            [
                name,
                f"{row['accuracy']:.2%} ({row['correct']} of {row['total']})",
                str(len(row["differing"])),
                f"{row['max_logit_difference']:.1e}",
            ]
        )
    return markdown(["", "accuracy", "predictions unlike PyTorch's in float64", "largest difference of a logit"], rows)


PAPER = {  # top-1 of DMF-XXS: the variant's, and that of what it is compared with
    "without token input": ("Table 3", 74.2, 74.6),
    "without residual kernel": ("Table 3", 73.6, 74.6),
    "with neither": ("Table 3", 73.5, 74.6),
    "softmax": ("Table 6", 72.8, 73.2),
    "random bank": ("Table 7", 72.9, 73.2),
    "4 kernels": ("Table 8", 72.9, 73.6),
    "6 kernels": ("Table 8", 73.2, 73.6),
}


def ablations_table() -> str:
    data = results("training/ablations.json")
    accuracy = {r["variant"]: [100 * c / r["heldout_images"] for c in r["heldout_correct"]] for r in data["rows"]}
    base = accuracy["as published"]
    rows = []
    for name, values in accuracy.items():
        ours = f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"
        if name not in PAPER:
            rows.append([name, ours, "", "", ""])
            continue
        table, theirs, compared = PAPER[name]
        difference = statistics.mean(values) - statistics.mean(base)
        error = ((statistics.variance(values) + statistics.variance(base)) / len(base)) ** 0.5
        verdict = "noise" if abs(difference) < 2 * error else "more than noise"
        rows.append([name, ours, f"{difference:+.1f} ({verdict})", f"{theirs - compared:+.1f}", f"{table}: {theirs}"])
    return markdown(["", "top-1 here, %, mean ± sd", "against as published", "the paper's", "the paper's top-1"], rows)


def routing_table() -> str:
    overall = results("training/routing.json")["overall"]
    rows = [
        [
            "standard deviation of a routing weight over the pictures, median of the layers",
            f"{overall['median_std']:.2f}",
        ],
        ["share of its variance that lies between the classes", f"{overall['median_between_classes']:.0%}"],
        ["the same with shuffled labels", f"{overall['median_between_shuffled']:.1%}"],
        ["accuracy", f"{overall['accuracy']:.2%}"],
        ["accuracy if every picture is routed alike", f"{overall['accuracy_all_routed_alike']:.2%}"],
        ["predictions that this changes", str(overall["predictions_changed"])],
    ]
    return markdown(["do the kernels follow the picture?", ""], rows)


PRECISION_AIMS = {  # of fp32: size, LiteRT's time, ARM64 instructions; and PSNR in dB, points of accuracy lost
    "fp16": ("0.51", "1.00", "1.00", "60", "0.0"),
    "w8": ("0.27", "0.85", "0.90", "40", "0.1"),
    "w8a8": ("0.27", "0.60", "0.50", "30", "0.5"),
}


def by_precision(part: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Each precision with its rows in a part of precision.json, one a format."""
    rows = results("precision.json")[part]
    for precision in dict.fromkeys(row["precision"] for row in rows):
        yield precision, [row for row in rows if row["precision"] == precision]


def precision_cost_table() -> str:
    rows = []
    for precision, each in by_precision("cost"):
        if precision in PRECISION_AIMS:
            size, time, instructions, *_ = PRECISION_AIMS[precision]
            rows.append([f"*{precision}, aim*", "", size, f"{time} in LiteRT", "", instructions, ""])
        for row in each:
            counted = "instructions_ratio" in row
            rows.append(
                [
                    f"{precision}, {ENGINES[row['format']]}",
                    f"{row['size_bytes'] / 1e6:.1f}",
                    f"{row['size_share']:.3f}",
                    *(ratio(row["time"]) if "time" in row else ["on Apple only", ""]),
                    f"{row['instructions_ratio']:.2f} ({row['instructions'] / 1e6:.0f} M)" if counted else "",
                    str(row.get("partitions", "")),
                ]
            )
    header = ["DMF-XXS, one image, one thread", "MB", "of fp32's", "time, of fp32's", "quartiles"]
    return markdown([*header, "ARM64 instructions, of fp32's", "XNNPACK parts"], rows)


def precision_fidelity_table() -> str:
    rows = []
    for precision, each in by_precision("fidelity"):
        if precision in PRECISION_AIMS:
            *_, psnr_db, lost = PRECISION_AIMS[precision]
            rows.append([f"*{precision}, aim*", psnr_db, "", lost, "", ""])
        rows += [
            [
                f"{precision}, {ENGINES[row['format']]}",
                f"{row['psnr_db']:.1f}",
                f"{row['accuracy']:.2%} ({row['correct']} of {row['total']})",
                f"{row['lost_points']:.2f}",
                str(len(row["differing"])),
                f"{row['proof_psnr_db']:.1f}",
            ]
            for row in each
        ]
    header = ["dmf_nano, held-out digits", "PSNR dB", "accuracy", "points lost", "predictions unlike PyTorch's"]
    return markdown([*header, "PSNR dB of the proof's inputs"], rows)


def precision_conditions_table() -> str:
    data = results("precision.json")
    timed = [row["time"] for row in data["cost"] if "time" in row]
    first, tools = timed[0]["conditions"], data["conditions"]["tools"]
    loads = [row["conditions"][f"load_average_{when}"] for row in timed for when in ("before", "after")]
    quantisers = ("ai-edge-quantizer", "onnxruntime", "coremltools")
    pictures = ", ".join(
        f"{ENGINES[row['format']]} {row['calibration']['images']}" for row in data["cost"] if row["calibration"]
    )
    return markdown(
        ["", "conditions"],
        [
            ["machine", f"{first['cpu']}, {first['machine']}, {first['logical_cores']} cores; {first['os']}"],
            ["quantised by", ", ".join(f"{name} {tools[name]}" for name in quantisers)],
            ["calibration of DMF-XXS", f"{data['conditions']['calibration']}; pictures: {pictures}"],
            ["times measured", f"{first['measured_at']} to {timed[-1]['conditions']['measured_at']}"],
            ["samples of each side", str(len(timed[0]["samples_ms"]))],
            ["load average", f"{min(loads):.1f} to {max(loads):.1f}"],
            ["converted at commit", ", ".join(sorted({(row["commit"] or "none")[:7] for row in timed}))],
        ],
    )


def devices_table() -> str:
    """Every phone by package, accelerator and number of threads: the median of its valid runs, and their range."""
    runs: dict[tuple[str, ...], list[LatencyReport]] = {}
    for path in sorted((RESULTS / "devices").glob("*.json")):
        for report in read_results(path).reports:
            device = report.conditions.device
            if device is not None and not report.invalid_because:
                phone = f"{device.manufacturer} {device.model}"
                runtime = f"{report.runtime.name} {report.runtime.version}"
                package = f"{report.package} + objects" if report.post_processing == "runner" else report.package
                key = (phone, report.conditions.os, package, runtime, report.accelerator, str(report.threads))
                runs.setdefault(key, []).append(report)
    if not runs:
        return "No phone has been measured yet; [docs/measure-on-a-phone.md](docs/measure-on-a-phone.md) says how."
    rows = []
    for key, reports in sorted(runs.items()):
        p50_ms = [report.p50_ms for report in reports]
        loads_ms = [report.cold_load_ms for report in reports]
        peaks = [report.peak_memory_bytes or 0 for report in reports]
        spread = f"{statistics.median(p50_ms):.2f} ({min(p50_ms):.2f} to {max(p50_ms):.2f})"
        rows.append([*key, spread, f"{statistics.median(loads_ms):.0f}", mebibytes(max(peaks)), str(len(reports))])
    header = ["phone", "system", "package", "runtime", "on", "threads", "p50 ms (runs)", "load ms", "peak MiB", "runs"]
    return markdown(header, rows)


def detection_counts_table() -> str:
    rows = [
        [
            f"{row['detector']}, {row['height']} x {row['width']}",
            f"{row['parameters'] / 1e6:.2f}",
            f"{row['trained_parameters'] / 1e6:.2f}",
            f"{row['paper_parameters_millions']}",
            f"{row['macs'] / 1e9:.1f}",
            f"{row['as_the_papers_tool'] / 1e9:.1f}",
            f"{row['paper_gflops']}",
        ]
        for row in results("detection_counts.json")["rows"]
    ]
    header = ["", "parameters, M", "not frozen", "paper", "products, G", "as the paper's tool", "paper"]
    return markdown(header, rows)


def detection_steps_table() -> str:
    parts = ("macs", "dynamic_convolutions", "attention", *OPERATIONS, "as_the_papers_tool")
    rows = [
        [f"{row['detector']}, {row['height']} x {row['width']}", *(f"{row[part] / 1e9:.2f}" for part in parts)]
        for row in results("detection_counts.json")["rows"]
    ]
    signs = ["products, G", "- dynamic convolutions", "- attention", *(f"+ {name}" for name in OPERATIONS)]
    return markdown(["", *signs, "= the tool's"], rows)


def detection_lowerings_table() -> str:
    rows = [
        [
            f"{row['height']} x {row['width']}, {row['converter']} {row['lowering']}",
            f"{row['p50_ms']:.0f}",
            f"{row['ratio']:.2f}",
            f"{row['ratio_q25']:.2f} to {row['ratio_q75']:.2f}",
            f"{row['memory_bytes'] / 2**20:.0f}",
            f"{row['max_rel_error']:.0e}",
        ]
        for row in sorted(results("detection_lowerings.json"), key=lambda row: row["height"])
    ]
    return markdown(["", "p50 ms", "of its twin", "quartiles", "MiB", "largest relative error"], rows)


TABLES: dict[str, dict[str, Callable[[], str]]] = {  # document -> marker -> table
    "README.md": {
        "export": export_table,
        "lowerings": lowerings_table,
        "tflite": tflite_table,
        "devices": devices_table,
    },
    "docs/training.md": {
        "checkpoint": checkpoint_table,
        "accuracy": accuracy_table,
        "ablations": ablations_table,
        "routing": routing_table,
    },
    "docs/benchmarks.md": {
        "aims": aims_table,
        "twins": twins_table,
        "naive": naive_table,
        "peers": peers_table,
        "conditions": conditions_table,
    },
    "docs/detection.md": {
        "counts": detection_counts_table,
        "steps": detection_steps_table,
        "lowerings": detection_lowerings_table,
    },
    "docs/precision.md": {
        "cost": precision_cost_table,
        "fidelity": precision_fidelity_table,
        "conditions": precision_conditions_table,
    },
}


def filled(document: str, text: str) -> str:
    """`text` with every table of the document between its markers made anew."""
    for name, table in TABLES[document].items():
        pattern = rf"(<!-- {name}: [^\n]*-->\n).*?(<!-- end -->)"
        text, count = re.subn(pattern, lambda m, t=table: f"{m[1]}{t()}\n{m[2]}", text, flags=re.DOTALL)
        assert count == 1, f"{count} places for the table {name}"
    return text


def main() -> int:
    for document in TABLES:
        path = ROOT / document
        path.write_text(filled(document, path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
