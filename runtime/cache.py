"""Where the toolkit keeps what it would be slow to make again."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folder() -> Path:
    """``$DMF_CACHE``, or ``dmf`` in the user's cache folder. It may not exist yet."""
    user_cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("DMF_CACHE") or Path(user_cache) / "dmf").absolute()


@contextmanager
def alone(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """One process at a time fills ``folder``, in subfolders ``filling-*``, of which one that was killed leaves none."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process, which is filling {folder}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for left in folder.glob("filling-*"):
            shutil.rmtree(left)
        yield
