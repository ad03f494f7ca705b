"""What is in the APK, read without the tools that made it."""

import hashlib
import re
import shutil
import struct
import zipfile
from xml.etree import ElementTree

import pytest

from android_demo.host.apk import open_packages, verify_signature
from android_demo.host.process import ToolError, run
from android_demo.host.project import APPLICATION, ROOT, kotlin_sources, read_versions
from android_demo.host.resources import NAMESPACE, badging
from runtime.errors import UsageError
from runtime.manifest import hash_files


def test_android_reads_what_the_catalogue_and_the_manifest_say(toolchain, apk):
    versions = read_versions()
    told = badging(toolchain, apk)
    first = re.search(r"^package: name='(\S+)' versionCode='(\d+)' versionName='(\S+)'", told, re.M)
    assert first is not None
    assert first.groups() == (APPLICATION, str(versions.app_code), versions.app_name)
    assert re.findall(r"^(?:min|target)SdkVersion:'(\d+)'", told, re.M) == ["26", "36"]
    assert re.findall(r"^native-code: (.*)", told, re.M) == ["'arm64-v8a'"]
    assert re.search(rf"^launchable-activity: name='{re.escape(APPLICATION)}\.\w+'", told, re.M)


def test_it_asks_for_no_permission_but_those_of_its_manifest(toolchain, apk):
    told = set(re.findall(r"^uses-permission: name='(\S+)'", badging(toolchain, apk), re.M))
    manifest = ElementTree.parse(ROOT / "app" / "src" / "main" / "AndroidManifest.xml").getroot()
    assert told == {each.get(f"{{{NAMESPACE}}}name") for each in manifest.iter("uses-permission")}
    assert "android.permission.INTERNET" not in told


def test_a_computer_can_start_the_benchmark(toolchain, apk):
    tree = run([toolchain.aapt2, "dump", "xmltree", "--file", "AndroidManifest.xml", apk], "aapt2")
    activities = [each.split("E: ")[0] for each in tree.split("E: activity ")[1:]]
    (benchmark,) = [each for each in activities if 'name(0x01010003)="' in each and "BenchmarkActivity" in each]
    assert re.search(r"exported\(0x01010010\)=true", benchmark)


def classes_of(dex):
    """The classes that a DEX file defines: ``org/dmf/demo/MainActivity``."""

    def table(header, row):
        count, start = struct.unpack_from("<II", dex, header)
        return [struct.unpack_from("<I", dex, start + row * index)[0] for index in range(count)]

    def text(start):
        while dex[start] & 0x80:  # the length, 7 bits a byte
            start += 1
        return dex[start + 1 : dex.index(b"\0", start + 1)].decode()

    strings, types = table(56, 4), table(64, 4)
    return {text(strings[types[index]])[1:-1] for index in table(96, 32)}


def test_the_classes_are_the_app_s_and_of_its_libraries_and_no_stub(apk):
    with zipfile.ZipFile(apk) as archive:
        names = [name for name in archive.namelist() if name.endswith(".dex")]
        classes = set().union(*(classes_of(archive.read(name)) for name in names))
    assert names[0] == "classes.dex"
    own = {"org/dmf/demo/BenchmarkActivity", "org/dmf/classifier/ModelPackage", "org/dmf/classifier/LiteRtEngine"}
    assert own | {"ai/onnxruntime/OrtSession", "kotlin/Unit"} <= classes
    assert {"/".join(name.split("/")[:2]) for name in classes if name.startswith("org/")} <= {
        "org/dmf",
        "org/intellij",
        "org/jetbrains",
    }
    assert not {name for name in classes if name.startswith(("android", "java", "org/tensorflow", "org/junit"))}
    tests = {path.stem for module in ("app", "classifier") for path in kotlin_sources(module, "test")}
    assert not {name for name in classes if name.rpartition("/")[2] in tests}


def data_offset(apk, entry):
    """Where an entry's bytes begin, by its local header."""
    with apk.open("rb") as file:
        file.seek(entry.header_offset)
        header = file.read(30)
    assert header[:4] == b"PK\x03\x04"
    return entry.header_offset + 30 + sum(struct.unpack_from("<HH", header, 26))


def test_native_libraries_can_be_mapped_with_pages_of_16_kib(toolchain, apk):
    """In the APK and within themselves."""
    expected = {f"lib/arm64-v8a/{path.name}": path.read_bytes() for path in toolchain.onnxruntime_libraries.iterdir()}
    assert {"lib/arm64-v8a/libonnxruntime.so", "lib/arm64-v8a/libonnxruntime4j_jni.so"} == set(expected)
    with zipfile.ZipFile(apk) as archive:
        assert {name for name in archive.namelist() if name.startswith("lib/")} == set(expected)
        for name, content in expected.items():
            entry = archive.getinfo(name)
            assert archive.read(name) == content
            assert entry.compress_type == zipfile.ZIP_STORED
            assert data_offset(apk, entry) % 16384 == 0
            assert apk.read_bytes()[data_offset(apk, entry) :][:4] == b"\x7fELF"
            assert min(load_alignments(content)) >= 16384


def load_alignments(elf):
    (table,) = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    headers = [elf[table + size * index :][:size] for index in range(count)]
    return [struct.unpack_from("<Q", header, 48)[0] for header in headers if struct.unpack_from("<I", header)[0] == 1]


def test_what_is_stored_as_it_is_lies_at_multiples_of_4(apk):
    """Android refuses a resources.arsc that does not."""
    with zipfile.ZipFile(apk) as archive:
        stored = [each for each in archive.infolist() if each.compress_type == zipfile.ZIP_STORED]
    assert "resources.arsc" in {each.filename for each in stored}
    assert {data_offset(apk, each) % 4 for each in stored} == {0}


def test_the_package_is_in_it_unaltered(apk, package):
    folder = f"assets/packages/{package.manifest.name}/"
    with zipfile.ZipFile(apk) as archive:
        held = {name: archive.read(name) for name in archive.namelist() if name.startswith("assets/")}
    assert all(name.startswith(folder) for name in held)
    hashes = {name.removeprefix(folder): hashlib.sha256(data).hexdigest() for name, data in held.items()}
    assert hashes.pop("manifest.json") == hashlib.sha256((package.path / "manifest.json").read_bytes()).hexdigest()
    assert hashes == {file.path: file.sha256 for file in hash_files(package.path)}


def test_the_signature_verifies(toolchain, apk):
    told = verify_signature(toolchain, apk)
    assert re.search(r"APK Signature Scheme v2\): true", told)
    assert re.search(r"APK Signature Scheme v3\): true", told)


def test_an_altered_apk_does_not_verify(toolchain, apk, tmp_path):
    altered = tmp_path / "altered.apk"
    content = bytearray(apk.read_bytes())
    with zipfile.ZipFile(apk) as archive:
        content[data_offset(apk, archive.getinfo("lib/arm64-v8a/libonnxruntime.so")) + 5000] ^= 1
    altered.write_bytes(content)
    with pytest.raises(ToolError, match=r"altered\.apk does not verify: "):
        verify_signature(toolchain, altered)


def test_an_unsigned_apk_does_not_verify(toolchain, compiled, tmp_path):
    with pytest.raises(ToolError, match=r"base\.apk does not verify: "):
        verify_signature(toolchain, compiled[1].apk)


def test_a_damaged_package_is_refused(package, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(package.path, damaged)
    (damaged / package.manifest.artifact).write_bytes(b"no model")
    with pytest.raises(UsageError, match=f"{package.manifest.artifact} was altered"):
        open_packages([package.path, damaged])


def test_two_packages_of_one_name_are_refused(package, tmp_path):
    shutil.copytree(package.path, tmp_path / "copy")
    with pytest.raises(UsageError, match=f"another package is named {package.manifest.name}, too"):
        open_packages([package.path, tmp_path / "copy"])
