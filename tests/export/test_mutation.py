"""The test of the test: artifacts damaged at random places, and whether what they are proven on shows it.

Each mutant is judged as any artifact is. One that passes must be harmless: on 24 further pictures, too, it may not move
any logit by more than the budget. What can't be opened or run counts as caught.
"""

import functools
import multiprocessing
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import dmf
from dmf.seeded import pictures
from export.pipeline import prepare, write_package
from export.plan import make_plan
from export.provenance import Origin
from export.verify.artifact import verify_artifact
from export.verify.inputs import PHOTOGRAPHS, Inputs, photograph
from export.verify.intermediates import open_with
from export.verify.parity import TOLERANCES
from export.verify.reference import compute_reference
from runtime.errors import CommandError
from runtime.preprocess import MEAN, STD, to_input

# a library warns of forks beside threads; if one blocked, the intact artifact would fail
pytestmark = pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")

MUTANTS = {"weight": 8, "constant": 5, "attribute": 5, "routing": 2}  # of each format
SMALL = 64  # numbers; a constant of more is a weight
SECONDS = 60  # until a mutant that is stuck is given up


# Where a format can be edited ---------------------------------------------------------------------


@dataclass(frozen=True)
class Site:
    """A place, in words, and what damages it: called with a random generator, says how."""

    place: str
    damage: Callable


def change_number(value, peak, random):
    """Another number of the same type, with which the network could have been written by mistake."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + int(random.choice([-1, 1]))
    return float(random.choice([-value, 0.0, value + peak]) if value else peak or 1.0)


def change_one(values, random):
    """One number of a sequence; says how."""
    i = int(random.integers(len(values)))
    before = values[i]
    peak = max(abs(value) for value in values)
    values[i] = change_number(before, peak, random)
    return f"[{i}] {before:.4g} -> {values[i]:.4g}"


def change_array(array, random):
    """A copy of an array with one number changed, and how."""
    flat = array.reshape(-1).copy()
    i = int(random.integers(flat.size))
    flat[i] = change_number(flat[i].item(), float(np.abs(flat).max()), random)
    return flat.reshape(array.shape), f"[{i}] {array.reshape(-1)[i]:.4g} -> {flat[i]:.4g}"


class Onnx:
    def __init__(self, artifact):
        import onnx

        self.onnx, self.artifact, self.model = onnx, artifact, onnx.load(artifact)

    def sites(self, kind):
        graph, helper = self.model.graph, self.onnx.numpy_helper
        if kind in ("weight", "constant"):
            for tensor in graph.initializer:
                array = helper.to_array(tensor)
                if array.size and (array.size > SMALL) == (kind == "weight"):
                    yield Site(tensor.name, functools.partial(self.change_initializer, tensor))
        for node in graph.node:
            if kind == "attribute":
                for attribute in node.attribute:
                    yield Site(
                        f"{node.op_type} {node.name} {attribute.name}", functools.partial(self.change, attribute)
                    )
            if kind == "routing" and node.op_type == "Sigmoid":
                yield Site(f"{node.op_type} {node.name}", functools.partial(self.freeze, node))

    def change_initializer(self, tensor, random):
        array, how = change_array(self.onnx.numpy_helper.to_array(tensor), random)
        tensor.CopyFrom(self.onnx.numpy_helper.from_array(array, tensor.name))
        return how

    def change(self, attribute, random):
        value = self.onnx.helper.get_attribute_value(attribute)
        values = list(value) if attribute.ints or attribute.floats else [value]
        if isinstance(values[0], bytes):
            attribute.s = {b"none": b"tanh"}.get(values[0], b"none")
            return f"{values[0]} -> {attribute.s}"
        how = change_one(values, random)
        attribute.CopyFrom(self.onnx.helper.make_attribute(attribute.name, values if len(values) > 1 else values[0]))
        return how

    def freeze(self, node, random, held):
        (name,) = node.output
        self.model.graph.node.remove(node)
        self.model.graph.initializer.append(self.onnx.numpy_helper.from_array(held(name), name))
        return "held"

    def save(self, path):
        self.onnx.save(self.model, path)


class Tflite:
    def __init__(self, artifact):
        from ai_edge_litert import schema_py_generated as schema

        self.schema, self.artifact = schema, artifact
        self.model = schema.ModelT.InitFromPackedBuf(artifact.read_bytes(), 0)
        (self.graph,) = self.model.subgraphs
        self.types = {schema.TensorType.FLOAT32: np.float32, schema.TensorType.INT32: np.int32}

    def sites(self, kind):
        if kind in ("weight", "constant"):
            for i, tensor in enumerate(self.graph.tensors):
                data = self.model.buffers[tensor.buffer].data
                if data is None or not len(data) or tensor.type not in self.types:
                    continue
                if (len(data) // 4 > SMALL) == (kind == "weight"):
                    yield Site(f"tensor {i}", functools.partial(self.change_tensor, tensor))
        names = {value: name for name, value in vars(self.schema.BuiltinOperator).items() if isinstance(value, int)}
        for i, operator in enumerate(self.graph.operators):
            code = names[self.model.operatorCodes[operator.opcodeIndex].builtinCode]
            if kind == "attribute" and operator.builtinOptions is not None:
                for name, value in vars(operator.builtinOptions).items():
                    if isinstance(value, int | float):
                        yield Site(f"{code} {i} {name}", functools.partial(self.change, operator, name))
            if kind == "routing" and code == "LOGISTIC":
                yield Site(f"{code} {i}", functools.partial(self.freeze, operator))

    def change_tensor(self, tensor, random):
        old = self.model.buffers[tensor.buffer].data.astype(np.uint8).view(self.types[tensor.type])
        array, how = change_array(old, random)
        self.model.buffers[tensor.buffer].data = array.view(np.uint8)
        return how

    def change(self, operator, name, random):
        values = [getattr(operator.builtinOptions, name)]
        how = change_one(values, random)
        setattr(operator.builtinOptions, name, values[0])
        return how

    def freeze(self, operator, random, held):
        (index,) = operator.outputs
        self.graph.operators.remove(operator)
        buffer = self.schema.BufferT()
        buffer.data = np.ascontiguousarray(held(str(index))).view(np.uint8).reshape(-1)
        self.model.buffers.append(buffer)
        self.graph.tensors[index].buffer = len(self.model.buffers) - 1
        return "held"

    def save(self, path):
        import flatbuffers

        builder = flatbuffers.Builder()
        builder.Finish(self.model.Pack(builder), b"TFL3")
        path.write_bytes(builder.Output())


class CoreML:
    """Attributes are constants, too: of whole numbers, flags or words."""

    def __init__(self, artifact):
        from coremltools.models.utils import load_spec

        self.artifact, self.spec = artifact, load_spec(str(artifact))
        data = artifact / "Data" / "com.apple.CoreML"
        self.program, self.weights = data / "model.mlmodel", bytearray((data / "weights" / "weight.bin").read_bytes())
        (self.block,) = self.spec.mlProgram.functions["main"].block_specializations.values()

    def sites(self, kind):
        for operation in self.block.operations:
            name = f"{operation.type} {operation.outputs[0].name}"
            if kind == "routing" and operation.type == "sigmoid":
                yield Site(name, functools.partial(self.freeze, operation))
            if operation.type != "const":
                continue
            value = operation.attributes["val"]
            if kind == "weight" and value.WhichOneof("value") == "blobFileValue":
                yield Site(name, functools.partial(self.change_blob, value.blobFileValue.offset))
            if value.WhichOneof("value") == "immediateValue":
                tensor = value.immediateValue.tensor
                field = tensor.WhichOneof("value")
                wanted = ("floats",) if kind == "constant" else ("ints", "bools") if kind == "attribute" else ()
                values = getattr(tensor, field).values if field in wanted else ()
                # an epsilon is harmless wherever it is, and there are so many that none but they would be drawn
                if len(values) and (kind != "constant" or max(map(abs, values)) > 1e-4):
                    yield Site(name, functools.partial(self.change, getattr(tensor, field).values))

    def change(self, values, random):
        return change_one(values, random)

    def change_blob(self, offset, random):
        sentinel, _, size, start = struct.unpack_from("<IIQQ", self.weights, offset)
        assert sentinel == 0xDEADBEEF
        array, how = change_array(np.frombuffer(self.weights[start : start + size], np.float32), random)
        self.weights[start : start + size] = array.tobytes()
        return how

    def freeze(self, operation, random, held):
        (output,) = operation.outputs
        values = held(output.name).reshape(-1).tolist()
        operation.type = "const"
        operation.inputs.clear()
        operation.attributes["val"].type.CopyFrom(output.type)
        operation.attributes["val"].immediateValue.tensor.floats.values.extend(values)
        return "held"

    def save(self, path):
        shutil.copytree(self.artifact, path)
        program = path / self.program.relative_to(self.artifact)
        program.write_bytes(self.spec.SerializeToString())
        (program.parent / "weights" / "weight.bin").write_bytes(self.weights)


EDITORS = {"onnx": Onnx, "tflite": Tflite, "coreml": CoreML}


# Mutants and their judgement ----------------------------------------------------------------------


@dataclass(frozen=True)
class Fate:
    """`error` is the largest, in budgets, on what artifacts are proven on; infinite for what can't be run.

    `beyond` is that on the further pictures, measured where the verdict lets a mutant pass.
    """

    mutant: str
    passed: bool
    error: float
    beyond: float

    @property
    def matters(self):
        return not self.passed or self.beyond > 1


def mutate(package, kind, seed, path, first):
    """Write a mutant; says what was done. `first` is the first golden image as the artifact takes it."""
    format, random = package.manifest.format, np.random.default_rng(seed)
    editor = EDITORS[format](package.artifact)
    sites = list(editor.sites(kind))
    site = sites[int(random.integers(len(sites)))]

    def held(name):
        with open_with(format, package.artifact, [name]) as infer:
            return np.asarray(infer(first)[name], np.float32)

    how = site.damage(random, **({"held": held} if kind == "routing" else {}))
    editor.save(path)
    return f"{kind}: {site.place} {how}"


def in_budgets(format, path, spec, reference):
    """Whether the verdict is that it's the model, and the largest error."""
    try:
        verdict = verify_artifact(format, path, spec, reference, TOLERANCES["fp32"])
    except CommandError:
        return False, float("inf")
    errors = [each.max_abs_error / each.budget_abs_error for each in verdict.parity.outputs[0].per_input]
    return not verdict.failures, max(errors)


def in_a_child(function, *arguments):
    """What `function` returns, run in a process of its own: a damaged artifact may crash or block a runtime."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sender.send(function(*arguments)))
    child.start()
    sender.close()
    try:
        return receiver.recv() if receiver.poll(SECONDS) else (False, float("inf"))
    except EOFError:
        return False, float("inf")
    finally:
        child.kill()
        child.join()


@pytest.fixture(scope="module")
def prepared():
    return prepare(dmf.seed_weights(dmf.create_model("dmf_nano"), 0), Origin(seed=0))


@pytest.fixture(scope="module")
def further(prepared):
    """Logits of 24 pictures that nothing was searched on: random ones, and photographs turned and mirrored."""
    random = pictures(16, (64, 64), torch.Generator().manual_seed(2024)).numpy().transpose(0, 2, 3, 1)
    random = ((random * STD + MEAN) * 255).round().clip(0, 255).astype(np.uint8)
    turned = [np.rot90(photograph(name, 64, 64), k) for name in PHOTOGRAPHS for k in (1, 2, 3)]
    mirrored = [photograph(name, 64, 64)[:, ::-1] for name in PHOTOGRAPHS]
    images = np.concatenate([random, turned, mirrored])
    return compute_reference(prepared.model, Inputs(images, tuple(f"further {i}" for i in range(len(images)))))


@pytest.fixture(scope="module", params=list(EDITORS))
def fates(request, prepared, further, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    plan = make_plan(prepared.model, request.param, precision="fp32")
    package = write_package(plan, prepared, folder / "out", overwrite=False)
    format, spec, reference = request.param, package.manifest.inputs[0], prepared.reference
    first = to_input(reference.inputs.images[:1], spec)
    suffix, result = Path(package.manifest.artifact).suffix, []
    for kind, count in MUTANTS.items():
        for seed in range(count):
            path = folder / f"{kind}{seed}{suffix}"
            mutant = mutate(package, kind, seed, path, first)
            passed, error = in_a_child(in_budgets, format, path, spec, reference)
            beyond = in_a_child(in_budgets, format, path, spec, further)[1] if passed else error
            result.append(Fate(mutant, passed, error, beyond))
    intact = folder / f"intact{suffix}"
    EDITORS[format](package.artifact).save(intact)
    assert in_a_child(in_budgets, format, intact, spec, reference)[
        0
    ]  # it is the damage that is caught, not the editing
    assert in_a_child(in_budgets, format, intact, spec, further)[0]
    return format, result


def test_every_mutant_that_matters_is_caught(fates):
    format, mutants = fates
    matter = [each for each in mutants if each.matters]
    caught = [each for each in matter if not each.passed]
    broken = sum(each.error == float("inf") for each in caught)
    print(f"\n{format}: {len(caught)} of {len(matter)} that matter are caught ({broken} can't be run), harmless are:")
    for each in mutants:
        if not each.matters:
            print(f"    {each.mutant}: {each.beyond:.2g} of the budget")
    assert [each.mutant for each in matter if each.passed] == []
    assert len(matter) >= len(mutants) / 2 and broken < len(matter) / 2
    assert {each.mutant.partition(":")[0] for each in caught} == set(MUTANTS)
    assert any(1 < each.error < float("inf") for each in caught)  # by their numbers, not only by crashing


def test_a_weaker_gate_lets_some_through(fates):
    _, mutants = fates
    assert any(each.matters and each.error <= 1000 for each in mutants)


def test_a_child_that_dies_or_hangs_is_caught(monkeypatch):
    import os
    import time

    assert in_a_child(lambda: (True, 0.5)) == (True, 0.5)
    assert in_a_child(os.abort) == (False, float("inf"))
    monkeypatch.setitem(globals(), "SECONDS", 0.2)
    assert in_a_child(time.sleep, 5) == (False, float("inf"))
