"""The checkpoints that come with the package: really trained, on data small enough for it (docs/training.md)."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"


def pretrained(variant: str) -> Path | None:
    """The checkpoint of a variant that has one, for `load_checkpoint`."""
    path = WEIGHTS / f"{variant}.safetensors"
    return path if path.is_file() else None
