"""A run's one checkpoint file: written whole, read without executing anything, and the reason a run stops early."""

import io
import os
from pathlib import Path
from typing import Any

import torch

from runtime.errors import CommandError, UsageError

FORMAT = 2
PARTIAL = ".partial"


class TrainingStopped(CommandError):
    """The run can't go on; the message names its last good checkpoint."""

    exit_code = 6


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file at once: whoever is killed or runs out of disk here leaves the old file or the new one.

    Raises `OSError` that names the file.
    """
    partial = path.with_name(path.name + PARTIAL)
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # or the rename itself may be lost with the power
    finally:
        os.close(folder)


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a run's state, tensors and plain values. Raises `OSError` that names the file."""
    # serialized in memory first: torch's own writer hides a full disk behind a RuntimeError
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content}, buffer)
    write_whole(path, buffer.getvalue())


def load(path: Path) -> dict[str, Any]:
    """What `save` wrote, its tensors on the CPU. Raises `UsageError`."""
    if not path.is_file():
        raise UsageError(f"{path}: no such checkpoint, so there is nothing to resume; start without --resume")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on a damaged file torch raises whatever its parser stumbles over
        raise UsageError(f"{path}: damaged, or no checkpoint of a run; start again in another folder") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UsageError(f"{path}: not a run's checkpoint of format {FORMAT}, which this version reads")
    return content
