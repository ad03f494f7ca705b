"""Commands in the system that Swift is installed in, in namespaces of their own, with no network but the loopback.

The repository is at ``/tmp/dmf/repository``, read-only. No mount outlives the command.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from android_demo.host.process import run
from ios_demo.host.project import ROOT as DEMO
from ios_demo.host.toolchain import Toolchain

REPOSITORY = DEMO.parent
INSIDE = Path("/tmp/dmf")
_ENTER = """
ip link set lo up # Foundation starts a process through 127.0.0.1
cd "$1"; shift
for folder in dev tmp; do mount -t tmpfs tmpfs "$folder"; done
mount --rbind /proc proc
for device in null zero full random urandom; do
  : >"dev/$device"
  mount --bind "/dev/$device" "dev/$device"
done
ln -s /proc/self/fd dev/fd
mkdir dev/shm
while [ "$1" != -- ]; do # OUTSIDE INSIDE MODE
  if [ -d "$1" ]; then mkdir -p ".$2"; else : >".$2"; fi
  mount --bind "$1" ".$2"
  [ "$3" = rw ] || mount -o remount,bind,ro ".$2"
  shift 3
done
folder="$2"; shift 2
exec chroot . /bin/sh -c 'cd "$1"; shift; exec "$@"' sh "$folder" "$@"
"""


def inside(path: Path) -> Path:
    """Where a path of the repository lies for a command."""
    return INSIDE / "repository" / path.absolute().relative_to(REPOSITORY)


def run_swift(
    toolchain: Toolchain,
    command: Sequence[str | Path],
    failure: str,
    folder: Path = INSIDE,
    shared: Mapping[Path, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """What ``command`` prints, run in ``folder``; ``shared`` maps folders to names in ``/tmp/dmf``, writable.

    ToolError: it failed; ``failure`` and its first complaint.
    """
    mounts: list[str | Path] = [REPOSITORY, INSIDE / "repository", "ro"]
    mounts += [toolchain.swiftlint, INSIDE / "swiftlint", "ro"]
    for outside, name in (shared or {}).items():
        mounts += [outside.absolute(), INSIDE / name, "rw"]
    namespaces = ("--user", "--map-root-user", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
    variables = {
        "PATH": "/usr/libexec/swift/bin:/usr/bin:/usr/sbin",
        "LD_LIBRARY_PATH": "/usr/libexec/swift/lib/swift/linux",  # SwiftLint was built elsewhere
        "LINUX_SOURCEKIT_LIB_PATH": "/usr/libexec/swift/lib",
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        **(environment or {}),
    }
    words = ["unshare", *namespaces, "sh", "-euc", _ENTER, "sh", toolchain.root, *mounts, "--", folder]
    return run([*words, "env", "-i", *(f"{name}={value}" for name, value in variables.items()), *command], failure)
