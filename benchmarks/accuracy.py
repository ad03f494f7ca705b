"""Whether exported artifacts classify the whole held-out set as PyTorch does: `python -m benchmarks.accuracy`.

Every converter's artifact, at its default lowering, sees every picture; Core ML programs are interpreted op by op.
Results go to benchmarks/results/training/accuracy.json. The exit code is 1 if an fp32 artifact predicts another class
than PyTorch anywhere, or if one could not be proven.
"""

import copy
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.heldout import TRAINING_RESULTS, Heldout, open_heldout, parse
from export.pipeline import Prepared, prepare, write_package
from export.plan import make_plan
from export.verify.artifact import run_artifact
from export.verify.inputs import normalize
from export.verify.reference import Values
from runtime import commandline
from runtime.commandline import Progress
from runtime.errors import ParityError

ROUTES = [  # format, converter, precision
    ("onnx", "torch-onnx", "fp32"),
    ("tflite", "litert-torch", "fp32"),
    ("tflite", "onnx2tf", "fp32"),
    ("coreml", "coremltools", "fp32"),
    ("coreml", "coremltools", "fp16"),
]


def main(argv: Sequence[str] | None = None) -> int:
    heldout = open_heldout(parse(__doc__, argv))
    progress = Progress()
    with progress.stage("PyTorch, float64 and float32"):
        oracle = pytorch(heldout, torch.float64)
        rows = [
            row(heldout, oracle, logits, format="pytorch", converter=None, precision=precision, lowering=None)
            for precision, logits in (("float64", oracle), ("float32", pytorch(heldout, torch.float32)))
        ]
    prepared = prepare(heldout.model, heldout.origin, progress)
    for format, converter, precision in ROUTES:
        rows.append(exported(heldout, oracle, prepared, format, converter, precision, progress))
    TRAINING_RESULTS.mkdir(parents=True, exist_ok=True)
    results = {"conditions": heldout.conditions, "rows": rows}
    (TRAINING_RESULTS / "accuracy.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for each in rows:
        print(summary(each))
    wrong = [each for each in rows if each.get("rejected") or (each["differing"] and each["precision"] != "fp16")]
    for each in wrong:
        name = f"{each['format']} by {each['converter']}, {each['precision']}"
        print(f"error: {name}: {each.get('rejected') or each['differing']}", file=sys.stderr)
    return 1 if wrong else 0


@torch.no_grad()
def pytorch(heldout: Heldout, dtype: torch.dtype) -> Values:
    """Logits (N, classes) of the eager model in `dtype`, one picture at a time."""
    model = copy.deepcopy(heldout.model).to(dtype).eval()
    return torch.cat([model(x) for x in normalize(heldout.images, dtype).split(1)]).double().numpy()


def exported(
    heldout: Heldout,
    oracle: Values,
    prepared: Prepared,
    format: str,
    converter: str,
    precision: str,
    progress: Progress,
) -> dict[str, Any]:
    """The row of one artifact, made, proven and run here."""
    plan = make_plan(heldout.model, format, converter=converter, precision=precision)
    about = {"format": format, "converter": converter, "precision": precision, "lowering": str(plan.lowering)}
    with tempfile.TemporaryDirectory() as out:
        try:
            package = write_package(plan, prepared, Path(out), False, progress)
        except ParityError as error:
            return {**about, "rejected": str(error).replace(out, "")}
        with progress.stage(f"{plan.name}: {len(heldout.labels)} pictures"):
            given, run_by = run_artifact(format, package.artifact, package.manifest.inputs[0], heldout.images)
            logits = np.concatenate(given["logits"]).astype(np.float64)
    return row(heldout, oracle, logits, **about, run_by=run_by)


def row(heldout: Heldout, oracle: Values, logits: Values, **about: str | None) -> dict[str, Any]:
    """The figures of logits (N, classes); `differing` lists the pictures whose class is not PyTorch's in float64."""
    predicted, reference = logits.argmax(1), oracle.argmax(1)
    ranked = np.sort(oracle, 1)
    return {
        **about,
        "correct": int((predicted == heldout.labels).sum()),
        "total": len(heldout.labels),
        "accuracy": float((predicted == heldout.labels).mean()),
        "differing": [
            {
                "index": int(i),
                "label": heldout.classes[heldout.labels[i]],
                "pytorch": heldout.classes[reference[i]],
                "artifact": heldout.classes[predicted[i]],
            }
            for i in np.flatnonzero(~(predicted == reference))
        ],
        "max_logit_difference": float(np.abs(logits - oracle).max()),
        "largest_logit": float(np.abs(oracle).max()),
        "smallest_margin": float((ranked[:, -1] - ranked[:, -2]).min()),
    }


def summary(row: dict[str, Any]) -> str:
    name = f"{row['format']:8} {row['converter'] or '-':13} {row['precision']:8} {row['lowering'] or '-':12}"
    if "rejected" in row:
        return f"{name} rejected"
    return (
        f"{name} {row['correct']} of {row['total']} = {row['accuracy']:.2%}; "
        f"{len(row['differing'])} predictions differ, logits by {row['max_logit_difference']:.1e} at most"
    )


if __name__ == "__main__":
    sys.exit(commandline.run("benchmarks.accuracy", main))
