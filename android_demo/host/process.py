"""Tools that are run: what they print is kept, and an error of one line tells the first thing that they complain of."""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from runtime.errors import RunnerError

TIMEOUT_S = 600.0


class ToolError(RunnerError):
    """A tool failed. ``output`` is all that it said."""

    def __init__(self, message: str, output: str) -> None:
        super().__init__(message)
        self.output = output


def run(command: Sequence[str | Path], failure: str, folder: Path | None = None) -> str:
    """What the command prints, on stdout and stderr together.

    ToolError: it failed; ``failure`` and its first complaint.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            timeout=TIMEOUT_S,
        )
    except FileNotFoundError as error:
        raise ToolError(f"{failure}: this machine has no {words[0]}", "") from error
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{failure}: {words[0]} took longer than {TIMEOUT_S:g} s", "") from error
    if done.returncode != 0:
        told = _complaints(done.stdout) or [f"{words[0]} exited with {done.returncode}"]
        others = f" (and {len(told) - 1} more)" if len(told) > 1 else ""
        raise ToolError(f"{failure}: {told[0]}{others}", done.stdout)
    return done.stdout


def _complaints(output: str) -> list[str]:
    """Errors in a file's line, else whatever is in a file's line, else whatever is an error, else the last words."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    placed = [line for line in lines if re.match(r"\S+:\d+:", line)]
    errors = [line for line in lines if re.search(r"\berror\b", line, re.IGNORECASE)]
    return [line for line in placed if line in errors] or placed or errors or lines[-1:]


def java(
    class_path: Sequence[Path],
    main: str,
    arguments: Sequence[str | Path],
    failure: str,
    properties: Sequence[str] = (),
    folder: Path | None = None,
) -> str:
    """`run` of a Java program that does not live long: the quick compiler alone pays off."""
    quick = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx1g")
    return run(["java", *quick, *properties, "-cp", joined(class_path), main, *arguments], failure, folder)


def joined(class_path: Sequence[Path]) -> str:
    """As Java's tools take it."""
    return ":".join(str(path) for path in class_path)
