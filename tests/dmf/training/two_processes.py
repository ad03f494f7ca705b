"""What test_distributed.py starts under torchrun: runs in float64, each with something different; argv[1]: a folder."""

import sys
from pathlib import Path

import torch
from tiny_run import tiny_config, tiny_splits, to_end

from dmf.training import loop, run
from dmf.training.distributed import Processes, joined

# nothing that each process draws for itself
QUIET = {"model": {"dropout": 0.0, "drop_path": 0.0}, "sampler": {"batch_size": 16, "sizes": [16, 24]}}
CASES = {
    "plain": QUIET,
    "accumulated": QUIET | {"sampler": {"batch_size": 32, "accumulate": 2, "sizes": [16, 24]}},
    "own batch norm": QUIET,  # the negative control: each process by itself
}


def outcome(name: str, processes: Processes, count: int = 80) -> dict:
    """State at the end and held-out loss."""
    torch.set_default_dtype(torch.float64)
    join = loop.join_batch_norms
    if name == "own batch norm":
        loop.join_batch_norms = lambda *_: None
    try:
        trainer = to_end(loop.Trainer(tiny_config(**CASES[name]), tiny_splits(count), processes))
    finally:
        loop.join_batch_norms = join
        torch.set_default_dtype(torch.float32)
    return {k: v for k, v in trainer.state().items() if k in ("model", "average", "position", "history")}


if __name__ == "__main__":
    out = Path(sys.argv[1])
    with joined("cpu") as processes:
        for name in CASES:
            result = outcome(name, processes)
            torch.save(result, out / f"{name} {processes.rank}.pt")
        data = {"name": "folder", "path": str(out / "data"), "unreadable": "skip"}
        config = tiny_config(data=data)
        run.train(config, out / "run", processes, resume=False, quiet=True)
