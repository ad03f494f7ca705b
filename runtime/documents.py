"""JSON documents with a schema: frozen dataclasses in Python, validated on every read and write.

The schemas (``schemas/*.schema.json``, JSON Schema 2020-12) name every field and allow no other. A
dataclass mirrors its schema field for field, so the way between the two is mechanical.
"""

import dataclasses
import json
import os
import tempfile
import types
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from runtime.errors import UsageError
from runtime.extras import require

D = TypeVar("D")


@cache
def load_schema(name: str) -> dict[str, Any]:
    """The schema ``name`` (``"manifest-v3"``) as parsed JSON."""
    text = (files("runtime") / "schemas" / f"{name}.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def validate(document: Any, schema: str, source: str) -> None:
    """UsageError that names ``source`` and the JSON path of the first violation of ``schema``."""
    jsonschema = require("jsonschema", extra="onnx")
    validator = jsonschema.Draft202012Validator(load_schema(schema))
    violation = jsonschema.exceptions.best_match(validator.iter_errors(document))
    if violation is not None:
        message = violation.message
        message = message if len(message) <= 200 else f"{message[:140]} ... {message[-50:]}"
        raise UsageError(f"{source}: {violation.json_path}: {message}")


def to_json(instance: Any) -> dict[str, Any]:
    """A dataclass instance as plain JSON: nested objects and arrays."""
    document: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(instance)))
    return document


def from_json(kind: type[D], document: Any) -> D:
    """The dataclass ``kind`` from a validated document.

    Unknown or missing fields are TypeError or KeyError.
    """
    built: D = _build(kind, document)
    return built


def _build(kind: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{name: _build(hints[name], value[name]) for name in hints})  # type: ignore[operator]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):  # X | None
        return None if value is None else _build(arguments[0], value)
    if origin is tuple:
        return tuple(_build(arguments[0], item) for item in value)
    return float(value) if kind is float else value


def read_json(path: Path, schema: str) -> Any:
    """The document at ``path``.

    UsageError: not JSON, another schema_version, or a violation of ``schema``.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse_constant)
    except ValueError as error:
        raise UsageError(f"{path}: not valid JSON: {error}") from error
    version = int(schema.rpartition("-v")[2])
    if isinstance(document, dict) and document.get("schema_version", version) != version:
        raise UsageError(
            f"{path}: $.schema_version: {document['schema_version']!r} is not {version}, "
            "the version this toolkit reads; export again or use the toolkit that wrote it"
        )
    validate(document, schema, str(path))
    return document


def refuse_constant(name: str) -> None:
    """For ``json.loads``: ValueError for NaN and Infinity, which are no JSON."""
    raise ValueError(f"{name} is not a JSON number")


def render_json(document: Any, schema: str, source: str) -> str:
    """The document as text, validated.

    UsageError: a violation of ``schema``, or a number that is not finite.
    """
    validate(document, schema, source)
    try:
        return json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    except ValueError as error:
        raise UsageError(f"{source}: a number is not finite, which JSON cannot hold") from error


def check_writable(path: Path) -> None:
    """UsageError where ``write_json`` could not write ``path``; for before the work starts."""
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is not a regular file; name another")
    folder = path.resolve().parent
    if not folder.is_dir():
        raise UsageError(f"{path}: there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{path}: cannot write into {folder}")


def write_json(path: Path, document: Any, schema: str) -> None:
    """Validate and write whole or not at all: into a file beside ``path``, then renamed over it.

    A link stays, and the file it leads to is replaced. UsageError: the document violates
    ``schema``, or ``path`` cannot be replaced by a file (a folder, a device).
    """
    text = render_json(document, schema, str(path))
    check_writable(path)
    path = path.resolve()
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        try:
            file.write(text)
            file.close()
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
