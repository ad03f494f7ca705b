"""What a declaration says beyond its name, in Swift and in NativeScript's TypeScript, and how the two differ.

Both become a `Signature` whose types are named as TypeScript names them. TypeScript says ``number`` of every number and
of an enumeration's values, ``any`` of every type of Core Foundation, and ``| null`` of every pointer that is returned.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

IN_TYPESCRIPT = {
    **dict.fromkeys(("Int", "Int32", "UInt32", "Float", "CGFloat", "CChar", "NSNumber"), "number"),
    **dict.fromkeys(("Any", "AnyHashable", "AnyObject"), "any"),
    **dict.fromkeys(("CGColorSpace", "CGContext", "CGDataProvider", "CGImage", "CGImageSource"), "any"),
    **dict.fromkeys(("CMSampleBuffer", "CVPixelBuffer"), "any"),
    **dict.fromkeys(("String", "AVMediaType", "AVCaptureSession.Preset"), "string"),
    "Bool": "boolean",
    "CGPoint": "CGPoint",
    "CGRect": "CGRect",
    "Data": "NSData",
    "DispatchQueue": "NSObject & OS_dispatch_queue",
    "ProcessInfo": "NSProcessInfo",
    "URL": "NSURL",
    "rusage": "rusage",
    "__rusage_who": "number",  # what RUSAGE_SELF is of on Linux, and an Int32 on Apple's systems
}
"""What Swift's types, and those of ours that only Swift knows, are in TypeScript."""

_ERROR = "interop.Reference<NSError>"
_MODIFIERS = r"(?:(?:@\w+(?:\([^)]*\))?|public|open|final|static|override|convenience|mutating) )*"
_STATEMENT = re.compile(rf"{_MODIFIERS}(class|struct|enum|protocol|typealias|func|var|let|init|case)\b ?(.*)")
_TAIL = re.compile(r"( async)?( throws)?(?: -> (.+?))?(?: \{.*)?")
_METHOD = re.compile(r"(?:static )?(?:declare function )?\w+\??\(")
_TYPE = re.compile(r"(?:declare class|interface) (\w+)")
_VALUE = re.compile(r"\w+ = -?\w+,?")
_PROPERTY = re.compile(r"(?:static |declare var |declare const )?(?:readonly )?\w+\??: (.+);")


class UnknownType(Exception):
    """A type of Swift's that neither stubs/ nor `IN_TYPESCRIPT` knows."""


@dataclass(frozen=True)
class Type:
    """A type as TypeScript names it; whether it may be null, None where that is not said."""

    name: str
    arguments: tuple["Type", ...] = ()
    nullable: bool | None = False

    def __str__(self) -> str:
        arguments = f"<{', '.join(map(str, self.arguments))}>" if self.arguments else ""
        return f"{self.name}{arguments}{' | null' if self.nullable else ''}"

    def agrees(self, other: "Type") -> bool:
        """Whether all that both say is the same."""
        return (
            self.name == other.name
            and len(self.arguments) == len(other.arguments)
            and all(mine.agrees(its) for mine, its in zip(self.arguments, other.arguments, strict=True))
            and (None in (self.nullable, other.nullable) or self.nullable == other.nullable)
        )


@dataclass(frozen=True)
class Parameter:
    """A parameter by the name that it has in its language."""

    name: str
    type: Type


@dataclass(frozen=True)
class Signature:
    """What takes ``parameters``, or is no call where they are None; ``is_static`` is None where that is not said."""

    result: Type
    parameters: tuple[Parameter, ...] | None = None
    is_static: bool | None = None
    is_async: bool = False
    throws: bool = False
    is_settable: bool = False

    def difference(self, other: "Signature", uncompared: Collection[str] = ()) -> str | None:
        """The first thing that a declaration says otherwise than Apple's, ``other``, does.

        ``uncompared`` are Apple's names of parameters.
        """
        if (self.parameters is None) != (other.parameters is None):
            return "one is a property, the other a method"
        if None not in (self.is_static, other.is_static) and self.is_static != other.is_static:
            return "one is static, the other is not"
        if self.is_async != other.is_async:
            return "one is async, the other is not"
        if self.throws != other.throws:
            return "one throws, the other does not"
        if self.is_settable and not other.is_settable:
            return "Apple's is read-only"
        mine, its = self.parameters or (), other.parameters or ()
        if len(mine) != len(its):
            return f"one takes {len(mine)}, the other {len(its)}"
        for parameter, apples in zip(mine, its, strict=True):
            if apples.name not in uncompared and not parameter.type.agrees(apples.type):
                return f"{parameter.name} is {parameter.type}, not {apples.type}"
        return None if self.result.agrees(other.result) else f"it gives {self.result}, not {other.result}"


@dataclass(frozen=True)
class SwiftTypes:
    """The types that stubs/ declares, by their full name in Swift: what each stands for, or is another name of."""

    stand_for: Mapping[str, str]
    aliases: Mapping[str, str]

    def named(self, name: str, scope: str) -> Type:
        """What ``name`` is where ``scope`` encloses it. UnknownType: nothing says so."""
        outer = scope
        while True:
            full = f"{outer}.{name}" if outer else name
            if full in self.aliases:
                return self.read(self.aliases[full], outer)
            if known := self.stand_for.get(full) or IN_TYPESCRIPT.get(full):
                return Type(known)
            if not outer:
                raise UnknownType(name)
            outer = outer.rpartition(".")[0]

    def read(self, text: str, scope: str) -> Type:
        """Read a type of Swift. UnknownType."""
        text = text.strip()
        if text.endswith(("?", "!")):
            return replace(self.read(text[:-1], scope), nullable=True if text[-1] == "?" else None)
        if text.startswith("any "):
            return self.read(text[4:], scope)
        if text.startswith("("):
            return self.read(text[1:-1], scope)
        if text.startswith("["):
            parts = tuple(self.read(part, scope) for part in _split(text[1:-1], ":"))
            return Type("NSArray" if len(parts) == 1 else "NSDictionary", parts)
        if pointer := re.fullmatch(r"Unsafe(?:Mutable)?(?:Raw)?Pointer(?:<(.+)>)?", text):
            return Type("pointer", (self.read(pointer[1] or "Any", scope),))
        return self.named(text, scope)

    def signature(self, code: str, scope: str) -> Signature:
        """Read a declaration that is no type's. UnknownType; ValueError: it can't be read."""
        kind, rest = _statement(code)
        is_static = bool(re.match(rf"{_MODIFIERS}static ", code))
        if kind == "case":
            payload = re.fullmatch(r"\w+(?:\((.+)\))?", rest)
            given = self.read(payload[1], scope) if payload and payload[1] else self.named(scope, "")
            return Signature(replace(given, nullable=None))
        if kind in ("var", "let"):
            declared = re.match(r"\w+(?:: (.+?))?(?: [={]|$)", rest)
            made = re.search(r" = ([\w.]+)\(\)$", rest)
            result = self.read((declared and declared[1]) or (made and made[1]) or rest, scope)
            return Signature(result, None, is_static if scope else None, is_settable=bool(re.search(r"\bset\b", rest)))
        inside, after = _parenthesised(rest)
        parameters = tuple(self._parameter(part, scope) for part in _split(inside, ","))
        tail = _TAIL.fullmatch(after)
        if tail is None:
            raise ValueError(f"{after} can't be read")
        if kind == "init":
            result = replace(self.named(scope, ""), nullable=rest.startswith("?"))
        else:
            result = self.read(tail[3], scope) if tail[3] else Type("void")
        return Signature(result, parameters, is_static if scope else None, bool(tail[1]), bool(tail[2]))

    def _parameter(self, text: str, scope: str) -> Parameter:
        names, _, declared = text.partition(": ")
        return Parameter(names.split()[-1], self.read(declared.partition(" = ")[0], scope))


def type_of_apple(text: str) -> Type:
    """Read a type of TypeScript."""
    parts = _split(text, "|")
    nullable = "null" in parts
    if any(part.startswith("interop.Pointer") for part in parts):
        to = next(part for part in parts if part.startswith("interop.Reference"))
        element = Type("number") if "string" in parts else type_of_apple(to[len("interop.Reference<") : -1])
        return Type("pointer", (element,), nullable if "ArrayBufferLike" in parts else None)
    generic = re.fullmatch(r"(\w+)<(.+)>", parts[0])
    if generic is None:
        return Type(parts[0], (), nullable)
    return Type(generic[1], tuple(type_of_apple(part) for part in _split(generic[2], ",")), nullable)


def as_swift_imports(line: str, code: str, owner: Type | None) -> Signature:
    """Apple's declaration as Swift turns it into one of the kind of ``code``, a member of ``owner``.

    A trailing error is ``throws`` and a trailing completion handler ``async``, both of which make the result not null.
    A function is a member of its first parameter, a constant a static one; a type is what a case carries.
    ValueError: it is nothing of the kind.
    """
    kind = keyword(code)
    is_function = line.startswith("declare function")
    is_static = line.startswith(("static ", "declare var", "declare const"))
    if of_type := _TYPE.match(line):
        return Signature(Type(of_type[1]))
    if owner is not None and _VALUE.fullmatch(line):
        return Signature(owner, is_static=True)
    if _METHOD.match(line) is None:
        if (found := _PROPERTY.match(line)) is None:
            raise ValueError(f"{line} can't be read")
        settable = "readonly " not in line and not line.startswith("declare")
        return Signature(type_of_apple(found[1]), None, is_static, is_settable=settable)
    inside, after = _parenthesised(line)
    parameters = [_parameter_of_apple(part) for part in _split(inside, ",")]
    result = type_of_apple(after.partition(";")[0].removeprefix(": "))
    if result.name == "this" and owner is not None:
        result = replace(owner, nullable=result.nullable)
    throws = is_async = False
    if parameters and parameters[-1].type.name == _ERROR:
        throws, parameters, result = True, parameters[:-1], replace(result, nullable=False)
    elif parameters and (handler := re.fullmatch(r"\((.*)\) => void", parameters[-1].type.name)):
        is_async, parameters = True, parameters[:-1]
        given = [_parameter_of_apple(part).type for part in _split(handler[1], ",")]
        if given and given[-1].name == "NSError":
            throws, given = True, [replace(one, nullable=False) for one in given[:-1]]
        if len(given) > 1:
            raise ValueError(f"{line} hands over several results")
        result = given[0] if given else Type("void")
    if kind == "init":
        return Signature(result, tuple(parameters), None, is_async, throws)
    if is_function and owner is not None:
        if not parameters or not replace(parameters[0].type, nullable=False).agrees(owner):
            raise ValueError(f"{line} takes no {owner} first")
        parameters = parameters[1:]
    taken = None if is_function and kind == "var" and not parameters else tuple(parameters)
    return Signature(result, taken, is_static, is_async, throws)


def keyword(code: str) -> str | None:
    """What a declaration begins with: ``class``, ``func``, ``case`` and so on; None where it is no declaration."""
    found = _STATEMENT.fullmatch(code)
    return found and found[1]


def supertypes(code: str) -> list[str]:
    """What a type inherits or conforms to, as Swift writes it."""
    listed = re.match(r"\w+: (.+?) \{", _statement(code)[1])
    return [name.split()[-1] for name in _split(listed[1], ",")] if listed else []


def _statement(code: str) -> tuple[str, str]:
    if (found := _STATEMENT.fullmatch(code)) is None:
        raise ValueError(f"{code} can't be read")
    return found[1], found[2]


def _parameter_of_apple(text: str) -> Parameter:
    name, _, declared = text.partition(": ")
    return Parameter(name.rstrip("?"), type_of_apple(declared))


def _parenthesised(text: str) -> tuple[str, str]:
    """What the first parentheses hold, and what follows them."""
    start = text.index("(")
    for index, depth in _depths(text):
        if index > start and text[index] == ")" and depth == 0:
            return text[start + 1 : index], text[index + 1 :]
    raise ValueError(f"{text} has no closing parenthesis")


def _split(text: str, separator: str) -> list[str]:
    """Its parts, at separators within no bracket."""
    parts = [""]
    for index, depth in _depths(text):
        if depth == 0 and text[index] == separator:
            parts.append("")
        else:
            parts[-1] += text[index]
    return [part.strip() for part in parts if part.strip()]


def _depths(text: str) -> Iterable[tuple[int, int]]:
    """Each index with the number of brackets open after it."""
    depth = 0
    for index, character in enumerate(text):
        if character in "([{<":
            depth += 1
        elif character in ")]}" or (character == ">" and text[index - 1] not in "-="):
            depth -= 1
        yield index, depth
