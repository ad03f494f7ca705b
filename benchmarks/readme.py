"""The README's tables, from benchmarks/results: `python -m benchmarks.readme` writes them between their markers."""

import json
import re
import sys
from pathlib import Path
from typing import Any

from benchmarks.run import RESULTS

README = Path(__file__).parent.parent / "README.md"


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
            f"{row['ratio']:.2f}",
            f"{row['ratio_q25']:.2f} to {row['ratio_q75']:.2f}",
            f"{row['peak_memory_bytes'] / 2**20:.0f}",
            f"{row['max_abs_error']:.1e}",
        ]
        for row in results("lowerings.json")
    ]
    return markdown(["converter, lowering", "p50 ms", "of its twin", "quartiles", "peak MiB", "max error"], rows)


def tflite_table() -> str:
    row = results("tflite_converters.json")
    litert = next(
        r for r in results("lowerings.json") if (r["converter"], r["lowering"]) == ("litert-torch", "matmul/conv")
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


TABLES = {"export": export_table, "lowerings": lowerings_table, "tflite": tflite_table}


def filled(text: str) -> str:
    """`text` with every table between its markers made anew."""
    for name, table in TABLES.items():
        pattern = rf"(<!-- {name}: [^\n]*-->\n).*?(<!-- end -->)"
        text, count = re.subn(pattern, lambda m, t=table: f"{m[1]}{t()}\n{m[2]}", text, flags=re.DOTALL)
        assert count == 1, f"{count} places for the table {name}"
    return text


def main() -> int:
    README.write_text(filled(README.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
