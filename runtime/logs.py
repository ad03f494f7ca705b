"""What a device said that is too long for a message."""

import re
from datetime import UTC, datetime
from pathlib import Path

from runtime.cache import cache_folder


def keep_log(where: str, text: str) -> Path:
    """Write ``text`` to a new file in the cache, named for where it is from; the file."""
    folder = cache_folder() / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    path = folder / f"{re.sub(r'[^A-Za-z0-9.]+', '-', where)}-{stamp}.log"
    path.write_text(text, encoding="utf-8")
    return path
