"""What a delegate left to LiteRT's own kernels, as the interpreter reports it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.errors import RunnerError
from runtime.extras import require

_ROOT = re.compile(r"(?:\w+\.)+\w+")  # package.module.Class, by litert-torch
_CHILD = re.compile(r"(?:\w+\.)+_?[A-Za-z0-9]+_(?P<name>\w+)")  # package.module.Class_name


@dataclass(frozen=True)
class Operator:
    """One operator of the file: its type, the module that it comes from ("" if the file does not tell), its result."""

    kind: str
    scope: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Partitions:
    """How a delegate cut a graph: so many operators in all, so many parts given away, and what stayed outside."""

    operators: int
    count: int
    outside: tuple[Operator, ...]


def partitions(artifact: Path) -> Partitions:
    """Of a .tflite file, with the interpreter's default delegate, XNNPACK.

    The interpreter lists every operator, and the delegate's parts after them; what belongs to a part is what its
    results are computed from, back to its inputs. Raises `RunnerError` for a file that can't be opened.
    """
    litert = require("ai_edge_litert.interpreter", extra="tflite")
    try:
        interpreter = litert.Interpreter(model_path=str(artifact), num_threads=1)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise RunnerError(f"{artifact}: litert cannot open it: {' '.join(str(error).split())[:300]}") from error
    nodes = interpreter._get_ops_details()
    parts = [node for node in nodes if node["op_name"] == "DELEGATE"]
    operators = [node for node in nodes if node["op_name"] != "DELEGATE"]
    inside = _inside(operators, parts)
    tensors = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
    outside = []
    for i, node in enumerate(operators):
        if i not in inside:
            result = tensors[int(node["outputs"][0])]
            shape = tuple(map(int, result["shape"]))
            outside.append(Operator(node["op_name"], scope_of(result["name"]), shape))
    return Partitions(len(operators), len(parts), tuple(outside))


def scope_of(name: str) -> str:
    """`blocks.0.dw_conv` has the scope `0.dw_conv`: litert-torch names a tensor by the modules that were called.

    "" for a name of another kind, as other converters give.
    """
    root, *children = name.partition(";")[0].split("/")
    matches = [_CHILD.fullmatch(segment) for segment in children]
    if not _ROOT.fullmatch(root) or not all(matches):
        return ""
    return ".".join(match["name"] for match in matches[1:] if match)  # the first child is the network


def _inside(operators: list[dict[str, Any]], parts: list[dict[str, Any]]) -> set[int]:
    """The places of the operators that are in one of the parts."""
    producers = {int(tensor): i for i, node in enumerate(operators) for tensor in node["outputs"]}
    inside: set[int] = set()
    for part in parts:
        given = set(map(int, part["inputs"]))
        wanted = list(map(int, part["outputs"]))
        while wanted:
            tensor = wanted.pop()
            i = producers.get(tensor)
            if i is None or tensor in given or i in inside:
                continue
            inside.add(i)
            wanted += map(int, operators[i]["inputs"])
    return inside
