"""The Xcode project holds together, and the check does complain."""

import re
import shutil

import pytest

from ios_demo.host.project import DEMO_MODULE, ROOT, swift_sources
from ios_demo.host.xcode import check_project, parse
from runtime.errors import RunnerError

PROJECT = f"{DEMO_MODULE}.xcodeproj/project.pbxproj"


@pytest.fixture
def copy(tmp_path):
    """What the check reads, to be changed."""
    demo = tmp_path / "ios_demo"
    for name in (DEMO_MODULE, f"{DEMO_MODULE}Tests", f"{DEMO_MODULE}.xcodeproj"):
        shutil.copytree(ROOT / name, demo / name)
    shutil.copyfile(ROOT / "Package.swift", demo / "Package.swift")
    for fixture in ("package-coreml", "package-coreml-sizes", "package-detector-coreml"):
        (tmp_path / "tests" / "fixtures" / fixture).mkdir(parents=True)
    return demo


def test_the_project_holds_together(copy):
    outcome = check_project()
    assert outcome == check_project(copy)
    folders = [ROOT / DEMO_MODULE, ROOT / f"{DEMO_MODULE}Tests"]
    assert (outcome.targets, outcome.sources) == (2, sum(len(swift_sources(folder)) for folder in folders))


def test_it_is_of_xcode_15():
    assert parse((ROOT / PROJECT).read_text())["objectVersion"] == "60"


def test_a_missing_file_is_told(copy):
    (copy / DEMO_MODULE / "Demo.swift").unlink()
    told = r"no DMFDemo/Demo\.swift; Demo\.swift is not of DMFDemo$"
    with pytest.raises(RunnerError, match=told):
        check_project(copy)


def test_a_file_in_no_target_is_told(copy):
    (copy / DEMO_MODULE / "Logic" / "New.swift").touch()
    with pytest.raises(RunnerError, match=r": New\.swift is not in DMFDemo$"):
        check_project(copy)


def test_a_missing_swift_package_is_told(copy):
    (copy / "Package.swift").unlink()
    with pytest.raises(RunnerError, match=r": no Package\.swift$"):
        check_project(copy)


@pytest.mark.parametrize(
    ("file", "right", "wrong", "problem"),
    [
        (PROJECT, "IPHONEOS_DEPLOYMENT_TARGET = 16.0", "IPHONEOS_DEPLOYMENT_TARGET = 17.0", "is 17.0, must be 16.0"),
        (PROJECT, "= org.dmf.demo;", "= org.dmf.other;", "PRODUCT_BUNDLE_IDENTIFIER is org.dmf.other, must be"),
        (PROJECT, "productName = DMFCoreML;", "productName = CoreML;", "links CoreML, DMFClassifier, must link"),
        (f"{DEMO_MODULE}/Info.plist", "NSCameraUsageDescription", "CameraUsage", "has no NSCameraUsageDescription"),
        (f"{DEMO_MODULE}/Info.plist", "UIFileSharingEnabled", "FileSharing", "UIFileSharingEnabled is not true"),
    ],
)
def test_another_setting_is_told(copy, file, right, wrong, problem):
    text = (copy / file).read_text()
    assert right in text
    (copy / file).write_text(text.replace(right, wrong))
    with pytest.raises(RunnerError, match=re.escape(problem)):
        check_project(copy)


def test_an_identifier_of_nothing_is_told(copy):
    text = (copy / PROJECT).read_text()
    target = re.search(r"target = ([0-9A-F]{24}) ", text)[1]
    (copy / PROJECT).write_text(text.replace(f"target = {target}", "target = " + 24 * "0"))
    with pytest.raises(RunnerError, match=r"0{24} is referred to and not there"):
        check_project(copy)


def test_a_scheme_of_another_target_is_told(copy):
    scheme = copy / f"{DEMO_MODULE}.xcodeproj/xcshareddata/xcschemes/{DEMO_MODULE}.xcscheme"
    scheme.write_text(re.sub('BlueprintIdentifier = "[0-9A-F]+"', 'BlueprintIdentifier = "0"', scheme.read_text()))
    with pytest.raises(RunnerError, match="the scheme names 0, which is no target"):
        check_project(copy)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{ a = 1 }", "} where a ; must be"),
        ("{ a 1; }", "1 where a = must be"),
        ("{ a = (1, 2; }", "; where a , must be"),
        ("{ a = 1;", "it ends too early"),
        ("{ a = 1; a = 2; }", "a is there twice"),
        ("{\n a = @; }", "line 2: '@' can't be there"),
        ("(1, 2)", "no dictionary"),
    ],
)
def test_what_is_no_property_list_is_told(text, problem):
    with pytest.raises(RunnerError, match=re.escape(problem)):
        parse(text)


def test_a_property_list_is_read():
    text = '// !$*UTF8*$!\n{ a = "b\\n\\"c\\""; /* d */ e = ( f.g, "$(h)", ); i = { }; }'
    assert parse(text) == {"a": 'b\n"c"', "e": ["f.g", "$(h)"], "i": {}}
