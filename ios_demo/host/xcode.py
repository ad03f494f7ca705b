"""Whether the Xcode project holds together: ``project.pbxproj``, ``Info.plist`` and the scheme, read without Xcode."""

import os
import plistlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ios_demo.host.project import DEMO_MODULE, ROOT, swift_sources
from runtime.errors import RunnerError

IDENTIFIERS = {DEMO_MODULE: "org.dmf.demo", f"{DEMO_MODULE}Tests": "org.dmf.demo.tests"}
DEPLOYMENT_TARGET = "16.0"
LIBRARIES = {"DMFClassifier", "DMFCoreML"}
_TOKEN = re.compile(r'\s+|//[^\n]*|/\*.*?\*/|"(?:[^"\\]|\\.)*"|[\w./$-]+|[{}()=;,]', re.DOTALL)

Object = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """How many files the targets compile."""

    targets: int
    sources: int


def check_project(root: Path = ROOT) -> Outcome:
    """Check the project in the folder ``root``. RunnerError: all that is wrong with it."""
    project = _Project(root, parse((root / f"{DEMO_MODULE}.xcodeproj" / "project.pbxproj").read_text()))
    problems = [
        *project.dangling(),
        *project.missing_files(),
        *project.sources_in_no_target(),
        *project.settings(),
        *_information(root / DEMO_MODULE / "Info.plist"),
        *project.scheme(),
    ]
    if problems:
        raise RunnerError(f"the Xcode project does not hold together: {'; '.join(problems)}")
    return Outcome(len(project.of("PBXNativeTarget")), len(project.compiled()))


def parse(text: str) -> Object:
    """An old-style property list. RunnerError: it is none."""
    tokens = []
    position = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            line = text.count("\n", 0, position) + 1
            raise RunnerError(f"project.pbxproj: line {line}: {text[position]!r} can't be there")
        position = token.end()
        if not re.match(r"\s|/\*|//", token[0]):
            tokens.append(token[0])
    value = _value(tokens[::-1])
    if not isinstance(value, dict):
        raise RunnerError("project.pbxproj: no dictionary")
    return value


def _value(tokens: list[str]) -> Any:
    """The value that ``tokens``, last first, begin with; they are taken off."""
    try:
        token = tokens.pop()
        if token == "{":
            return _dictionary(tokens)
        if token == "(":
            return _list(tokens)
    except IndexError:
        raise RunnerError("project.pbxproj: it ends too early") from None
    if token in "})=;,":
        raise RunnerError(f"project.pbxproj: a {token} where a value must be")
    return re.sub(
        r"\\(.)", lambda escaped: {"n": "\n"}.get(escaped[1], escaped[1]), token[1:-1] if token[0] == '"' else token
    )


def _dictionary(tokens: list[str]) -> Object:
    found: Object = {}
    while tokens[-1] != "}":
        key = _value(tokens)
        _take(tokens, "=")
        if key in found:
            raise RunnerError(f"project.pbxproj: {key} is there twice")
        found[key] = _value(tokens)
        _take(tokens, ";")
    tokens.pop()
    return found


def _list(tokens: list[str]) -> list[Any]:
    found = []
    while tokens[-1] != ")":
        found.append(_value(tokens))
        if tokens[-1] != ")":
            _take(tokens, ",")
    tokens.pop()
    return found


def _take(tokens: list[str], expected: str) -> None:
    token = tokens.pop()
    if token != expected:
        raise RunnerError(f"project.pbxproj: {token} where a {expected} must be")


class _Project:
    """The objects by their identifiers, and where the files lie."""

    def __init__(self, root: Path, document: Object) -> None:
        self._root = root
        self._objects: dict[str, Object] = document["objects"]
        self._project = self._objects[document["rootObject"]]
        self._paths: dict[str, Path] = {}
        self._place(self._project["mainGroup"], root)

    def of(self, isa: str) -> list[Object]:
        return [each for each in self._objects.values() if each["isa"] == isa]

    def compiled(self) -> list[Path]:
        """The files in the targets, once for each target."""
        return [path for target in self.of("PBXNativeTarget") for path in self._sources(target)]

    def dangling(self) -> list[str]:
        """Identifiers of objects that are not there, and objects that no other one refers to."""
        referred: set[str] = set()
        for each in self._objects.values():
            referred |= _identifiers(list(each.values()))
        known = set(self._objects)
        roots = {key for key, each in self._objects.items() if each["isa"] == "PBXProject"}
        return [
            *(f"{each} is referred to and not there" for each in sorted(referred - known)),
            *(f"{each} is referred to by nothing" for each in sorted(known - referred - roots)),
        ]

    def missing_files(self) -> list[str]:
        """Files and the package that are not where the project says."""
        wanted = [path for key, path in self._paths.items() if self._objects[key]["isa"] == "PBXFileReference"]
        packages = [self._root / each["relativePath"] for each in self.of("XCLocalSwiftPackageReference")]
        wanted += [package / "Package.swift" for package in packages] or [self._root / "no local Swift package"]
        return [f"no {os.path.relpath(path, self._root)}" for path in wanted if not path.exists()]

    def sources_in_no_target(self) -> list[str]:
        """Swift files that are not in their target, or in two."""
        problems = []
        for target in self.of("PBXNativeTarget"):
            compiled = self._sources(target)
            there = swift_sources(self._root / target["name"])
            problems += [f"{path.name} is not in {target['name']}" for path in there if compiled.count(path) != 1]
            problems += [f"{path.name} is not of {target['name']}" for path in compiled if path not in there]
        return problems

    def settings(self) -> list[str]:
        """What differs from what the app is meant to be."""
        problems = []
        targets = {target["name"]: target for target in self.of("PBXNativeTarget")}
        if set(targets) != set(IDENTIFIERS):
            problems.append(f"the targets are {', '.join(sorted(targets))}, must be {', '.join(sorted(IDENTIFIERS))}")
        for target in targets.values():
            wanted = IDENTIFIERS.get(target["name"])
            problems += self._differing(target, "PRODUCT_BUNDLE_IDENTIFIER", wanted)
        problems += self._differing(self._project, "IPHONEOS_DEPLOYMENT_TARGET", DEPLOYMENT_TARGET)
        app = targets.get(DEMO_MODULE, {})
        linked = {self._objects[key]["productName"] for key in app.get("packageProductDependencies", [])}
        if linked != LIBRARIES:
            problems.append(
                f"{DEMO_MODULE} links {', '.join(sorted(linked))}, must link {', '.join(sorted(LIBRARIES))}"
            )
        return problems

    def scheme(self) -> list[str]:
        """Targets that the shared scheme names and the project has not."""
        folder = self._root / f"{DEMO_MODULE}.xcodeproj" / "xcshareddata" / "xcschemes"
        scheme = ElementTree.parse(folder / f"{DEMO_MODULE}.xcscheme").getroot()
        named = {each.get("BlueprintIdentifier", "") for each in scheme.iter("BuildableReference")}
        targets = set(self._project["targets"])
        return [f"the scheme names {each}, which is no target" for each in sorted(named ^ targets)]

    def _place(self, key: str, folder: Path) -> None:
        each = self._objects.get(key)
        if each is None:
            return
        tree = each.get("sourceTree")
        if tree == "BUILT_PRODUCTS_DIR":
            return
        path = (self._root if tree == "SOURCE_ROOT" else folder) / each.get("path", "")
        self._paths[key] = Path(path).resolve()
        for child in each.get("children", []):
            self._place(child, path)

    def _sources(self, target: Object) -> list[Path]:
        phases = [self._objects[key] for key in target["buildPhases"]]
        files = [key for phase in phases if phase["isa"] == "PBXSourcesBuildPhase" for key in phase["files"]]
        references = [self._objects[key]["fileRef"] for key in files if key in self._objects]
        return [self._paths[key] for key in references if key in self._paths]

    def _differing(self, owner: Object, name: str, wanted: str | None) -> list[str]:
        configurations = self._objects[owner["buildConfigurationList"]]["buildConfigurations"]
        found = {self._objects[key]["buildSettings"].get(name) for key in configurations}
        told = ", ".join(sorted(str(each) for each in found))
        return [] if found == {wanted} else [f"{name} is {told}, must be {wanted}"]


def _identifiers(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set().union(*(_identifiers(each) for each in [*value, *value.values()]))
    if isinstance(value, list):
        return set().union(*(_identifiers(each) for each in value))
    return {value} if re.fullmatch(r"[0-9A-F]{24}", value) else set()


def _information(path: Path) -> list[str]:
    information = plistlib.loads(path.read_bytes())
    problems = []
    if not information.get("NSCameraUsageDescription"):
        problems.append(f"{path.name} has no NSCameraUsageDescription, without which the camera ends the app")
    for key in ("UIFileSharingEnabled", "LSSupportsOpeningDocumentsInPlace"):
        if information.get(key) is not True:
            problems.append(f"{path.name}: {key} is not true, so no host can put packages in")
    return problems
