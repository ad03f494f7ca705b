"""A run of well under a second: a network of two blocks on pictures of 16 px, and the pictures."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dmf.training.config import TrainingConfig
from dmf.training.data import Digits, Splits
from dmf.training.distributed import Processes
from dmf.training.loop import Trainer

TINY = {
    "model": {
        "variant": "dmf_nano",
        "image_size": 16,
        "block_hidden": [16, 16],
        "block_channels": [8, 8],
        "cross_heads": [2, 2],
        "downsample": [0, 1],
        "end_channels": 16,
        "head_hidden": 16,
        "token_dim": 16,
        "num_kernels": 4,
        "bank_init": "random",
    },
    "data": {"name": "digits"},
    "augment": {"crop_scale": [0.5, 1.0], "flip": 0.5},
    "sampler": {"batch_size": 8, "sizes": [16, 24]},
    "optimizer": {"lr": 5e-3, "weight_decay": 0.05, "label_smoothing": 0.1, "clip": 5.0},
    "schedule": {"epochs": 3, "warmup_epochs": 1, "temperature": 4.0, "temperature_epochs": 2},
    "ema": {"decay": 0.9},
    "run": {"seed": 5},
}
ALONE = Processes(torch.device("cpu"))


def tiny_config(**changes) -> TrainingConfig:
    """`section={field: value}` over `TINY`."""
    return TrainingConfig.from_dict({name: table | changes.get(name, {}) for name, table in TINY.items()})


def patterns(count: int, seed: int = 0) -> tuple[np.ndarray, list[int]]:
    """uint8 (count, 16, 16) and labels: stripes, upright or lying, in noise."""
    rng = np.random.default_rng(seed)
    labels = [i % 2 for i in range(count)]
    stripes = (np.indices((16, 16)) // 4 % 2 * 150).astype(np.uint8)
    return np.stack([stripes[label] + rng.integers(0, 100, (16, 16), np.uint8) for label in labels]), labels


def tiny_splits(count: int = 40) -> Splits:
    return Splits(Digits(*patterns(count)), Digits(*patterns(count // 2, 1)))


def tiny_trainer(count: int = 40, **changes) -> Trainer:
    return Trainer(tiny_config(**changes), tiny_splits(count), ALONE)


def to_end(trainer: Trainer, checkpoint=lambda: None) -> Trainer:
    trainer.run(checkpoint, lambda *_: None, lambda _: None)
    return trainer


def write_folder(root: Path, count: int = 40) -> dict:
    """The pictures of `tiny_splits` as a folder tree; returns the data section that names it."""
    for split, pictures in zip(("train", "val"), (patterns(count), patterns(count // 2, 1)), strict=True):
        for i, (pixels, label) in enumerate(zip(*pictures, strict=True)):
            path = root / split / ("upright", "lying")[label] / f"{i:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return {"name": "folder", "path": str(root)}


def tensors(state, prefix="") -> dict[str, torch.Tensor]:
    """Every tensor in nested dicts and lists, by its path."""
    if isinstance(state, torch.Tensor):
        return {prefix: state}
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list | tuple) else ()
    return {k: v for key, value in items for k, v in tensors(value, f"{prefix}/{key}").items()}


def same_bits(a, b) -> bool:
    a, b = tensors(a), tensors(b)
    return a.keys() == b.keys() and len(a) > 0 and all(torch.equal(a[k], b[k]) for k in a)
