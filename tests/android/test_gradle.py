"""Gradle's files say what the host build takes for granted. Gradle itself can't run here."""

import re
import tomllib
from xml.etree import ElementTree

import pytest

from android_demo.host.project import ABI, APPLICATION, CATALOGUE, ROOT, read_versions

MODULES = ("app", "classifier")


def test_the_modules_are_the_folders():
    included = re.findall(r'":(\w+)"', (ROOT / "settings.gradle.kts").read_text())
    assert sorted(included) == sorted(path.parent.name for path in ROOT.glob("*/build.gradle.kts")) == list(MODULES)


def test_every_version_and_library_of_the_catalogue_is_used_and_none_other():
    catalogue = tomllib.loads(CATALOGUE.read_text())
    scripts = "".join(path.read_text() for path in [ROOT / "build.gradle.kts", *ROOT.glob("*/build.gradle.kts")])
    referred = {entry["version"]["ref"] for kind in ("plugins", "libraries") for entry in catalogue[kind].values()}
    asked = set(re.findall(r"libs\.versions\.(\w+)\.get\(\)", scripts))
    assert referred | asked == set(catalogue["versions"])
    accessors = {f"libs.{name.replace('-', '.')}" for name in catalogue["libraries"]}
    accessors |= {f"libs.plugins.{name.replace('-', '.')}" for name in catalogue["plugins"]}
    used = set(re.findall(r"\b(libs\.(?!versions)[\w.]+)", scripts))
    assert used == accessors
    assert not re.search(r'"[\w.]+:[\w-]+:[\d.]+"', scripts), "a version outside the catalogue"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_asks_the_catalogue_for_its_levels(module):
    script = (ROOT / module / "build.gradle.kts").read_text()
    levels = dict(re.findall(r"^ +(\w+Sdk) = (.+)$", script, re.M))
    expected = {"compileSdk": "targetSdk", "minSdk": "minSdk"} | ({"targetSdk": "targetSdk"} if module == "app" else {})
    assert levels == {name: f"libs.versions.{of}.get().toInt()" for name, of in expected.items()}


def test_the_levels_are_those_of_the_project():
    versions = read_versions()
    assert (versions.min_sdk, versions.target_sdk) == (26, 36)


def test_the_app_is_the_one_that_the_host_build_makes():
    script = (ROOT / "app" / "build.gradle.kts").read_text()
    assert f'applicationId = "{APPLICATION}"' in script
    assert f'namespace = "{APPLICATION}"' in script
    assert f'abiFilters += "{ABI}"' in script


@pytest.mark.parametrize("module", MODULES)
def test_a_manifest_leaves_to_gradle_what_is_gradle_s(module):
    """A package or levels in it are errors of the Android plugin."""
    manifest = ElementTree.parse(ROOT / module / "src" / "main" / "AndroidManifest.xml").getroot()
    assert "package" not in manifest.attrib
    assert manifest.find("uses-sdk") is None


def test_gradle_is_as_new_as_the_android_plugin_needs():
    """AGP 9.3 needs Gradle 9.5.0 or later, and Kotlin 2.4 needs AGP 9.1 or later of the 9.x."""
    wrapper = (ROOT / "gradle" / "wrapper" / "gradle-wrapper.properties").read_text()
    gradle = re.search(r"gradle-([\d.]+)-bin\.zip$", wrapper, re.M)
    versions = tomllib.loads(CATALOGUE.read_text())["versions"]
    assert versions["agp"].startswith("9.3.")
    assert versions["kotlin"].startswith("2.4.")
    assert gradle is not None
    assert tuple(map(int, gradle[1].split("."))) >= (9, 5, 0)
