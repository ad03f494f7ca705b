"""A device that speaks adb: Debian's ARM64 adbd, emulated, in namespaces of its own.

Real: the protocol, the files, the shell and its exit codes, ARM64 programs. ``doubles/`` stands for Android's framework
(getprop, am, pm, dumpsys, ...): nothing starts there, and nothing is installed.
"""

import os
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.arm64.debian import Archive
from runtime.arm64.setup import Harness
from runtime.cache import cache_folder
from runtime.errors import RunnerError

HERE = Path(__file__).parent
PORT = 5555
PACKAGES = (
    *(
        "adbd",
        "dash",
        "android-libbase",
        "android-libboringssl",
        "android-libcutils",
        "android-liblog",
        "busybox-static",
    ),
    *("libbrotli1", "libc6", "libcap2", "libgcc-s1", "libgcrypt20", "libgpg-error0", "liblz4-1", "liblzma5"),
    *("libprotobuf32t64", "libstdc++6", "libsystemd0", "libxxhash0", "libzstd1", "zlib1g"),
)
PYTHON = """#!/bin/sh
here=/opt/python
export PYTHONHOME=$here/usr PYTHONPATH=/opt/site PYTHONDONTWRITEBYTECODE=1
libraries=$here/lib/aarch64-linux-gnu:$here/usr/lib/aarch64-linux-gnu
exec $here/lib/ld-linux-aarch64.so.1 --library-path $libraries $here/usr/bin/python3.11 "$@"
"""


class AdbDevice:
    """The device, plugged in; ``serial`` is what adb calls it, ``root`` its file system as seen from here."""

    serial = f"127.0.0.1:{PORT}"

    def __init__(self, root: Path, harness: Harness) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="dmf-adbd-"))
        namespaces = (
            "--user",
            "--map-root-user",
            "--mount",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        )
        inside = (HERE / "inside.sh", root, harness.emulator, harness.sysroot, harness.packages)
        pipe = subprocess.PIPE
        self._unshare = subprocess.Popen(
            ["unshare", *namespaces, "bash", *inside], stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )
        if self._unshare.stdout.readline() != "ready\n":
            raise RunnerError(f"no adbd here: {self._unshare.communicate()[1].strip()[-300:]}")
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children")
        self._pid = int(children.read_text().split()[0])
        self.root = Path(f"/proc/{self._pid}/root{root}")
        self.bin = self._folder / "bin"
        self._write_adb()
        self.plug()

    def _write_adb(self) -> None:
        """An ``adb`` that runs inside, with a server and keys of its own."""
        self.bin.mkdir()
        adb = self.bin / "adb"
        environment = f"HOME={self._folder} TMPDIR={self._folder} ADB_EMU=0"  # 5555 is an emulator's port: not twice
        # nsenter forks to enter the processes' namespace: what kills it must kill adb, too
        enter = f"nsenter --target {self._pid} --user --mount --net --pid --preserve-credentials --wdns=/"
        command = f"env {environment} {enter} setpriv --pdeathsig KILL {shutil.which('adb')}"
        adb.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        adb.chmod(0o755)

    def adb(self, *arguments: str) -> str:
        return subprocess.run([self.bin / "adb", *arguments], capture_output=True, text=True, check=False).stdout

    def plug(self) -> None:
        self._obey("plug")
        for _ in range(100):
            self.adb("connect", self.serial)
            if self.adb("-s", self.serial, "get-state").strip() == "device":
                return
            time.sleep(0.1)
        raise AssertionError("adbd does not answer: " + (self.root / "tmp" / "adbd.log").read_text())

    def unplug(self) -> None:
        self._obey("unplug")

    def room(self, size: str) -> None:
        """Make /data as large as ``size``, such as 4M."""
        self._obey(f"room {size}")

    def reset(self) -> None:
        """As after a factory reset."""
        self.room("2G")
        for folder in (self.root / "data" / "local" / "tmp", self.root / "data" / "sdcard"):
            shutil.rmtree(folder)
            folder.mkdir()
        for left in ("starts", "app.pid"):
            (self.root / "data" / left).unlink(missing_ok=True)
        for left in ("behaviour", "result.json"):
            (self.root / "doubles" / left).unlink(missing_ok=True)
        shutil.copy(HERE / "doubles" / "properties", self.root / "doubles")

    def files(self) -> list[str]:
        """What lies where packages are pushed."""
        folder = self.root / "data" / "local" / "tmp"
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())

    def close(self) -> None:
        self.adb("kill-server")
        self._unshare.kill()
        self._unshare.communicate()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _obey(self, line: str) -> None:
        self._unshare.stdin.write(f"{line}\n")
        self._unshare.stdin.flush()
        assert self._unshare.stdout.readline() == "done\n", line


def device_root(harness: Harness) -> Path:
    """The device's file system, made once in the cache."""
    cache = cache_folder() / "adbd"
    root = cache / "root"
    if root.exists():
        return root
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="filling-") as work:
        new = Path(work) / "root"
        archive = Archive(Path(work) / "apt", {"trixie": ["arm64"]})
        archive.unpack("trixie", "arm64", PACKAGES, new)
        for name in ("bin", "sbin", "lib"):  # what unpacking by hand leaves outside /usr
            merged = new / "usr" / name
            if (new / name).exists():
                shutil.copytree(new / name, merged, symlinks=True, dirs_exist_ok=True)
                shutil.rmtree(new / name)
            merged.mkdir(exist_ok=True)
            (new / name).symlink_to(f"usr/{name}")
        for name in ("proc", "sys", "dev", "data", "tmp", "doubles", "etc", "opt/python", "opt/site", "system"):
            (new / name).mkdir(parents=True, exist_ok=True)
        (new / "system" / "bin").symlink_to("../usr/bin")
        (new / "sdcard").symlink_to("data/sdcard")
        (new / "etc" / "passwd").write_text("root:x:0:0:root:/data/local/tmp:/bin/sh\n")
        (new / "etc" / "group").write_text("root:x:0:\n")
        busybox = new / "usr" / "bin" / "busybox"
        applets = subprocess.run(
            [harness.emulator, busybox, "--list"], capture_output=True, text=True, check=True
        ).stdout.split()
        for applet in applets:
            if not (busybox.parent / applet).exists():
                (busybox.parent / applet).symlink_to("busybox")
        python = busybox.parent / "python3"  # for tests; no phone has one
        python.write_text(PYTHON)
        python.chmod(python.stat().st_mode | stat.S_IXUSR)
        if not root.exists():  # another test process may have been faster
            new.rename(root)
    return root


@pytest.fixture(scope="session")
def adb_device(arm64: Harness) -> Iterator[AdbDevice]:
    """The device; CI can't do without it."""
    device = None
    try:
        for command in ("adb", "unshare", "nsenter", "ip"):
            if shutil.which(command) is None:
                raise RunnerError(f"no adbd here: no {command}; .ci/apt installs it")
        device = AdbDevice(device_root(arm64), arm64)
    except RunnerError as error:
        if os.environ.get("CI") or os.environ.get("DMF_REQUIRE_ADB"):
            pytest.fail(f"required here: {error}")
        pytest.skip(f"{error}; DMF_REQUIRE_ADB=1 makes this a failure")
    yield device
    device.close()


@pytest.fixture
def device(adb_device: AdbDevice, monkeypatch: pytest.MonkeyPatch) -> AdbDevice:
    """The device as after a factory reset, and its ``adb`` on PATH."""
    adb_device.reset()
    monkeypatch.setenv("PATH", f"{adb_device.bin}{os.pathsep}{os.environ['PATH']}")
    return adb_device
