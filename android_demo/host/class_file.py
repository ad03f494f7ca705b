"""What a class file declares and what it refers to."""

import re
import struct
import zipfile
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

UTF8, INTEGER, FLOAT, LONG, DOUBLE, CLASS, STRING, FIELD, METHOD, INTERFACE_METHOD, NAME_AND_TYPE = (1, *range(3, 13))
METHOD_HANDLE, METHOD_TYPE, DYNAMIC, INVOKE_DYNAMIC, MODULE, PACKAGE = (*range(15, 21),)
ENTRY_FORMATS = {
    **dict.fromkeys((CLASS, STRING, METHOD_TYPE, MODULE, PACKAGE), ">H"),
    **dict.fromkeys((FIELD, METHOD, INTERFACE_METHOD, NAME_AND_TYPE, DYNAMIC, INVOKE_DYNAMIC), ">HH"),
    **dict.fromkeys((INTEGER, FLOAT), ">I"),
    **dict.fromkeys((LONG, DOUBLE), ">Q"),
    METHOD_HANDLE: ">BH",
}


class Member(NamedTuple):
    """A field or method: ``android/os/Build$VERSION``, ``SDK_INT``, ``I``."""

    owner: str
    name: str
    descriptor: str

    @property
    def argument_count(self) -> int | None:
        """None for a field."""
        if not self.descriptor.startswith("("):
            return None
        arguments = self.descriptor[1 : self.descriptor.index(")")]
        return len(re.findall(r"\[*(?:L[^;]+;|[ZBCSIJFD])", arguments))

    def __str__(self) -> str:
        return f"{self.owner}.{self.name}{self.descriptor if self.argument_count is not None else ''}"


@dataclass(frozen=True)
class ClassFile:
    """Names are the file's own: ``android/app/Activity``."""

    name: str
    parents: tuple[str, ...]
    declared: frozenset[tuple[str, str]]
    members: frozenset[Member]
    classes: frozenset[str]


def read_class(data: bytes) -> ClassFile:
    """Parse the bytes of a class file."""
    file = BytesIO(data)

    def take(form: str) -> tuple[int, ...]:
        return struct.unpack(form, file.read(struct.calcsize(form)))

    *_, count = take(">IHHH")
    tags: dict[int, int] = {}
    values: dict[int, tuple[int, ...]] = {}
    texts: dict[int, str] = {}
    index = 1
    while index < count:
        (tags[index],) = take(">B")
        if tags[index] == UTF8:
            texts[index] = file.read(*take(">H")).decode("utf-8", "replace")
        else:
            values[index] = take(ENTRY_FORMATS[tags[index]])
        index += 2 if tags[index] in (LONG, DOUBLE) else 1

    def class_name(index: int) -> str:
        return texts[values[index][0]]

    _, this, parent, interface_count = take(">HHHH")
    parents = [parent] if parent else []
    parents += take(f">{interface_count}H")
    declared = set()
    for _ in ("fields", "methods"):
        for _ in range(*take(">H")):
            _, name, descriptor, attribute_count = take(">HHHH")
            declared.add((texts[name], texts[descriptor]))
            for _ in range(attribute_count):
                _, size = take(">HI")
                file.read(size)
    referred = [values[index] for index, tag in tags.items() if tag in (FIELD, METHOD, INTERFACE_METHOD)]
    types = [
        text for index, text in texts.items() if index in {values[i][0] for i, tag in tags.items() if tag == CLASS}
    ]
    return ClassFile(
        name=class_name(this),
        parents=tuple(map(class_name, parents)),
        declared=frozenset(declared),
        members=frozenset(
            Member(class_name(owner), *(texts[part] for part in values[signature])) for owner, signature in referred
        ),
        classes=frozenset(_element(text) for text in types if _element(text)),
    )


def read_folder(folder: Path) -> dict[str, ClassFile]:
    """All class files of a folder, by name."""
    found = [read_class(file.read_bytes()) for file in folder.rglob("*.class")]
    return {each.name: each for each in found}


class Jar:
    """The classes of a JAR, each read when it is asked for."""

    def __init__(self, path: Path) -> None:
        self._archive = zipfile.ZipFile(path)
        self._names = set(self._archive.namelist())
        self.find = cache(self._read)

    def _read(self, name: str) -> ClassFile | None:
        file = f"{name}.class"
        return read_class(self._archive.read(file)) if file in self._names else None

    def declares(self, owner: str, member: Member) -> bool:
        """Whether the class ``owner`` or one above it has ``member``."""
        found = self.find(owner)
        return found is not None and (
            (member.name, member.descriptor) in found.declared
            or any(self.declares(parent, member) for parent in found.parents)
        )


def _element(type_name: str) -> str:
    """Of an array, the class of its elements; empty for primitive ones."""
    if not type_name.startswith("["):
        return type_name
    element = type_name.lstrip("[")
    return element[1:-1] if element.startswith("L") else ""
