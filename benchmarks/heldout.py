"""A trained checkpoint and the pictures it was not trained on: what accuracy and routing are measured with."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import dmf
from benchmarks.run import RESULTS
from dmf.training.augment import eval_crop
from dmf.training.config import read
from dmf.training.data import load
from export import provenance
from export.cli import load_model
from export.provenance import Origin
from runtime.commandline import ArgumentParser

TRAINING_RESULTS = RESULTS / "training"


@dataclass(frozen=True, eq=False)
class Heldout:
    """`images` uint8 (N, S, S, 3), as the packages' preprocessing gives them, and `labels` (N)."""

    model: dmf.DMF
    origin: Origin
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    conditions: dict[str, Any]


def parse(description: str, argv: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser(description=description)
    parser.add_argument("--checkpoint", help="trained weights (default: those that come with the model)")
    parser.add_argument("--model", default="dmf_nano", choices=list(dmf.VARIANTS), help="their variant")
    parser.add_argument("--config", default="dmf_nano_digits", help="the recipe, which says what was held out")
    return parser.parse_args(argv)


def open_heldout(arguments: Namespace) -> Heldout:
    """Raises `UsageError` for a checkpoint, recipe or data set that can't be read."""
    model, origin = load_model(arguments.model, arguments.checkpoint, None, None)
    data = read(arguments.config).data
    heldout = load(data).heldout
    size = model.config.image_size
    images = np.stack([np.asarray(eval_crop(heldout.picture(i), size)) for i in range(len(heldout))])
    conditions = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "checkpoint": asdict(provenance.checkpoint(model, origin)),
        "data": asdict(data),
        "images": len(heldout),
        "source": asdict(provenance.source()),
        "tools": provenance.tools() | {name: version(name) for name in ("pillow", "scikit-learn")},
        "threads": torch.get_num_threads(),
    }
    return Heldout(model, origin, images, np.array(heldout.labels), heldout.classes, conditions)
