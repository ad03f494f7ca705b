"""What the emulation needs, in a cache outside the clone: ``python -m runtime.arm64.setup``, or by itself on first use.

========================  ==========================================================================================
``qemu-aarch64``          qemu 10, which runs artifacts: Debian trixie's, static
``counter/``              qemu 7.2, which counts instructions: Debian bookworm's, the last that loads plugins. Nothing
                          else is believed of it: its SME computes int8 products wrongly
``icount-<hash>.so``      the plugin that counts, compiled from ``icount.c``
``sysroot/``              Python 3.11 of ARM64 and its libraries, of Debian bookworm
``site-<versions>/``      LiteRT, ONNX Runtime and NumPy for ARM64, of the versions that are installed here
``cpus/<name>/``          the sysroot again, with the ``/proc/cpuinfo`` of one CPU: the runtimes choose kernels by the
                          features of a CPU, which qemu tells them, and by its part number, which they read there.
                          qemu 10 answers for itself; qemu 7.2 shows the host's unless it finds this one
``pycache/``              bytecode, filled as modules are imported
========================  ==========================================================================================

Each appears whole or not at all. Only what is missing is made, by one process at a time.
"""

import hashlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from runtime.arm64.debian import Archive, run
from runtime.cache import alone, cache_folder
from runtime.errors import CommandError, RunnerError
from runtime.worker import ROOT, Launch

CPUS = ("cortex-a53", "cortex-a76", "max")
PYTHON = "3.11"  # of Debian bookworm, whichever runs this
RUNTIMES = ("numpy", "ai-edge-litert", "onnxruntime")
EMULATOR = ("qemu-user",)
COUNTER = (
    *("qemu-user", "libcapstone4", "liburing2", "libnuma1", "libglib2.0-0", "libgnutls30", "libpcre2-8-0"),
    *("libp11-kit0", "libidn2-0", "libunistring2", "libtasn1-6", "libnettle8", "libhogweed6", "libgmp10", "libffi8"),
)
SYSROOT = (
    *("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libc6", "libgcc-s1", "libstdc++6"),
    *("zlib1g", "libbz2-1.0", "liblzma5", "libexpat1", "libffi8", "libcrypt1", "libssl3", "libsqlite3-0", "libuuid1"),
)
PLUGIN_SOURCE = Path(__file__).with_name("icount.c")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Harness:
    """Where everything lies; ``site`` is the name of the folder with the installed versions."""

    folder: Path
    site: str

    @property
    def emulator(self) -> Path:
        return self.folder / "qemu-aarch64"

    @property
    def counter(self) -> Path:
        return self.folder / "counter"

    @property
    def plugin(self) -> Path:
        return self.folder / f"icount-{hashlib.sha256(PLUGIN_SOURCE.read_bytes()).hexdigest()[:12]}.so"

    @property
    def sysroot(self) -> Path:
        return self.folder / "sysroot"

    @property
    def packages(self) -> Path:
        return self.folder / self.site

    @property
    def cpus(self) -> Path:
        return self.folder / "cpus"

    def emulated(self, cpu: str, script: str) -> str:
        """What a line of Python prints on an emulated ``cpu``, given no more than the sysroot."""
        python = self.sysroot / "usr" / "bin" / f"python{PYTHON}"
        emulator = [
            str(self.emulator),
            "-U",
            "LD_LIBRARY_PATH",
            "-U",
            "LD_PRELOAD",
            "-cpu",
            cpu,
            "-L",
            str(self.sysroot),
        ]
        return run([*emulator, str(python), "-ISc", script], f"qemu can't run Python as {cpu}")

    def launch(self, cpu: str, marks: Path | None = None) -> Launch:
        """Python on an emulated ``cpu``, in an environment that owes nothing to this process's.

        With ``marks``, instructions are counted, and each mark of `icount.c` appends its count there.
        """
        root = self.cpus / cpu
        python = (*("-cpu", cpu, "-L", str(root)), str(root / "usr" / "bin" / f"python{PYTHON}"))
        environment = {
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
            "PYTHONHOME": str(root / "usr"),
            "PYTHONPATH": os.pathsep.join([str(self.packages), str(ROOT)]),
            "PYTHONPYCACHEPREFIX": str(self.folder / "pycache"),
            "PYTHONNOUSERSITE": "1",
            "PYTHONHASHSEED": "0",  # a count repeats
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        if marks is None:
            return Launch((str(self.emulator), *python), environment)
        libraries = self.counter / "usr" / "lib" / "x86_64-linux-gnu"
        environment |= {"DMF_ICOUNT": str(marks), "LD_LIBRARY_PATH": str(libraries)}
        counter = (str(self.counter / "usr" / "bin" / "qemu-aarch64"), "-U", "LD_LIBRARY_PATH")
        return Launch((*counter, "-plugin", str(self.plugin), *python), environment)


def prepare(say: Say = lambda line: None) -> Harness:
    """Make what is missing, ``say`` what is fetched, and return where it lies.

    RunnerError: this machine can't have it, for what reason, and what to do.
    """
    versions = _installed_versions()
    harness = Harness(
        cache_folder() / "arm64", "site-" + "-".join(f"{name}-{version}" for name, version in versions.items())
    )
    if not _missing(harness):
        return harness
    _check_machine()
    try:
        with alone(harness.folder, say), tempfile.TemporaryDirectory(dir=harness.folder, prefix="filling-") as work:
            _fill(harness, versions, Path(work), say)
    except OSError as error:
        raise RunnerError(
            f"{harness.folder}: what emulates ARM64 can't be kept there: {error.strerror or error}; "
            "make room, or name another folder in DMF_CACHE"
        ) from error
    return harness


def _installed_versions() -> dict[str, str]:
    found = {}
    for name in RUNTIMES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # its format's packages can't be run on the host, either
    return found


def _missing(harness: Harness) -> list[Path]:
    parts = (harness.emulator, harness.counter, harness.sysroot, harness.packages, harness.cpus, harness.plugin)
    return [part for part in parts if not part.exists()]


def _check_machine() -> None:
    machine = f"{platform.system()} on {platform.machine()}"
    if machine != "Linux on x86_64":
        raise RunnerError(f"ARM64 is emulated on Linux on x86_64 only, and this is {machine}; use such a machine")
    lacking = [command for command in ("apt-get", "dpkg", "gcc") if shutil.which(command) is None]
    if lacking:
        raise RunnerError(
            f"ARM64 can't be emulated here: no {', '.join(lacking)}; it takes Debian 12 or later with gcc installed"
        )


def _fill(harness: Harness, versions: dict[str, str], work: Path, say: Say) -> None:
    missing = _missing(harness)
    if not missing:  # made while this process waited
        return
    say(f"ARM64 emulation: making {', '.join(part.name for part in missing)} in {harness.folder}")
    if {harness.emulator, harness.counter, harness.sysroot} & set(missing):
        say("fetching Debian's package lists: about 30 MB")
        archive = Archive(work / "apt", {"trixie": ["amd64"], "bookworm": ["amd64", "arm64"]})
    if harness.emulator in missing:
        say("fetching qemu 10: about 70 MB")
        archive.unpack("trixie", "amd64", EMULATOR, work / "emulator")
        (work / "emulator" / "usr" / "bin" / "qemu-aarch64").rename(harness.emulator)
    if harness.counter in missing:
        say("fetching qemu 7.2: about 18 MB")
        archive.unpack("bookworm", "amd64", COUNTER, work / "counter")
        for program in (work / "counter" / "usr" / "bin").iterdir():
            if program.name != "qemu-aarch64":
                program.unlink()
        _without_documents(work / "counter").rename(harness.counter)
    if harness.sysroot in missing:
        say("fetching Python for ARM64: about 11 MB")
        archive.unpack("bookworm", "arm64", SYSROOT, work / "sysroot")
        _without_documents(work / "sysroot").rename(harness.sysroot)
    if harness.packages in missing:
        say(f"fetching {', '.join(f'{name} {version}' for name, version in versions.items())} for ARM64: about 55 MB")
        _fetch_packages(versions, work / "site")
        (work / "site").rename(harness.packages)
    if harness.cpus in missing:
        for cpu in CPUS:
            _describe_cpu(harness, cpu, work / "cpus" / cpu)
        (work / "cpus").rename(harness.cpus)
    if harness.plugin in missing:
        compiler = ["gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden"]
        run([*compiler, "-o", str(work / "icount.so"), str(PLUGIN_SOURCE)], "the plugin for qemu can't be compiled")
        (work / "icount.so").rename(harness.plugin)


def _without_documents(root: Path) -> Path:
    shutil.rmtree(root / "usr" / "share")
    return root


def _fetch_packages(versions: dict[str, str], into: Path) -> None:
    """The versions installed here, of these packages and of what they require."""
    installed = {each.name: each.version for each in metadata.distributions() if each.name}
    constraints = into.with_name("constraints.txt")
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in sorted(installed.items())))
    platforms = [f"manylinux_2_{minor}_aarch64" for minor in range(17, 37)]  # 36: glibc of bookworm
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
    aarch64 = ["--only-binary=:all:", "--implementation", "cp", "--python-version", PYTHON]
    aarch64 += [word for each in ("manylinux2014_aarch64", *platforms) for word in ("--platform", each)]
    pins = [f"{name}=={version}" for name, version in versions.items()]
    command = [*pip, "--no-compile", "--target", str(into), *aarch64, "-c", str(constraints), *pins]
    run(command, "the inference runtimes for ARM64 can't be fetched")


def _describe_cpu(harness: Harness, cpu: str, root: Path) -> None:
    """The sysroot with what qemu 10 says of one core of ``cpu``."""
    processors = root / "sys" / "devices" / "system" / "cpu"
    processors.mkdir(parents=True)
    for name in ("possible", "present"):
        (processors / name).write_text("0\n")
    (root / "proc").mkdir()
    first_core = harness.emulated(cpu, "print(open('/proc/cpuinfo').read().split('\\n\\n')[0])")
    (root / "proc" / "cpuinfo").write_text(f"{first_core}\n")
    for part in harness.sysroot.iterdir():
        (root / part.name).symlink_to(Path("..") / ".." / harness.sysroot.name / part.name)


def main() -> int:
    """Make what is missing and say so on stderr; exit code 5 where it can't be had."""
    try:
        prepare(lambda line: print(line, file=sys.stderr, flush=True))
    except CommandError as error:
        print(f"runtime.arm64.setup: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
