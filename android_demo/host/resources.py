"""The app's manifest and resources, compiled and linked by aapt2.

It knows Android's own attributes and styles up to API level 34; a newer one is an error here.
"""

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from android_demo.host.process import run
from android_demo.host.project import APPLICATION, ROOT
from android_demo.host.toolchain import Toolchain

NAMESPACE = "http://schemas.android.com/apk/res/android"


@dataclass(frozen=True)
class Linked:
    """An APK without code, and the R.java that names what is in it."""

    apk: Path
    sources: list[Path]


def link_resources(toolchain: Toolchain, to: Path, app: Path = ROOT / "app") -> Linked:
    """Link the manifest and resources of ``app`` into the folder ``to``. ToolError: what is wrong with them."""
    to.mkdir(parents=True)
    versions, main = toolchain.versions, app / "src" / "main"
    compiled = []
    if (main / "res").is_dir():
        compiled = [to / "resources.zip"]
        run([toolchain.aapt2, "compile", "--dir", main / "res", "-o", *compiled], "the app's resources do not compile")
    _complete_manifest(main / "AndroidManifest.xml", to / "AndroidManifest.xml")
    options: list[str | Path] = ["-I", toolchain.framework, "--manifest", to / "AndroidManifest.xml"]
    options += ["--min-sdk-version", str(versions.min_sdk), "--target-sdk-version", str(versions.target_sdk)]
    options += ["--version-code", str(versions.app_code), "--version-name", versions.app_name]
    options += ["--no-compile-sdk-metadata", "--java", to / "gen", "--auto-add-overlay", "-o", to / "base.apk"]
    run([toolchain.aapt2, "link", *options, *compiled], "the app's resources do not link")
    return Linked(to / "base.apk", sorted((to / "gen").rglob("*.java")))


def badging(toolchain: Toolchain, apk: Path) -> str:
    """What Android reads in an APK's manifest, as aapt2 prints it."""
    return run([toolchain.aapt2, "dump", "badging", apk], f"{apk}: no APK")


def _complete_manifest(source: Path, to: Path) -> None:
    """As Gradle does: the package's name, and native libraries that are used where they lie in the APK."""
    ElementTree.register_namespace("android", NAMESPACE)
    tree = ElementTree.parse(source)
    manifest = tree.getroot()
    manifest.set("package", APPLICATION)
    for application in manifest.iter("application"):
        application.set(f"{{{NAMESPACE}}}extractNativeLibs", "false")
    tree.write(to, encoding="utf-8", xml_declaration=True)
