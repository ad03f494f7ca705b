"""What converters and their libraries print, kept out of the terminal."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path


@contextmanager
def captured(log: Path) -> Iterator[None]:
    """Everything that this process prints meanwhile, native libraries included, goes to the log.

    The terminal is given back whatever happens, even if the log can't be written.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with log.open("ab") as file, ExitStack() as undo:  # undone in reverse
        for stream in (1, 2):
            saved = os.dup(stream)
            undo.callback(os.close, saved)
            undo.callback(os.dup2, saved, stream)
            os.dup2(file.fileno(), stream)
        undo.callback(sys.stdout.flush)
        undo.callback(sys.stderr.flush)
        yield
