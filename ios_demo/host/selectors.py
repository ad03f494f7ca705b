"""Whether what ``stubs/`` declares is in Apple's frameworks, by what NativeScript generates from their headers."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ios_demo.host.project import swift_sources
from ios_demo.host.signatures import SwiftTypes, UnknownType, as_swift_imports, keyword, supertypes
from ios_demo.host.toolchain import Toolchain
from ios_demo.host.typecheck import STUBS
from runtime.errors import RunnerError

SWIFT_ONLY = "Swift"
ALL = "all"
_SAYS = re.compile(r"// (?:= (?P<name>[^;]+?)(?:; not compared: (?P<uncompared>[\w, ]+) \(.+\))?|Swift)$")
_SCOPE = re.compile(r"\b(?:class|struct|enum|protocol|extension) ([\w.]+).*\{$")
_MEMBER = re.compile(r"\t(static )?(?:readonly )?(\w+)\??(\(|<|[:,]| =|$)")
_TYPE = re.compile(r"declare (?:class|const enum|var) (\w+)(?:: \{| .*\{)$|interface (\w+)")
_IN_TYPESCRIPT = {"class": "declare class", "protocol": "interface"}  # a struct or enum may be Swift's form of either
_TYPES = {"class", "struct", "enum", "protocol"}


@dataclass(frozen=True)
class Stub:
    """A declaration in ``stubs/``, within ``scope``: what it stands for, None where only Swift knows."""

    code: str
    scope: str
    place: str
    name: str | None
    uncompared: frozenset[str]
    """Apple's names of parameters; ``ALL`` for the whole of it."""


@dataclass(frozen=True)
class Outcome:
    """How many declarations stand for Apple's, all of which are as Apple's are; of how many of these something is not
    compared, and they say why; how many only Swift knows."""

    found: int
    uncompared: int
    swift_only: int


def check_selectors(toolchain: Toolchain, stubs: Path = STUBS) -> Outcome:
    """Look each name up, and compare what is declared with Apple's of that name.

    RunnerError: a declaration has no name, there is none such, or Apple's is another; which, and where.
    """
    declared, types = _read_stubs(stubs)
    apples = _read(toolchain.types)
    lines = {stub: apples.find(stub.name) for stub in declared if stub.name is not None}
    missing = [f"{stub.place}: {stub.name}" for stub, line in lines.items() if line is None]
    if missing:
        raise RunnerError(f"{len(missing)} names of stubs/ are in no framework of Apple's: {_listed(missing)}")
    wrong = [told for stub, line in lines.items() if line is not None and (told := _problem(stub, line, types))]
    if wrong:
        raise RunnerError(f"{len(wrong)} declarations of stubs/ are not Apple's: {_listed(wrong)}")
    return Outcome(len(lines), sum(bool(stub.uncompared) for stub in lines), len(declared) - len(lines))


def _listed(told: Sequence[str]) -> str:
    return f"{'; '.join(told)}; correct them"


def _problem(stub: Stub, line: str, types: SwiftTypes) -> str | None:
    """What a declaration and Apple's have not in common, None for nothing."""
    told = _difference(stub, line, types)
    if told is None and stub.uncompared:
        told = "they are the same; drop what says that something is not compared"
    elif told is not None and stub.uncompared:
        told = None if ALL in stub.uncompared else _difference(stub, line, types, stub.uncompared)
    code = stub.code.replace(" { fatalError() }", "").removesuffix(" {")
    return told and f"{stub.place}: declared `{code}`, Apple's `{line}`: {told}"


def _difference(stub: Stub, line: str, types: SwiftTypes, uncompared: Collection[str] = ()) -> str | None:
    kind = keyword(stub.code)
    try:
        if kind in _TYPES:
            if not line.startswith(_IN_TYPESCRIPT.get(kind, "")):
                return f"Apple's is no {kind}"
            above = {types.stand_for[name] for name in supertypes(stub.code) if name in types.stand_for}
            strange = above - set(re.findall(r"\w+", line))
            return f"Apple's is no {', '.join(sorted(strange))}" if strange else None
        owner = types.named(stub.scope, "") if stub.scope else None
        of = re.match(r"[-+]\[(\w+) |(\w+)\.", stub.name or "")
        if of and (owner is None or owner.name != (of[1] or of[2])):
            return f"one is of {owner}, the other of {of[1] or of[2]}"
        apples = as_swift_imports(line, stub.code, owner)
        return types.signature(stub.code, stub.scope).difference(apples, uncompared)
    except UnknownType as error:
        return f"neither stubs/ nor IN_TYPESCRIPT says what {error} is"
    except ValueError as error:
        return str(error)


def _read_stubs(stubs: Path) -> tuple[list[Stub], SwiftTypes]:
    """All declarations, and the types among them. RunnerError: one does not say what it stands for."""
    declared = [stub for path in swift_sources(stubs) for stub in _stubs(path, stubs)]
    stand_for: dict[str, str] = {}
    aliases: dict[str, str] = {}
    for stub in declared:
        kind = keyword(stub.code)
        named = re.search(rf"\b{kind} (\w+)(?: = (.+))?", stub.code)
        full = f"{stub.scope}.{named[1]}".removeprefix(".") if named else ""
        if kind == "typealias" and named:
            aliases[full] = named[2]
        elif kind in _TYPES and stub.name is not None:
            stand_for[full] = stub.name
    return declared, SwiftTypes(stand_for, aliases)


def _stubs(path: Path, stubs: Path) -> Iterator[Stub]:
    lines = path.read_text().splitlines()
    is_swift_only = lines[0] == f"// {SWIFT_ONLY}"
    scopes: list[str] = []
    for number, line in enumerate(lines, 1):
        code, _, comment = (part.strip() for part in line.partition("// "))
        if keyword(code) is not None:
            place = f"{path.relative_to(stubs)}:{number}"
            says = _SAYS.fullmatch(f"// {comment}")
            if says is None and not is_swift_only:
                raise RunnerError(f"{place}: does not say what it stands for; end it with // = NAME or // {SWIFT_ONLY}")
            name, uncompared = says.group("name", "uncompared") if says else (None, None)
            yield Stub(code, ".".join(scopes), place, name, frozenset(re.findall(r"\w+", uncompared or "")))
        if opened := _SCOPE.search(code):
            scopes.append(opened[1])
        elif code.count("{") < code.count("}"):
            scopes.pop()


class _Declarations:
    """Types with their members, and functions and constants, as TypeScript names and declares them."""

    def __init__(self) -> None:
        self._types: dict[str, str] = {}
        self._members: dict[str, dict[str, str]] = {}
        self._globals: dict[str, str] = {}

    def find(self, name: str) -> str | None:
        """What declares what ``name`` says, as Objective-C writes it; None where nothing does."""
        if method := re.fullmatch(r"([-+])\[(\w+) ([\w:]+)\]", name):
            kind, owner, selector = method.groups()
            member = f"{_in_typescript(selector)}("
            return self._members.get(owner, {}).get(f"static {member}" if kind == "+" else member)
        if function := re.fullmatch(r"(\w+)\(\)", name):
            return self._globals.get(f"{function[1]}(")
        owner, dot, member = name.partition(".")
        if not dot:
            return self._types.get(owner) or self._globals.get(owner)
        members = self._members.get(owner, {})
        return members.get(member) or members.get(f"static {member}")

    def add(self, text: str) -> None:
        """Take in a file."""
        owner: dict[str, str] | None = None
        for line in text.splitlines():
            if opened := _TYPE.match(line):
                name = opened[1] or opened[2]
                owner = self._members.setdefault(name, {})
                self._types.setdefault(name, line.removesuffix(" {"))
            elif line.startswith("declare "):
                owner = None
                if declared := re.match(r"declare (?:function (\w+\()|(?:const|var) (\w+):)", line):
                    self._globals[declared[1] or declared[2]] = line
            elif owner is not None and (member := _MEMBER.match(line)):
                called = "(" if member[3] in ("(", "<") else ""
                owner.setdefault(f"{member[1] or ''}{member[2]}{called}", line.partition("//")[0].strip())


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
