"""Phones over adb, Android's own client: find them, run commands, push and pull files.

A push is checked by SHA-256 and resumed: a file goes in pieces that are appended on the phone, and what is already
there is kept if it is the beginning of the file.
"""

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from runtime.errors import RunnerError

PIECE_BYTES = 16 << 20
TIMEOUT_S = 120.0  # of one command; the slowest is a piece over USB 2
NO_SUCH_COMMAND = 127  # a shell's exit code
REFUSED = re.compile(r"Permission denied|Read-only|Not a directory|No such file|remote .*failed", re.IGNORECASE)
STATES = {
    "unauthorized": "does not trust this computer yet: unlock it and allow USB debugging",
    "authorizing": "is being asked whether it trusts this computer: unlock it and allow USB debugging",
    "offline": "is offline: unplug it and plug it in again",
    "no": "may not be opened by this user: see the udev rules for Android, or plugdev",
    "recovery": "is in recovery mode: start it normally",
    "sideload": "is in sideload mode: start it normally",
    "bootloader": "is in its bootloader: start it normally",
}


class Unplugged(RunnerError):
    """The phone was there and is not any more."""


class OutOfSpace(RunnerError):
    """The phone's storage is full."""


@dataclass(frozen=True)
class Answer:
    """What a command on the phone wrote, and its exit code."""

    stdout: str
    stderr: str
    code: int

    @property
    def last_words(self) -> str:
        """One line for a message."""
        return " ".join((self.stderr.strip() or self.stdout.strip()).split())[-300:] or f"exit code {self.code}"


def find_adb() -> str:
    """The client: on PATH, or in the SDK that ANDROID_HOME names. RunnerError: neither."""
    beside = Path(os.environ.get("ANDROID_HOME", "/nowhere")) / "platform-tools" / "adb"
    found = shutil.which("adb") or (str(beside) if beside.exists() else None)
    if found is None:
        raise RunnerError(
            "no adb on PATH, nor under ANDROID_HOME: install Android's platform-tools (on Debian: apt-get install adb)"
        )
    return found


def phones(select: str | None = None) -> list["Phone"]:
    """The phones to use: the only one there is, the one with serial number ``select``, or every one for ``"all"``.

    RunnerError: no adb, no phone, several and none selected, or one that can't be used, with what to do. Of all, those
    that can't be used have a ``problem``.
    """
    adb = find_adb()
    listing = _answer(_start([adb, "devices"]), TIMEOUT_S)
    if listing.code:
        raise RunnerError(f"adb can't list phones: {listing.last_words}")
    states = dict(re.findall(r"^([^\t\n]+)\t(\w+)", listing.stdout.partition("attached")[2], re.MULTILINE))
    if not states:
        raise RunnerError("adb sees no phone: plug one in and enable USB debugging in its developer options")
    if select not in (None, "all"):
        if select not in states:
            raise RunnerError(f"adb sees no phone {select}; it sees {', '.join(states)}")
        states = {select: states[select]}
    elif select is None and len(states) > 1:
        serials = ", ".join(states)
        raise RunnerError(f"adb sees {len(states)} phones: give --on android:SERIAL ({serials}) or android:all")
    found = [Phone(adb, serial, _problem(serial, state)) for serial, state in states.items()]
    if select != "all" and found[0].problem is not None:
        raise RunnerError(found[0].problem)
    return found


def _problem(serial: str, state: str) -> str | None:
    return (
        None if state == "device" else f"{serial} {STATES.get(state, f'is in the state {state!r}, it must be device')}"
    )


class Phone:
    """One phone, by its serial number.

    What is asked of it raises Unplugged when it is gone, RunnerError after ``timeout_s``.
    """

    def __init__(self, adb: str, serial: str, problem: str | None = None) -> None:
        self._adb = adb
        self.serial = serial
        self.problem = problem
        self._running: subprocess.Popen[str] | None = None
        self._closed = False

    def close(self) -> None:
        """End what is running, from another thread; from now on everything is a RunnerError."""
        self._closed = True
        if self._running is not None:
            self._running.kill()

    def reopened(self) -> "Phone":
        """The same phone, not closed."""
        return Phone(self._adb, self.serial)

    def shell(self, command: str, *, timeout_s: float = TIMEOUT_S) -> Answer:
        """Run ``command`` in the phone's shell; its failure is an Answer, too."""
        # The mark tells a command that failed from a connection that did.
        answer = self._adb_call("shell", f"({command}); code=$?; echo; echo __end $code", timeout_s=timeout_s)
        output, mark, code = answer.stdout.rpartition("\n__end ")
        if not mark or not code.strip().isdigit():
            raise self._gone(answer)
        return Answer(output, answer.stderr, int(code))

    def check(self, command: str, failure: str, *, timeout_s: float = TIMEOUT_S) -> str:
        """What ``command`` wrote to stdout. RunnerError, OutOfSpace: it failed; ``failure`` and its last words."""
        answer = self.shell(command, timeout_s=timeout_s)
        if answer.code:
            raise self._failed(failure, answer)
        return answer.stdout

    def push(self, local: Path, remote: PurePosixPath) -> None:
        """Copy ``local`` to ``remote``, whose folder exists, unless it is there already; resumed, and checked.

        The part that has arrived is ``remote`` with ``.part`` appended, until it is whole. OutOfSpace: and that part
        is removed.
        """
        here, there = shlex.quote(str(remote)), f"{remote}.part"
        part, size_bytes = shlex.quote(there), local.stat().st_size
        if self._sha256(here) == _sha256(local, size_bytes):
            return
        try:
            arrived = self._size_bytes(part)
            if arrived > size_bytes or (arrived and self._sha256(part) != _sha256(local, arrived)):
                self.check(f"rm -f {part}", f"can't remove {there}")
                arrived = 0
            if size_bytes == 0:
                self.check(f": > {part}", f"can't write {there}")
            while arrived < size_bytes:
                arrived += self._append(local, arrived, there)
        except OutOfSpace:
            self.shell(f"rm -f {part} {shlex.quote(f'{there}.piece')}")
            raise
        if self._sha256(part) != _sha256(local, size_bytes):
            self.shell(f"rm -f {part}")
            raise RunnerError(f"{self.serial}: {local.name} arrived altered; try another cable or port")
        self.check(f"rm -f {shlex.quote(f'{there}.piece')} && mv {part} {here}", f"can't rename {there}")

    def pull(self, remote: PurePosixPath, local: Path) -> None:
        """Copy ``remote`` to ``local``."""
        answer = self._adb_call("pull", str(remote), str(local))
        if answer.code:
            raise self._failed_or_gone(f"can't pull {remote}", answer)

    def properties(self) -> dict[str, str]:
        """What ``getprop`` lists."""
        listing = self.check("getprop", "getprop failed")
        return dict(re.findall(r"^\[([^\]]+)\]: \[(.*)\]\r?$", listing, re.MULTILINE))

    def is_there(self) -> bool:
        """Whether adb can talk to it now."""
        return self._adb_call("get-state").stdout.strip() == "device"

    def wait(self, timeout_s: float) -> bool:
        """Wait until it is there again; False after ``timeout_s``."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if ":" in self.serial:  # over TCP, adb does not look for it by itself
                self._adb_call("connect", self.serial)
            if self.is_there():
                return True
            time.sleep(1)
        return False

    def _append(self, local: Path, start: int, there: str) -> int:
        """Append the piece of ``local`` from ``start`` to the file ``there``; its length."""
        piece = f"{there}.piece"
        with tempfile.TemporaryDirectory(prefix="dmf-push-") as folder, local.open("rb") as file:
            file.seek(start)
            content = file.read(PIECE_BYTES)
            (Path(folder) / "piece").write_bytes(content)
            answer = self._adb_call("push", str(Path(folder) / "piece"), piece)
        if answer.code:
            raise self._failed_or_gone(f"can't push {local.name}", answer)
        quoted = shlex.quote(piece)
        self.check(f"cat {quoted} >> {shlex.quote(there)} && rm {quoted}", f"can't append to {there}")
        return len(content)

    def _size_bytes(self, quoted: str) -> int:
        text = self.shell(f"stat -c %s {quoted}").stdout.strip()
        return int(text) if text.isdigit() else 0

    def _sha256(self, quoted: str) -> str | None:
        answer = self.shell(f"sha256sum {quoted}")
        if answer.code == NO_SUCH_COMMAND:
            raise RunnerError(f"{self.serial} has no sha256sum; Android 8 and later have")
        words = answer.stdout.split()
        return words[0] if words and not answer.code else None

    def _adb_call(self, *arguments: str, timeout_s: float = TIMEOUT_S) -> Answer:
        if self._closed:
            raise RunnerError(f"{self.serial}: interrupted")
        process = self._running = _start([self._adb, "-s", self.serial, *arguments])
        if self._closed:  # meanwhile
            process.kill()
        return _answer(process, timeout_s)

    def _failed(self, failure: str, answer: Answer) -> RunnerError:
        kind = OutOfSpace if "No space left" in answer.stderr + answer.stdout else RunnerError
        return kind(f"{self.serial}: {failure}: {answer.last_words}")

    def _failed_or_gone(self, failure: str, answer: Answer) -> RunnerError:
        """A failure if the phone says so; else the connection's, even if that is there again by now."""
        error = self._failed(failure, answer)
        return error if isinstance(error, OutOfSpace) or REFUSED.search(answer.last_words) else self._gone(answer)

    def _gone(self, answer: Answer) -> RunnerError:
        return Unplugged(f"{self.serial}: the connection was lost: {answer.last_words}")


def _start(command: list[str]) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # Ctrl-C is for this process, which then sees to the phone
    )


def _answer(process: subprocess.Popen[str], timeout_s: float) -> Answer:
    """RunnerError: it took longer than ``timeout_s``, and was killed."""
    try:
        stdout, stderr = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        process.kill()
        process.communicate()
        command = process.args if isinstance(process.args, list) else []
        raise RunnerError(f"{' '.join(map(str, command))[:200]}: no answer in {timeout_s:.0f} s") from error
    except BaseException:
        process.kill()
        raise
    return Answer(stdout, stderr, process.returncode)


def _sha256(path: Path, length: int) -> str:
    """Of the first ``length`` bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while length > 0 and (block := file.read(min(length, 1 << 20))):
            digest.update(block)
            length -= len(block)
    return digest.hexdigest()
