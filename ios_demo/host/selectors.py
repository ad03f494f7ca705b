"""Whether what ``stubs/`` declares is in Apple's frameworks, by what NativeScript generates from their headers."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ios_demo.host.project import swift_sources
from ios_demo.host.toolchain import Toolchain
from ios_demo.host.typecheck import STUBS
from runtime.errors import RunnerError

SWIFT_ONLY = "Swift"
_DECLARATION = re.compile(
    r"\s*(?:(?:@\w+(?:\([^)]*\))?|public|open|final|static|override|convenience|mutating) )*"
    r"(?:class|struct|enum|protocol|typealias|func|var|let|init|case)\b"
)
_MEMBER = re.compile(r"\t(static )?(?:readonly )?(\w+)\??(\(|<|[:,]| =|$)")
_TYPE = re.compile(r"^declare (?:class|const enum|var) (\w+)|^interface (\w+)")


@dataclass(frozen=True)
class Name:
    """What a declaration in ``stubs/`` says that it stands for, and where it says so."""

    text: str
    place: str


@dataclass(frozen=True)
class Outcome:
    """How many names were looked up, all of which exist, and how many declarations only Swift knows."""

    found: int
    swift_only: int


def check_selectors(toolchain: Toolchain, stubs: Path = STUBS) -> Outcome:
    """Look each name up. RunnerError: a declaration has none, or there is none such; which, and where."""
    names = [name for path in swift_sources(stubs) for name in _names(path, stubs)]
    known = _read(toolchain.types)
    looked_up = [name for name in names if name.text != SWIFT_ONLY]
    missing = [name for name in looked_up if not known.has(name.text)]
    if missing:
        told = "; ".join(f"{name.place}: {name.text}" for name in missing)
        raise RunnerError(f"{len(missing)} names of stubs/ are in no framework of Apple's: {told}; correct them")
    return Outcome(len(looked_up), len(names) - len(looked_up))


def _names(path: Path, stubs: Path) -> list[Name]:
    lines = path.read_text().splitlines()
    is_swift_only = lines[0] == f"// {SWIFT_ONLY}"
    names = []
    for number, line in enumerate(lines, 1):
        if _DECLARATION.match(line) is None:
            continue
        place = f"{path.relative_to(stubs)}:{number}"
        named = re.search(r" // (?:= (.+)|(Swift))$", line)
        if named is None and not is_swift_only:
            raise RunnerError(f"{place}: does not say what it stands for; end it with // = NAME or // {SWIFT_ONLY}")
        names.append(Name(named[1] or SWIFT_ONLY if named else SWIFT_ONLY, place))
    return names


class _Declarations:
    """Types with their members, and functions and constants, as TypeScript names them."""

    def __init__(self) -> None:
        self._members: dict[str, set[str]] = {}
        self._globals: set[str] = set()

    def has(self, name: str) -> bool:
        """Whether there is what ``name`` says, as Objective-C writes it."""
        if method := re.fullmatch(r"([-+])\[(\w+) ([\w:]+)\]", name):
            kind, owner, selector = method.groups()
            member = f"{_in_typescript(selector)}("
            return (f"static {member}" if kind == "+" else member) in self._members.get(owner, set())
        if function := re.fullmatch(r"(\w+)\(\)", name):
            return f"{function[1]}(" in self._globals
        owner, dot, member = name.partition(".")
        if not dot:
            return owner in self._members or owner in self._globals
        return bool({member, f"static {member}"} & self._members.get(owner, set()))

    def add(self, text: str) -> None:
        """Take in a file."""
        owner: set[str] | None = None
        for line in text.splitlines():
            if opened := _TYPE.match(line):
                name = opened[1] or opened[2]
                owner = self._members.setdefault(name, set())
                if line.startswith("declare var"):
                    self._globals.add(name)
            elif line.startswith("declare "):
                owner = None
                if declared := re.match(r"declare (?:function (\w+\()|const (\w+):)", line):
                    self._globals.add(declared[1] or declared[2])
            elif owner is not None and (member := _MEMBER.match(line)):
                called = "(" if member[3] in ("(", "<") else ""
                owner.add(f"{member[1] or ''}{member[2]}{called}")


@cache
def _read(folder: Path) -> _Declarations:
    declarations = _Declarations()
    for file in sorted(folder.glob("*.d.ts")):
        declarations.add(file.read_text())
    return declarations


def _in_typescript(selector: str) -> str:
    """``a:bC:`` is ``aBC``."""
    first, *others = [part for part in selector.split(":") if part]
    return first + "".join(part[0].upper() + part[1:] for part in others)
