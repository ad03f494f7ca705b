"""Where the toolkit keeps what it would be slow to make again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """``$DMF_CACHE``, or ``dmf`` in the user's cache folder. It may not exist yet."""
    user_cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("DMF_CACHE") or Path(user_cache) / "dmf").absolute()
