"""What the commands share: one-line errors, exit codes, and one line of progress per stage."""

import argparse
import difflib
import errno
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from runtime.errors import CommandError, UsageError

INTERRUPTED = 130  # 128 + SIGINT
READER_LEFT = 141  # 128 + SIGPIPE


def nearest(given: str, allowed: Iterable[str]) -> str:
    """``"; did you mean 'onnx'?"`` for the allowed name nearest to ``given``, or nothing."""
    close = difflib.get_close_matches(given, list(allowed), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def whole_number(minimum: int) -> Callable[[str], int]:
    """A parser for ``type=`` that takes whole numbers from ``minimum`` up."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number >= {minimum}")
        return value

    return parse


def positive(text: str) -> float:
    """A parser for ``type=`` that takes finite numbers above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


class ArgumentParser(argparse.ArgumentParser):
    """An argparse parser whose errors are UsageErrors that name the nearest choice or flag."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **kwargs)

    def parse_args(  # type: ignore[override]  # the overloads say nothing more here
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        known, unknown = self.parse_known_args(args, namespace)
        if unknown:
            flag = unknown[0].split("=")[0]
            flags = self._option_string_actions
            self.error(f"unknown argument {unknown[0]!r}{nearest(flag, flags)} (see --help)")
        return known

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            raise argparse.ArgumentError(
                action,
                f"{value!r} is not one of {', '.join(choices)}{nearest(str(value), choices)}",
            )

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def run(prog: str, command: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Run ``command(argv)`` and return its exit code.

    What ends it early becomes one line on stderr.

    CommandError gives its own code, a file that cannot be read or written 2, Ctrl-C 130, a closed
    pipe 141 without a word. Anything else is a bug and keeps its traceback.
    """
    try:
        code = command(argv)
        sys.stdout.flush()
        return code
    except CommandError as error:
        _complain(prog, str(error))
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # What is still buffered must not fail again when the interpreter flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_LEFT
    except OSError as error:
        reason = "disk full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        _complain(prog, f"{reason}: {error.filename}" if error.filename else reason)
        return UsageError.exit_code


def _complain(prog: str, message: str) -> None:
    print(f"{prog}: error: {' '.join(message.split())}", file=sys.stderr)


class Progress:
    """One line per stage on stderr, with its time; ``quiet`` silences it."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet

    def say(self, line: str) -> None:
        """Print a line of its own."""
        if not self._quiet:
            print(line, file=sys.stderr, flush=True)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Print ``name`` and how long the body took, or after how long it failed."""
        if not self._quiet and sys.stderr.isatty():
            print(f"{name} ...", end="\r", file=sys.stderr, flush=True)
        start, end = time.perf_counter(), "failed after "
        try:
            yield
            end = ""
        finally:
            if not self._quiet:
                seconds = time.perf_counter() - start
                print(f"{name}: {end}{seconds:.1f} s", file=sys.stderr, flush=True)


SILENT = Progress(quiet=True)
