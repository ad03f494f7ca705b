"""Class files, native libraries and model packages to a signed APK.

It has ONNX Runtime and not LiteRT, whose class files and libraries can't be had here: what is installed on phones is
made by Gradle.
"""

import struct
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from android_demo.host.compiler import Classes
from android_demo.host.process import java
from android_demo.host.project import ABI
from android_demo.host.resources import Linked
from android_demo.host.toolchain import KEY_PASSWORD, Toolchain
from runtime.errors import UsageError
from runtime.manifest import MANIFEST_NAME, Package, open_package

PAGE_BYTES = 16384  # of the phones with the largest pages; libraries are mapped from where they lie in the APK
LOCAL_HEADER_BYTES = 30  # of a ZIP, before the name
ALIGNMENT_FIELD = 0xD935  # in a ZIP's extra data: the alignment, which the signer then keeps


def open_packages(folders: Sequence[Path]) -> list[Package]:
    """The packages in ``folders``, each checked. UsageError: one is damaged, or two have one name."""
    packages = [open_package(folder) for folder in folders]
    names = [package.manifest.name for package in packages]
    for package in packages:
        if names.count(package.manifest.name) > 1:
            raise UsageError(f"{package.path}: another package is named {package.manifest.name}, too; leave one out")
    return packages


def make_apk(
    toolchain: Toolchain, classes: Classes, linked: Linked, packages: Sequence[Package], work: Path, to: Path
) -> None:
    """Write the APK ``to``, with ``packages`` in ``assets/packages/NAME``, signed by the debug key.

    ToolError: what the tools complain of.
    """
    work.mkdir(parents=True)
    _dex(toolchain, classes, work)
    unsigned = work / "unsigned.apk"
    _pack(linked.apk, _contents(toolchain, work, packages), unsigned)
    store = ("--ks", str(toolchain.debug_key), "--ks-pass", f"pass:{KEY_PASSWORD}")
    options = ("--min-sdk-version", str(toolchain.versions.min_sdk), "--v4-signing-enabled", "false")
    _apksigner(toolchain, ["sign", *store, *options, "--out", str(to), str(unsigned)], f"{to} can't be signed")
    verify_signature(toolchain, to)


def verify_signature(toolchain: Toolchain, apk: Path) -> str:
    """Which signatures an APK has, as apksigner prints it. ToolError: none, or it has been altered since."""
    oldest = ("--min-sdk-version", str(toolchain.versions.min_sdk))
    return _apksigner(toolchain, ["verify", "--verbose", *oldest, str(apk)], f"{apk} does not verify")


def _apksigner(toolchain: Toolchain, arguments: Sequence[str], failure: str) -> str:
    return java([toolchain.apksigner_jar], "com.android.apksigner.ApkSignerTool", arguments, failure)


def _dex(toolchain: Toolchain, classes: Classes, to: Path) -> None:
    packed = (classes.classifier, classes.app, classes.resources)
    files = [path for folder in packed for path in sorted(folder.rglob("*.class"))]
    options: list[str | Path] = ["--release", "--min-api", str(toolchain.versions.min_sdk)]
    options += ["--lib", toolchain.android_jar, "--classpath", classes.stubs, "--output", to]
    libraries = (toolchain.kotlin_stdlib, toolchain.onnxruntime_jar)
    java(
        [toolchain.d8_jar], "com.android.tools.r8.D8", [*options, *files, *libraries], "D8 can't translate the classes"
    )


def _contents(toolchain: Toolchain, dexed: Path, packages: Sequence[Package]) -> Iterator[tuple[str, Path]]:
    """Names in the APK, and the files to be there."""
    for path in sorted(dexed.glob("classes*.dex")):
        yield path.name, path
    for path in sorted(toolchain.onnxruntime_libraries.glob("*.so")):
        yield f"lib/{ABI}/{path.name}", path
    for package in packages:
        for name in (MANIFEST_NAME, *(file.path for file in package.manifest.files)):
            yield f"assets/packages/{package.manifest.name}/{name}", package.path / name


def _pack(base: Path, contents: Iterator[tuple[str, Path]], to: Path) -> None:
    """The entries of ``base`` and ``contents``, without times; what is stored as it is lies where it can be mapped."""
    with zipfile.ZipFile(base) as linked, zipfile.ZipFile(to, "w") as packed:
        for each in linked.infolist():
            _add(packed, each.filename, linked.read(each), each.compress_type)
        for name, path in contents:
            stored = name.endswith(".so")
            _add(packed, name, path.read_bytes(), zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED)


def _add(packed: zipfile.ZipFile, name: str, data: bytes, compress_type: int) -> None:
    entry = zipfile.ZipInfo(name)
    entry.compress_type = compress_type
    if compress_type == zipfile.ZIP_STORED:
        assert packed.fp is not None
        alignment = PAGE_BYTES if name.endswith(".so") else 4
        start = packed.fp.tell() + LOCAL_HEADER_BYTES + len(name.encode()) + 6  # of the data, were it not padded
        padding = -start % alignment
        entry.extra = struct.pack("<HHH", ALIGNMENT_FIELD, 2 + padding, alignment) + bytes(padding)
    packed.writestr(entry, data)
