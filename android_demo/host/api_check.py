"""Whether all of Android's and Java's classes and members that the app uses are in API level 36.

Members are compared by name and number of arguments, and are looked up along the app's and Android's super classes. It
does not know when a member came: those that level 23 lacks are listed, so that a reader can see that each is guarded
by the version of the device.
"""

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from android_demo.host.class_file import ClassFile, Jar, Member, read_folder
from android_demo.host.toolchain import Toolchain

PLATFORM = ("android/", "dalvik/", "java/", "javax/", "org/json/")
TRANSLATED = "java/lang/invoke/"  # the compiler's own, which D8 replaces


@dataclass(frozen=True)
class ApiUse:
    """Of the classes checked: how much of the platform they use, what level 36 lacks, and what level 23 lacks."""

    class_count: int
    reference_count: int
    missing: tuple[str, ...]
    newer: tuple[str, ...]


def check_api(toolchain: Toolchain, folders: list[Path]) -> ApiUse:
    """Check the class files of ``folders``; each complaint names the class that refers to what is missing."""
    app = {name: each for folder in folders for name, each in read_folder(folder).items()}
    old, stubs = Jar(toolchain.android_jar), _Stubs(toolchain.api_stubs)
    checked: set[str | Member] = set()
    missing, newer = set(), set()
    for each in app.values():
        for name in each.classes:
            if _of_platform(name):
                checked.add(name)
                if stubs.members(name) is None:
                    missing.add(f"{each.name}: no class {name}")
        for member in each.members:
            owners = _owners(member, app)
            if not owners or not all(_of_platform(owner) for owner in owners):
                continue  # the app's own, or perhaps a library's
            checked.add(member)
            if not any(stubs.have(member._replace(owner=owner)) for owner in owners):
                missing.add(f"{each.name}: no {member}")
            if any(owner.startswith("android/") for owner in owners) and not any(
                old.declares(owner, member) for owner in owners
            ):
                newer.add(f"{each.name}: {member}")
    return ApiUse(len(app), len(checked), tuple(sorted(missing)), tuple(sorted(newer)))


def _of_platform(name: str) -> bool:
    return name.startswith(PLATFORM) and not name.startswith(TRANSLATED)


def _owners(member: Member, app: dict[str, ClassFile]) -> list[str]:
    """The classes outside the app that a member may come from; none, if a class of the app declares it."""
    if member.owner not in app:
        return [member.owner]
    owner = app[member.owner]
    if (member.name, member.descriptor) in owner.declared:
        return []
    return [each for parent in owner.parents for each in _owners(member._replace(owner=parent), app)]


class _Stubs:
    """The classes of a platform as Python stubs: one module a package."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._module = cache(self._read_module)
        self.members = cache(self._read_members)

    def have(self, member: Member) -> bool:
        members = self.members(member.owner)
        name = "__init__" if member.name == "<init>" else member.name
        names = (name, f"{name}_")  # what is a word of Python's own, such as await, has a line after it there
        return members is None or any(member.argument_count in members.get(each, set()) for each in names)

    def _read_module(self, package: str) -> ast.Module | None:
        first, *others = package.split(".")
        path = self._folder.joinpath(f"{first}-stubs", *others, "__init__.pyi")
        return ast.parse(path.read_text()) if path.exists() else None

    def _read_members(self, name: str) -> dict[str, set[int | None]] | None:
        """Of each member, inherited ones too, the numbers of arguments it takes, or None for a field."""
        path, _, nested = name.rpartition("/")
        package = path.replace("/", ".")
        node: ast.Module | ast.ClassDef | None = self._module(package)
        for part in nested.split("$"):
            inner = node.body if node else []
            node = next((each for each in inner if isinstance(each, ast.ClassDef) and each.name == part), None)
        if not isinstance(node, ast.ClassDef):
            return None
        members: dict[str, set[int | None]] = {}
        for each in node.body:
            if isinstance(each, ast.FunctionDef):
                static = any(ast.unparse(decorator) == "staticmethod" for decorator in each.decorator_list)
                count = len(each.args.posonlyargs + each.args.args) + bool(each.args.vararg) - (not static)
                members.setdefault(each.name, set()).add(count)
            elif isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
                members.setdefault(each.target.id, set()).add(None)
        for parent in self._parents(node, package, name):
            for inherited, counts in (self.members(parent) or {}).items():
                if inherited != "__init__":
                    members.setdefault(inherited, set()).update(counts)
        return members

    @staticmethod
    def _parents(node: ast.ClassDef, package: str, name: str) -> list[str]:
        parents = [] if name == "java/lang/Object" else ["java/lang/Object"]
        for base in node.bases:
            parts = ast.unparse(base).split("[")[0].split(".")
            first_class = next((index for index, part in enumerate(parts) if part[0].isupper()), 0)
            folder = "/".join(parts[:first_class]) or package.replace(".", "/")
            parents.append(f"{folder}/{'$'.join(parts[first_class:])}")
        return parents
