"""The paper's ablations of dynamic convolution, at this scale: `python -m benchmarks.ablations`, about half an hour.

dmf_nano at 32 px on half of the digits, tested on the other half, by the shipped recipe in fewer epochs; each variant
with the same three seeds. Runs that are finished already (in build/ablations) are not repeated. The results, in
benchmarks/results/training/ablations.json, are what docs/training.md shows.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.run import write

RUNS = Path("build/ablations")
SEEDS = (0, 1, 2)
RECIPE = {
    "data.heldout_share": 0.5,
    "model.image_size": 32,
    "sampler.sizes": [32],
    "schedule.epochs": 12,
    "schedule.warmup_epochs": 1,
    "schedule.temperature_epochs": 3,
}
VANILLA = {"routing": "softmax", "residual_kernel": False, "bank_init": "random", "num_kernels": 4}
VARIANTS: dict[str, dict[str, Any]] = {  # changes to the model
    "as published": {},
    "without token input": {"token_input": False},
    "without residual kernel": VANILLA,
    "with neither": {"token_input": False, **VANILLA},
    "softmax": {"routing": "softmax"},
    "random bank": {"bank_init": "random"},
    "4 kernels": {"num_kernels": 4},
    "6 kernels": {"num_kernels": 6},
}


def main() -> int:
    jobs = [(name, seed) for seed in SEEDS for name in VARIANTS]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        summaries = list(pool.map(lambda job: run(*job), jobs))
    rows = []
    for name, changes in VARIANTS.items():
        runs = [s for (job, _), s in zip(jobs, summaries, strict=True) if job == name]
        rows.append(
            {
                "variant": name,
                "model": changes,
                "heldout_correct": [s["heldout_correct"] for s in runs],
                "heldout_images": runs[0]["heldout_images"],
                "seeds": list(SEEDS),
                "seconds": [round(s["seconds"], 1) for s in runs],
            }
        )
    first = summaries[0]
    write(
        "training/ablations.json",
        {"recipe": first["config"], "torch": first["torch"], "device": first["device"], "rows": rows},
    )
    return 0


def run(name: str, seed: int) -> dict[str, Any]:
    """One run to its end, on one thread; its summary."""
    out = RUNS / f"{name.replace(' ', '-')}-{seed}"
    if not (out / "summary.json").exists():
        changes = {**RECIPE, "run.seed": seed, **{f"model.{k}": v for k, v in VARIANTS[name].items()}}
        sets = [part for k, v in changes.items() for part in ("--set", f"{k}={json.dumps(v)}")]
        resume = ["--resume"] if (out / "state.pt").exists() else []
        command = [sys.executable, "-m", "dmf.training.cli", "dmf_nano_digits", "--out", str(out), "--quiet"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([*command, *sets, *resume], env=environment, stdout=subprocess.DEVNULL, check=True)
        print(f"{name}, seed {seed}: done", file=sys.stderr, flush=True)
    return json.loads((out / "summary.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
