"""Where packages go: whole or not at all, and what was rejected beside them."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.errors import UsageError
from runtime.manifest import MANIFEST_NAME

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def check_destination(out: Path, name: str, overwrite: bool) -> None:
    """Refuse, before any work, a place where the package can't be written. Raises `UsageError`."""
    for folder in (out, *out.parents):
        if folder.exists():
            break
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file, not a folder; give another --out")
    try:  # what os.access says isn't so for root
        tempfile.TemporaryDirectory(prefix=f".{name}.", dir=folder).cleanup()
    except OSError as error:
        raise UsageError(f"{folder} can't be written to ({error.strerror}); give another --out") from error
    destination = out / name
    if destination.exists() and not overwrite:
        raise UsageError(f"{destination} exists already; give --overwrite to replace it, or another --out")
    if destination.exists() and not (destination / MANIFEST_NAME).is_file():
        raise UsageError(f"{destination} is not a package; remove it, or give another --out")


@contextmanager
def workspace(out: Path, name: str, needed_bytes: int) -> Iterator[Path]:
    """A folder in `out` that is gone afterwards. `UsageError` for a disk that is full, or too full from the start."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(out).free) < needed_bytes:  # some converters don't survive to say so
            raise OSError(errno.ENOSPC, f"{free / 1e6:.1f} MB free, {needed_bytes / 1e6:.1f} MB needed", str(out))
        with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=out) as folder:
            yield Path(folder)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise UsageError(f"disk full: {out} ({error.strerror}); free some space, or give another --out") from error
        raise


def put_in_place(package: Path, destination: Path, replaced: Path, overwrite: bool) -> None:
    """Rename `package` to `destination`. What was there goes to `replaced`, and back again if that fails."""
    try:
        if destination.exists() and overwrite:
            destination.replace(replaced)
        package.replace(destination)
    except BaseException:
        if replaced.exists() and not destination.exists():
            replaced.replace(destination)
        raise


def keep_rejected(folder: Path, rejected: Path) -> None:
    """Rename `folder` to `rejected`, in place of what an earlier failure left there."""
    shutil.rmtree(rejected, ignore_errors=True)
    rejected.parent.mkdir(exist_ok=True)
    folder.replace(rejected)


def disk_full(error: BaseException | None) -> OSError | None:
    """What `error` says of a full disk, itself or as a converter passed it on."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            return error
        if isinstance(error, shutil.Error) and os.strerror(errno.ENOSPC) in str(error):  # many errors in one
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        error = error.__cause__ or error.__context__
    return None
