"""Where an inference's time goes, per kind of op and per part of the network: `python -m benchmarks.op_costs`.

Every op of DMF-XXS's .tflite becomes a model of its own. Each different one is counted in instructions of an emulated
Cortex-A76, and timed on this machine on one thread, less what the cheapest of them costs, which is the price of an
invocation. What is alone has warm caches, and XNNPACK fuses some ops (padding into the convolution behind it, squares
into their sum) and copies nothing for most reshapes: read shares. Results go to benchmarks/results/op_costs.json, the
plot to docs/op_costs.png.
"""

import copy
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.instructions import CPU
from benchmarks.latency_vs_accuracy import NAMES
from benchmarks.run import Packages, write
from runtime.arm64.setup import prepare as prepare_emulation
from runtime.commandline import Progress
from runtime.instructions import count
from runtime.manifest import Package
from runtime.worker import MARK

PICTURE = Path(__file__).parent.parent / "docs" / "op_costs.png"
MODEL = "dmf_xxs"
REPEATS = 31  # of a timed op
PARTS = {  # what a module's path holds -> the part of the network; the first that fits
    r"Routing_": "kernel attention",
    r"(dw_conv|pw_conv\d|end_conv)/.*Linear_": "weight generation",
    r"pw_conv\d|end_conv": "dynamic pointwise",
    r"dw_conv": "dynamic depthwise",
    r"_ffn": "FFN",
    r"_(end_)?cross": "cross-attention",
    r"_(end_)?former": "Former",
    r"_downsample": "downsampling",
    r"Block_": "GELU and groups between",
    r"static\.Conv_\d": "stem",
}


@dataclass(frozen=True)
class Op:
    """One op of the graph: its kind, its part of the network, and what makes it equal to another."""

    kind: str
    part: str
    key: str


def main() -> int:
    progress = Progress()
    with tempfile.TemporaryDirectory() as folder:
        results = costs(Packages(MODEL, Path(folder), progress).get("tflite"), progress)
    write("op_costs.json", results)
    draw(results, PICTURE)
    return 0


def costs(package: Package, progress: Progress) -> dict[str, Any]:
    """Instructions and microseconds of the ops by kind and by part, most instructions first."""
    with tempfile.TemporaryDirectory() as folder:
        ops, models = split(package.artifact, Path(folder))
        paths = list(models.values())
        with progress.stage(f"time {len(models)} different ops of {len(ops)}"):
            times_us = less_the_least(time_each(paths))
        with progress.stage(f"count them on {CPU}"):
            instructions = less_the_least(count_each(paths, Path(folder)))
    whole = count([package], CPU)[0].instructions
    cost = dict(zip(models, zip(instructions, times_us, strict=True), strict=True))

    def rows(name: str) -> list[dict[str, Any]]:
        found: dict[str, list[Op]] = {}
        for op in ops:
            found.setdefault(getattr(op, name), []).append(op)
        table = [
            {
                name: each,
                "ops": len(members),
                "instructions": sum(cost[op.key][0] for op in members),
                "time_us": sum(cost[op.key][1] for op in members),
            }
            for each, members in found.items()
        ]
        return sorted(table, key=lambda row: -row["instructions"])

    manifest = package.manifest
    return {
        "model": manifest.model.variant,
        "lowering": f"{manifest.lowering.pointwise}/{manifest.lowering.depthwise}",
        "cpu": CPU,
        "whole_instructions": whole,
        "kinds": rows("kind"),
        "parts": rows("part"),
    }


def less_the_least(costs: list[float]) -> list[float]:
    return [each - min(costs) for each in costs]


def time_each(paths: list[Path]) -> list[float]:
    """Median microseconds of an invocation of each model on one thread of this machine."""
    from ai_edge_litert.interpreter import Interpreter

    medians = []
    for path in paths:
        interpreter = Interpreter(str(path), num_threads=1)
        interpreter.allocate_tensors()
        samples = []
        for _ in range(REPEATS):
            start = time.perf_counter_ns()
            interpreter.invoke()
            samples.append((time.perf_counter_ns() - start) / 1e3)
        medians.append(statistics.median(samples))
    return medians


COUNT = """
import os, sys
from ai_edge_litert.interpreter import Interpreter

def mark():
    try:
        os.getpgid(int(sys.argv[1]))
    except ProcessLookupError:
        pass

for path in sys.argv[2:]:
    interpreter = Interpreter(path, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.invoke()
    interpreter.invoke()
    mark()
    interpreter.invoke()
    mark()
"""


def count_each(paths: list[Path], folder: Path) -> list[int]:
    """Instructions of one invocation of each model, all in one emulated process; the inputs are zeros."""
    marks, script = folder / "marks", folder / "count.py"
    script.write_text(COUNT)
    launch = prepare_emulation().launch(CPU, marks)
    command = [*launch.command, str(script), str(MARK), *map(str, paths)]
    subprocess.run(command, env=launch.environment, check=True, stderr=subprocess.DEVNULL)
    numbers = [int(line) for line in marks.read_text().split()]
    return [after - before for before, after in zip(numbers[::2], numbers[1::2], strict=True)]


def split(artifact: Path, folder: Path) -> tuple[list[Op], dict[str, Path]]:
    """The ops of a .tflite file, and for each different one a model of it alone."""
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    model = flatbuffer_utils.read_model(str(artifact))
    (graph,) = model.subgraphs
    ops: list[Op] = []
    models: dict[str, Path] = {}
    inside = False

    def constant(tensor: Any) -> bool:
        data = model.buffers[tensor.buffer].data
        return data is not None and len(data) > 0

    for op in graph.operators:
        code = model.operatorCodes[op.opcodeIndex]
        kind = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        operands = [graph.tensors[i] for i in op.inputs if i >= 0]
        key = repr(
            (
                kind,
                vars(op.builtinOptions) if op.builtinOptions else None,
                [(list(t.shape), constant(t), operand_values(model, t)) for t in operands],
                [list(graph.tensors[i].shape) for i in op.outputs],
            )
        )
        name = graph.tensors[op.outputs[0]].name.decode().rpartition(";;")[2]
        inside |= "Block_" in name
        outside = "head" if inside else "stem"  # of the network's own ops, such as GELUs between its modules
        part = next((part for pattern, part in PARTS.items() if re.search(pattern, name)), outside)
        ops.append(Op(kind, part, key))
        if key not in models:
            path = folder / f"op{len(models)}.tflite"
            flatbuffer_utils.write_model(alone(schema, model, graph, op, code, constant), str(path))
            models[key] = path
    return ops, models


def alone(schema: Any, model: Any, graph: Any, op: Any, code: Any, constant: Any) -> Any:
    """A model of one op: constants stay, and what was computed is an input."""
    single, body = schema.ModelT(), schema.SubGraphT()
    single.version, single.description, single.operatorCodes = 3, b"one op", [code]
    single.buffers, single.subgraphs = [schema.BufferT()], [body]
    body.tensors, body.inputs, places = [], [], {}
    for index in [*op.inputs, *op.outputs]:
        if index >= 0 and index not in places:
            tensor = copy.copy(graph.tensors[index])
            if constant(tensor):
                single.buffers.append(model.buffers[tensor.buffer])
            tensor.buffer = len(single.buffers) - 1 if constant(tensor) else 0
            places[index] = len(body.tensors)
            body.tensors.append(tensor)
            if index in op.inputs and not constant(tensor):
                body.inputs.append(places[index])
    only = copy.copy(op)
    only.opcodeIndex = 0
    only.inputs = [places.get(i, -1) for i in op.inputs]
    body.outputs = only.outputs = [places[i] for i in op.outputs]
    body.operators = [only]
    return single


def operand_values(model: Any, tensor: Any) -> str:
    """Of a small constant (axes, sizes, paddings), which decides what an op does; of weights, nothing."""
    data = model.buffers[tensor.buffer].data
    return "" if data is None or len(data) > 64 else bytes(data).hex()


def draw(results: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    units = {
        "instructions": (1e6, ".1f", f"M instructions, {results['cpu']}"),
        "time_us": (1e3, ".2f", "ms, one thread of an x86 machine"),
    }
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 5.4), layout="constrained")
    titles = {"kind": "by kind of op (how many)", "part": "by part of the network (ops)"}
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        rows = results[f"{name}s"]
        total = {unit: sum(row[unit] for row in rows) for unit in units}
        rows = [row for row in rows if any(row[unit] > 0.005 * total[unit] for unit in units)][::-1]
        for offset, (unit, (scale, digits, label)) in zip((0.2, -0.2), units.items(), strict=True):
            places = [i + offset for i in range(len(rows))]
            shares = [100 * row[unit] / total[unit] for row in rows]
            bars = axis.barh(places, shares, height=0.38, label=f"{label} (sum {total[unit] / scale:.1f})")
            axis.bar_label(bars, [f"{row[unit] / scale:{digits}}" for row in rows], padding=2, fontsize=7)
        axis.set_yticks(range(len(rows)), [f"{row[name]} ({row['ops']})" for row in rows], fontsize=8)
        axis.margins(x=0.1, y=0.01)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlabel("share, %", fontsize=9)
        axis.set_title(title, fontsize=10)
    axes[0].legend(loc="lower right", fontsize=8, frameon=False)
    whole = results["whole_instructions"] / 1e6
    figure.suptitle(
        f"{NAMES[results['model']]}, LiteRT, {results['lowering']}: each op by itself "
        f"(the whole network: {whole:.1f} M instructions)",
        fontsize=11,
    )
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
