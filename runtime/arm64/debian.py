"""Debian packages without root: fetched from the archive that this machine's apt uses, and unpacked into a folder.

The machine's own apt state is neither read nor written, so that packages of another suite and another architecture can
be had, and none is installed: their maintainer scripts never run.
"""

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from runtime.errors import RunnerError

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
TIMEOUT_S = 900.0


class Archive:
    """A private apt in ``folder``, with the lists of ``suites`` (suite -> its architectures) brought up to date."""

    def __init__(self, folder: Path, suites: Mapping[str, Sequence[str]]) -> None:
        """RunnerError: the machine's apt names no Debian archive, or the archive can't be reached."""
        uri = _archive_of_this_machine()
        (folder / "lists" / "partial").mkdir(parents=True)
        (folder / "cache" / "archives" / "partial").mkdir(parents=True)
        (folder / "status").touch()
        (folder / "sources.list").write_text(
            "".join(
                f"deb [arch={','.join(architectures)} signed-by={KEYRING}] {uri} {suite} main\n"
                for suite, architectures in suites.items()
            )
        )
        self._folder = folder
        self._options = (
            *("-qq", "-o", f"Dir::Etc::sourcelist={folder}/sources.list", "-o", "Dir::Etc::sourceparts=/dev/null"),
            *("-o", f"Dir::State::lists={folder}/lists", "-o", f"Dir::State::status={folder}/status"),
            *("-o", f"Dir::Cache={folder}/cache", "-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=root"),
            *("-o", "Acquire::Languages=none", "-o", "Acquire::Check-Valid-Until=false", "-o", "Acquire::Retries=2"),
            *("-o", "APT::Update::Error-Mode=any"),  # else a suite that can't be reached is a warning
            *(each for name in ("amd64", "arm64") for each in ("-o", f"APT::Architectures::={name}")),
        )
        run(["apt-get", *self._options, "update"], "Debian's package lists can't be fetched")

    def unpack(self, suite: str, architecture: str, packages: Sequence[str], into: Path) -> None:
        """Fetch exactly ``packages`` and unpack them into ``into``. RunnerError: one of them can't be had."""
        fetched = self._folder / f"{suite}-{architecture}"
        fetched.mkdir()
        names = [f"{name}:{architecture}/{suite}" for name in packages]
        run(["apt-get", *self._options, "download", *names], f"packages of Debian {suite} can't be fetched", fetched)
        for file in fetched.glob("*.deb"):
            run(["dpkg", "-x", str(file), str(into)], f"{file.name} can't be unpacked")

    def unpack_root(self, suite: str, architecture: str, packages: Sequence[str], into: Path) -> None:
        """Fetch ``packages`` and all that they depend on, as for an empty machine, and unpack them into ``into``.

        RunnerError: one of them can't be had.
        """
        fetched = self._folder / f"{suite}-{architecture}-root"
        (fetched / "partial").mkdir(parents=True)
        names = [f"{name}:{architecture}" for name in packages]
        download = [*("-y", "--no-install-recommends", "--download-only"), *("-o", f"Dir::Cache::archives={fetched}")]
        command = ["apt-get", *self._options, *download, "-t", suite, "install", *names]
        run(command, f"packages of Debian {suite} can't be fetched", fetched)
        for file in fetched.glob("*.deb"):
            run(["dpkg", "-x", str(file), str(into)], f"{file.name} can't be unpacked")


def run(command: Sequence[str], failure: str, folder: Path | None = None) -> str:
    """The command's stdout. RunnerError: it failed; ``failure`` and its last words."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        raise RunnerError(f"{failure}: this machine has no {command[0]}") from error
    except subprocess.TimeoutExpired as error:
        raise RunnerError(f"{failure}: {command[0]} took longer than {TIMEOUT_S:g} s") from error
    if done.returncode != 0:
        words = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        told = [line for line in words if re.match(r"E:|ERROR", line)] or words
        raise RunnerError(f"{failure}: {told[-1] if told else f'{command[0]} exited with {done.returncode}'}")
    return done.stdout


def _archive_of_this_machine() -> str:
    """The address that this machine's apt has for its own release."""
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', Path("/etc/os-release").read_text(), re.MULTILINE))
    if release.get("ID") == "debian":
        line = "$(REPO_URI) $(RELEASE)"
        targets = ["apt-get", "indextargets", "--no-release-info", "--format", line, "Created-By: Packages"]
        for target in run(targets, "apt's sources can't be read").splitlines():
            uri, _, suite = target.rpartition(" ")
            if suite == release.get("VERSION_CODENAME"):
                return uri
    raise RunnerError(
        f"packages come from Debian's archive, and apt on this machine "
        f"({release.get('PRETTY_NAME', 'an unknown system')}) names none; use Debian 12 or later"
    )
