"""Where an inference's instructions go, per kind of op and per part of the network: `python -m benchmarks.op_costs`.

Every op of DMF-XXS's .tflite becomes a model of its own and is counted on an emulated Cortex-A76 (equal ops once), less
what the cheapest of them costs, which is the price of an invocation. XNNPACK fuses some ops (padding into the
convolution behind it, squares into their sum) and copies nothing for most reshapes: those show up here and not in the
count of the whole. Results go to benchmarks/results/op_costs.json, the plot to docs/op_costs.png.
"""

import copy
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dmf
from benchmarks.instructions import CPU, SEED
from benchmarks.readme import ROOT
from benchmarks.run import write
from export.pipeline import prepare, write_package
from export.plan import make_plan
from export.provenance import Origin
from runtime.arm64.setup import prepare as prepare_emulation
from runtime.commandline import Progress
from runtime.instructions import count
from runtime.worker import MARK

MODEL = "dmf_xxs"
PARTS = {  # what a tensor's name holds -> the part of the network; the first that fits
    "Conv_": "stem",
    "Routing": "kernel attention",
    "generate": "weight generation",
    "pw_conv1": "dynamic pointwise",
    "pw_conv2": "dynamic pointwise",
    "end_conv": "dynamic pointwise",
    "dw_conv": "dynamic depthwise",
    "FFN_ffn": "FFN",
    "ttention_": "cross attention",
    "Former_": "former",
}


@dataclass(frozen=True)
class Op:
    """One op of the graph: its kind, its part of the network, and what makes it equal to another."""

    kind: str
    part: str
    key: str


def main() -> int:
    progress = Progress()
    prepared = prepare(dmf.seed_weights(dmf.create_model(MODEL), SEED), Origin(seed=SEED), progress)
    with tempfile.TemporaryDirectory() as out:
        package = write_package(make_plan(prepared.model, "tflite"), prepared, Path(out), False, progress)
        whole = count([package], CPU)[0].instructions
        ops, models = split(package.artifact, Path(out))
        with progress.stage(f"count {len(models)} different ops of {len(ops)} on {CPU}"):
            found = dict(zip(models, count_each(list(models.values()), Path(out)), strict=True))
    price = min(found.values())
    kinds, parts = Counter[str](), Counter[str]()
    for op in ops:
        kinds[op.kind] += found[op.key] - price
        parts[op.part] += found[op.key] - price
    number = Counter(op.kind for op in ops)
    results = {
        "model": MODEL,
        "lowering": str(package.manifest.lowering),
        "cpu": CPU,
        "whole": whole,
        "sum": kinds.total(),
        "kinds": [{"kind": k, "ops": number[k], "instructions": v} for k, v in kinds.most_common()],
        "parts": [{"part": k, "instructions": v} for k, v in parts.most_common()],
    }
    write("op_costs.json", results)
    draw(results, ROOT / "docs" / "op_costs.png")
    return 0


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
        part = next((part for text, part in PARTS.items() if text in name), "rest")
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

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for axis, rows, name in ((axes[0], results["kinds"], "kind"), (axes[1], results["parts"], "part")):
        rows = [row for row in rows if row["instructions"] > 0.002 * results["sum"]][::-1]
        labels = [f"{row[name]} ({row['ops']})" if "ops" in row else row[name] for row in rows]
        bars = axis.barh(labels, [row["instructions"] / 1e6 for row in rows], color="#4878a8")
        axis.bar_label(bars, fmt="%.1f", padding=2, fontsize=8)
        axis.margins(x=0.12)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlabel("million instructions per inference, each op by itself")
        axis.tick_params(labelsize=8)
    axes[0].set_title(f"{results['model']}, {results['lowering']}: by op (how many)", fontsize=10)
    axes[1].set_title(f"by part; the whole is {results['whole'] / 1e6:.1f} on {results['cpu']}", fontsize=10)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
