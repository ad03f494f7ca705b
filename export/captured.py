"""What converters do to a terminal: what they print is kept out of it, and Ctrl-C ends them for certain."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType


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


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C ends the body, or is raised after it: converters may swallow it, or make another error of it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, interrupted = signal.getsignal(signal.SIGINT), False

    def remember(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        signal.default_int_handler(number, frame)

    if before is signal.default_int_handler:  # not where Ctrl-C is ignored, or someone else's
        signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if interrupted:
            raise KeyboardInterrupt
