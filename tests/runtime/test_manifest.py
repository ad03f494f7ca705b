"""A manifest survives the round trip, refuses violations by name, and guards its files."""

import copy
import dataclasses
import json
import math
from typing import get_args, get_origin, get_type_hints

import pytest

from runtime import documents
from runtime.errors import UsageError
from runtime.latency import Results
from runtime.manifest import (
    Checkpoint,
    Manifest,
    check_files,
    hash_files,
    open_package,
    read_manifest,
    write_manifest,
)

NEW_FIELD = object()


def test_round_trip(onnx_package, tflite_package):
    for package in (onnx_package, tflite_package):
        assert read_manifest(package.path) == package.manifest


def test_a_checkpoint_file_and_figures_that_mean_nothing(own_package):
    manifest = own_package.manifest
    (output,) = manifest.parity.outputs
    one_class = dataclasses.replace(output, top1_agreement=None, top1_min_margin=None)
    manifest = dataclasses.replace(
        manifest,
        checkpoint=Checkpoint("file", "weights.pt", None, "0" * 64, "1" * 64),
        parity=dataclasses.replace(manifest.parity, outputs=(one_class,)),
    )
    write_manifest(own_package.path, manifest)
    assert read_manifest(own_package.path) == manifest


def test_an_exact_output_is_stored_as_null(onnx_package):
    document = json.loads((onnx_package.path / "manifest.json").read_text())
    assert document["parity"]["outputs"][0]["psnr_db"] is None
    assert next(iter(document)) == "schema_version"


def mismatches(kind, schema, root, path="$"):
    """Where dataclass and schema differ, and where the schema is open or lacks a description."""
    if "description" not in schema and "$ref" not in schema:
        yield f"{path}: no description"
    while "$ref" in schema:
        schema = root["$defs"][schema["$ref"].split("/")[-1]]
    if get_origin(kind) is tuple and dataclasses.is_dataclass(get_args(kind)[0]):
        yield from mismatches(get_args(kind)[0], schema["items"], root, f"{path}[]")
    if not dataclasses.is_dataclass(kind):
        return
    hints = get_type_hints(kind)
    for what in ("properties", "required"):
        if set(schema[what]) != set(hints):
            yield f"{path}: {what} {set(schema[what]) ^ set(hints)}"
    if schema["additionalProperties"] is not False:
        yield f"{path}: open"
    for name, hint in hints.items():
        yield from mismatches(hint, schema["properties"][name], root, f"{path}.{name}")


@pytest.mark.parametrize(("kind", "name"), [(Manifest, "manifest-v3"), (Results, "latency-v3")])
def test_dataclass_and_schema_are_the_same(kind, name):
    import jsonschema

    schema = documents.load_schema(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert list(mismatches(kind, schema, schema)) == []


VIOLATIONS = [
    ("$.format", ["format"], "caffe"),
    ("$.precision", ["precision"], "w4"),
    ("$.quantization", ["quantization"], "w8"),
    ("$.name", ["name"], ""),
    ("$.artifact", ["artifact"], "../model.onnx"),
    ("$.artifact", ["artifact"], "/model.onnx"),
    ("$.labels", ["labels"], "a/../../labels.txt"),
    ("$.lowering.reason", ["lowering", "reason"], None),
    ("$.model.parameters", ["model", "parameters"], -1),
    ("$.model.parameters", ["model", "parameters"], 1.5),
    ("$.checkpoint.source", ["checkpoint", "source"], "url"),
    ("$.checkpoint.sha256", ["checkpoint", "sha256"], "ABC"),
    ("$.checkpoint.file_sha256", ["checkpoint", "file_sha256"], "ABC"),
    ("$.source.dirty", ["source", "dirty"], "no"),
    ("$.tools.onnx", ["tools", "onnx"], 1),
    ("$.inputs", ["inputs"], []),
    ("$.inputs[0].layout", ["inputs", 0, "layout"], "CHWN"),
    ("$.inputs[0].shape", ["inputs", 0, "shape"], [3, 8, 8]),
    ("$.inputs[0].shape[1]", ["inputs", 0, "shape", 1], 0),
    ("$.inputs[0].mean", ["inputs", 0, "mean"], [0.5]),
    ("$.inputs[0].std[2]", ["inputs", 0, "std", 2], 0),
    ("$.inputs[0].colour_order", ["inputs", 0, "colour_order"], "BGR"),
    ("$.inputs[0].crop", ["inputs", 0, "crop"], [8]),
    ("$.outputs[0].dtype", ["outputs", 0, "dtype"], ""),
    ("$.parity.passed", ["parity", "passed"], "yes"),
    ("$.parity.tolerance.relative", ["parity", "tolerance", "relative"], -1),
    ("$.parity.outputs[0].max_abs_error", ["parity", "outputs", 0, "max_abs_error"], None),
    ("$.parity.outputs[0].top1_agreement", ["parity", "outputs", 0, "top1_agreement"], 1.5),
    ("$.parity.outputs[0].per_input", ["parity", "outputs", 0, "per_input"], []),
    (
        "$.parity.outputs[0].per_input[1].budget_abs_error",
        ["parity", "outputs", 0, "per_input", 1, "budget_abs_error"],
        None,
    ),
    ("$.unchecked[0]", ["unchecked", 0], 3),
    ("$.files[0].role", ["files", 0, "role"], "log"),
    ("$.files[0].size_bytes", ["files", 0, "size_bytes"], "big"),
    ("$: Additional", ["extra"], NEW_FIELD),
    ("$.lowering: Additional", ["lowering", "extra"], NEW_FIELD),
    ("$.inputs[0]: Additional", ["inputs", 0, "extra"], NEW_FIELD),
    ("$.parity.outputs[0].per_input[0]: Additional", ["parity", "outputs", 0, "per_input", 0, "extra"], NEW_FIELD),
    ("$.files[0]: Additional", ["files", 0, "extra"], NEW_FIELD),
]


@pytest.mark.parametrize(("where", "keys", "value"), VIOLATIONS)
def test_a_violation_is_refused_by_its_path(onnx_package, tmp_path, where, keys, value):
    document = copy.deepcopy(onnx_package.manifest.to_json())
    node = document
    for key in keys[:-1]:
        node = node[key]
    node[keys[-1]] = 1 if value is NEW_FIELD else value
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(document))
    with pytest.raises(UsageError) as refused:
        read_manifest(tmp_path)
    assert str(path) in str(refused.value)
    assert where in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Manifest)])
def test_a_missing_field_is_refused_by_name(onnx_package, tmp_path, field):
    document = onnx_package.manifest.to_json()
    del document[field]
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(UsageError, match=f"'{field}' is a required property"):
        read_manifest(tmp_path)


def test_another_schema_version_is_refused(onnx_package, tmp_path):
    document = onnx_package.manifest.to_json() | {"schema_version": 1}
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(UsageError, match="schema_version: 1 is not 3"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("text", ["", "{", '{"a": NaN}', "\xff\xfe"])
def test_what_is_not_json_is_refused(tmp_path, text):
    (tmp_path / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match="not valid JSON"):
        read_manifest(tmp_path)


def test_missing_folder_and_missing_manifest_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no such folder"):
        read_manifest(tmp_path / "none")
    with pytest.raises(UsageError, match=r"no manifest\.json"):
        read_manifest(tmp_path)


def test_an_invalid_manifest_is_never_written(onnx_package, tmp_path):
    for wrong in (
        dataclasses.replace(onnx_package.manifest, format="caffe"),
        dataclasses.replace(
            onnx_package.manifest,
            model=dataclasses.replace(onnx_package.manifest.model, config={"x": math.inf}),
        ),
    ):
        with pytest.raises(UsageError):
            write_manifest(tmp_path, wrong)
        assert list(tmp_path.iterdir()) == []


def test_each_changed_file_is_named(own_package):
    folder = own_package.path
    check_files(folder, own_package.manifest)
    (folder / "labels.txt").write_text("A\nb\nc\nd\ne\n")
    (folder / "golden.safetensors").unlink()
    (folder / "notes").mkdir()
    (folder / "notes" / "new.txt").write_text("x")
    with pytest.raises(UsageError) as refused:
        open_package(folder)
    for change in (
        "golden.safetensors is missing",
        "notes/new.txt was added",
        "labels.txt was altered",
    ):
        assert change in str(refused.value)
    assert "model.onnx" not in str(refused.value)


def test_what_finder_leaves_is_no_change(own_package):
    folder = own_package.path
    (folder / "notes").mkdir()
    for ds_store in (folder / ".DS_Store", folder / "notes" / ".DS_Store"):
        ds_store.write_bytes(b"Bud1")
    assert open_package(folder) == own_package
    assert hash_files(folder, labels="labels.txt") == own_package.manifest.files


def test_a_folder_artifact_is_all_of_its_files(own_package, rehash):
    folder = own_package.path
    (folder / "model.mlpackage" / "Data").mkdir(parents=True)
    (folder / "model.onnx").unlink()
    (folder / "model.mlpackage" / "Manifest.json").write_text("{}")
    (folder / "model.mlpackage" / "Data" / "weight.bin").write_bytes(b"\0" * 10)
    roles = {file.path: (file.role, file.size_bytes) for file in hash_files(folder)}
    assert roles["model.mlpackage/Data/weight.bin"] == ("artifact", 10)
    assert roles["golden.safetensors"][0] == "golden"
    manifest = dataclasses.replace(own_package.manifest, format="coreml", artifact="model.mlpackage")
    package = rehash(folder, manifest)
    assert package.artifact.is_dir()
    before = package.artifact_sha256
    (folder / "model.mlpackage" / "Data" / "weight.bin").write_bytes(b"\1" * 10)
    with pytest.raises(UsageError, match=r"model\.mlpackage/Data/weight\.bin was altered"):
        open_package(folder)
    assert rehash(folder, manifest).artifact_sha256 != before


def test_artifact_sha256_of_one_file_is_that_files(onnx_package):
    import hashlib

    digest = hashlib.sha256(onnx_package.artifact.read_bytes()).hexdigest()
    assert onnx_package.artifact_sha256 == digest
