"""ARM64 instructions per inference, the regression bar that noise can't touch: `make instructions`.

Every model below by its default lowering and its static twin, in each format that can be emulated, on one thread of a
Cortex-A76. Without arguments the counts are compared with those stored in benchmarks/results/instructions.json, and one
that is more than 3 % higher, or a ratio to the twin that is, fails; `--store` stores them instead.
"""

import json
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dmf
from benchmarks.run import RESULTS, write
from export.pipeline import prepare, write_package
from export.plan import make_plan
from export.provenance import Origin
from runtime.commandline import Progress
from runtime.instructions import count

MODELS = ("dmf_nano", "dmf_xxs")
FORMATS = ("tflite", "onnx")
CPU, SEED = "cortex-a76", 0
ALLOWED = 1.03
STORED = "instructions.json"


def main(argv: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--store", action="store_true", help="store the counts instead of checking them")
    store = parser.parse_args(argv).store
    found = measure(Progress())
    if store:
        write(STORED, found)
        return 0
    faults = regressions(found, json.loads((RESULTS / STORED).read_text(encoding="utf-8")))
    print(json.dumps(found, indent=1))
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return 1 if faults else 0


def measure(progress: Progress) -> dict[str, Any]:
    """Model and format -> instructions of the default lowering and of its twin, and their ratio."""
    found: dict[str, Any] = {}
    for name in MODELS:
        prepared = prepare(dmf.seed_weights(dmf.create_model(name), SEED), Origin(seed=SEED), progress)
        with tempfile.TemporaryDirectory() as out:
            plans = [
                make_plan(prepared.model, format, lowering=lowering)
                for format in FORMATS
                for lowering in (None, "twin/twin")
            ]
            packages = [write_package(plan, prepared, Path(out), False, progress) for plan in plans]
            with progress.stage(f"{name}: count on {CPU}"):
                counts = [report.instructions for report in count(packages, CPU)]
        for i, format in enumerate(FORMATS):
            dynamic, twin = counts[2 * i : 2 * i + 2]
            lowering = str(plans[2 * i].lowering)
            found[f"{name} {format}"] = {
                "lowering": lowering,
                "dynamic": dynamic,
                "twin": twin,
                "ratio": dynamic / twin,
            }
    return found


def regressions(found: dict[str, Any], stored: dict[str, Any]) -> list[str]:
    """What got more than 3 % worse, and what is not stored at all."""
    faults = [f"{name} is not in {STORED}; store it with --store" for name in found if name not in stored]
    for name in found.keys() & stored.keys():
        for figure in ("dynamic", "ratio"):
            now, before = found[name][figure], stored[name][figure]
            if now > ALLOWED * before:
                faults.append(
                    f"{name}: {figure} {now:.4g} was {before:.4g}; mend it, or store it with --store and say why"
                )
    return faults


if __name__ == "__main__":
    sys.exit(main())
