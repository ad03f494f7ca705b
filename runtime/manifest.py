"""A package and its manifest.

What the artifact is, where it came from, how it was proven, and the hash of each file.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from runtime import documents
from runtime.errors import UsageError

SCHEMA = "manifest-v3"
MANIFEST_NAME = "manifest.json"
GOLDEN_NAME = "golden.safetensors"
IGNORED_NAMES = (".DS_Store",)  # Finder leaves it in every folder it shows

Format = Literal["onnx", "coreml", "tflite"]
Precision = Literal["fp32", "fp16", "w8", "w8a8"]
Layout = Literal["NCHW", "NHWC"]
Role = Literal["artifact", "golden", "labels"]


@dataclass(frozen=True)
class Choice:
    """A lowering that was chosen for some modules, and the figure of each that could have been."""

    modules: tuple[str, ...]
    lowering: str
    figures: dict[str, float]


@dataclass(frozen=True)
class Measured:
    """The device that lowerings were compared on, and what each part of the network got.

    ``unit`` is ms, or instructions where the device is emulated.
    """

    device: str
    threads: int
    unit: Literal["ms", "instructions"]
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class Lowering:
    """The form each kind of dynamic convolution was lowered to, and why.

    ``measured`` is None unless lowerings were compared for this export; the two forms are then those of most modules.
    """

    pointwise: str
    depthwise: str
    reason: str
    measured: Measured | None


@dataclass(frozen=True)
class Stored:
    """Modules that are stored or computed in another precision than the artifact's, and why."""

    precision: Precision
    reason: str
    modules: tuple[str, ...]


@dataclass(frozen=True)
class Calibration:
    """The pictures that the ranges of activations are from; the hash is of their pixels."""

    source: str
    images: int
    sha256: str


@dataclass(frozen=True)
class Quantization:
    """How weights became smaller.

    ``budget`` is what bits were chosen for, as in 12mb or 40db, and ``calibration`` of int8 activations; both are None
    where there is none.
    """

    budget: str | None
    calibration: Calibration | None
    stored: tuple[Stored, ...]


@dataclass(frozen=True)
class Model:
    """The network: its variant, its number of parameters and every field of its configuration."""

    variant: str
    parameters: int
    config: dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """Where the weights came from.

    ``sha256`` is of the weights, whatever file held them, ``file_sha256`` of that file (None unless
    ``source`` is file).
    """

    source: Literal["file", "seeded", "memory"]
    path_name: str | None
    seed: int | None
    sha256: str
    file_sha256: str | None


@dataclass(frozen=True)
class Source:
    """The toolkit's git commit and whether its working tree was dirty.

    None where there was no repository.
    """

    commit: str | None
    dirty: bool | None


@dataclass(frozen=True)
class InputSpec:
    """How an image becomes the model's input.

    ``shape`` has -1 for a dynamic batch, and ``batches`` its only sizes, where they are limited; ``mean`` and ``std``
    are of 0..1. ``function`` is the artifact's that takes the input, None where it has but one. ``fit`` is how a
    picture gets the size ``crop`` (height, width); ``resize`` is None where the whole of it is padded.
    """

    name: str
    function: str | None
    shape: tuple[int, ...]
    batches: tuple[int, ...] | None
    layout: Layout
    dtype: Literal["float32", "image"]
    colour_order: Literal["RGB"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    normalisation_in_graph: bool
    fit: Literal["crop", "pad"]
    resize: int | None
    crop: tuple[int, int]
    interpolation: Literal["bicubic", "bilinear"]


@dataclass(frozen=True)
class OutputSpec:
    """One output of the model; ``shape`` has -1 for a dynamic batch."""

    name: str
    shape: tuple[int, ...]
    dtype: str


Form = Literal["dense", "onnx_nms", "tflite_detection_postprocess", "coreml_nms"]


@dataclass(frozen=True)
class Detection:
    """How a detector's outputs become the objects in a picture (``runtime/detections.py``).

    Scores are above ``score_threshold``; of two boxes of one class that overlap more than ``nms_iou``, the surer one
    stays; at most ``max_detections``. ``candidates`` bounds what is suppressed, and is None where the graph does it.
    """

    form: Form
    score_threshold: float
    nms_iou: float
    max_detections: int
    candidates: int | None


@dataclass(frozen=True)
class Tolerance:
    """Largest error allowed.

    ``yardstick_factor`` times the yardstick's error or ``relative`` times the largest reference
    value, whichever is larger.
    """

    yardstick_factor: float
    relative: float


@dataclass(frozen=True)
class InputParity:
    """How near one output is to the oracle on one input, which is judged by its own budget."""

    name: str
    max_abs_error: float
    yardstick_abs_error: float
    budget_abs_error: float


@dataclass(frozen=True)
class OutputParity:
    """How near one output is to the oracle.

    Error, yardstick and budget are the largest of ``per_input``. ``psnr_db`` is None where it is
    exactly equal. ``top1_agreement`` is the share with the same class of the inputs whose margin
    exceeds the error, None if there are none; ``top1_min_margin`` is None for one class; both are
    None off logits.
    """

    name: str
    max_abs_error: float
    max_rel_error: float
    psnr_db: float | None
    top1_agreement: float | None
    top1_min_margin: float | None
    yardstick_max_abs_error: float
    budget_max_abs_error: float
    reference_max_abs: float
    per_input: tuple[InputParity, ...]


@dataclass(frozen=True)
class DetectionParity:
    """How the objects that a detector's artifact finds match the oracle's, over all inputs.

    ``decided`` ones it must find, ``undecided`` ones it may; ``matched`` of those it ``found`` are one or the other.
    Boxes of one class match from ``iou`` on. The last three are None if there are none to compare.
    """

    decided: int
    undecided: int
    found: int
    matched: int
    iou: float
    min_iou: float | None
    max_score_error: float | None
    min_mask_iou: float | None


@dataclass(frozen=True)
class Parity:
    """The proof; ``detections``, ``routing_not_frozen``, ``batch_consistent`` are None where they mean nothing."""

    oracle: str
    passed: bool
    tolerance: Tolerance
    outputs: tuple[OutputParity, ...]
    detections: DetectionParity | None
    routing_not_frozen: bool | None
    batch_consistent: bool | None
    inputs: tuple[str, ...]
    checked_by: str


@dataclass(frozen=True)
class Function:
    """One function of an artifact that has several, which share their weights: the same network at another size.

    ``golden`` is the file of its golden vectors.
    """

    input: InputSpec
    parity: Parity
    golden: str


@dataclass(frozen=True)
class File:
    """One file of the package; ``path`` is relative to the package, with forward slashes."""

    path: str
    role: Role
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Manifest:
    """``manifest.json``, field for field; the schema describes each."""

    schema_version: int = field(default=3, kw_only=True)
    name: str
    format: Format
    artifact: str
    converter: str
    target: str
    lowering: Lowering
    precision: Precision
    keep_fp32: tuple[str, ...]
    quantization: Quantization | None
    model: Model
    checkpoint: Checkpoint
    source: Source
    tools: dict[str, str]
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    detection: Detection | None
    labels: str | None
    parity: Parity
    functions: tuple[Function, ...]
    unchecked: tuple[str, ...]
    files: tuple[File, ...]

    def to_json(self) -> dict[str, Any]:
        """The manifest as plain JSON."""
        return documents.to_json(self)


@dataclass(frozen=True)
class Package:
    """A package folder and what its manifest says.

    ``golden_name`` is the file of the golden vectors, should it have any.
    """

    path: Path
    manifest: Manifest
    golden_name: str = GOLDEN_NAME

    @property
    def artifact(self) -> Path:
        """The file or, for Core ML, the folder that a runtime opens."""
        return self.path / self.manifest.artifact

    @property
    def golden(self) -> Path | None:
        """The golden vectors, where the package has them."""
        held = any(file.path == self.golden_name for file in self.manifest.files)
        return self.path / self.golden_name if held else None

    @property
    def suffix(self) -> str:
        """What is behind the package's own name: a colon and the function, if this is one of several."""
        function = self.manifest.inputs[0].function
        return "" if function is None or self.manifest.functions else f":{function}"

    @property
    def functions(self) -> "tuple[Package, ...]":
        """Of an artifact of several functions, each as if it were the only one, its name behind the package's: ``a:b``.

        Else the package itself.
        """
        first, others = self.manifest, self.manifest.functions
        if not others:
            return (self,)
        alone = [(first.inputs[0], first.parity, self.golden_name)]
        alone += [(each.input, each.parity, each.golden) for each in others]
        return tuple(
            Package(
                self.path,
                replace(first, name=f"{first.name}:{spec.function}", inputs=(spec,), parity=parity, functions=()),
                golden,
            )
            for spec, parity, golden in alone
        )

    @property
    def artifact_sha256(self) -> str:
        """The artifact's hash.

        Of an artifact of several files, the hash of their ``sha256sum`` listing.
        """
        members = [file for file in self.manifest.files if file.role == "artifact"]
        if len(members) == 1:
            return members[0].sha256
        listing = "".join(f"{file.sha256}  {file.path}\n" for file in members)
        return hashlib.sha256(listing.encode()).hexdigest()


def write_manifest(folder: Path | str, manifest: Manifest) -> None:
    """Write ``manifest.json`` whole or not at all. UsageError: it violates the schema."""
    documents.write_json(Path(folder) / MANIFEST_NAME, manifest.to_json(), SCHEMA)


def read_manifest(folder: Path | str) -> Manifest:
    """The manifest of the package in ``folder``.

    UsageError: no such folder, no manifest in it, not JSON, another schema version, or a violation
    of the schema, with the file and the JSON path of the first one.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; give a package that dmf-export wrote")
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise UsageError(f"{folder}: no {MANIFEST_NAME} in it; give a package that dmf-export wrote")
    return documents.from_json(Manifest, documents.read_json(path, SCHEMA))


def open_package(folder: Path | str) -> Package:
    """Read the package in ``folder`` and check each of its files. Raises what the two raise."""
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    return Package(Path(folder), manifest)


def hash_files(
    folder: Path | str, *, labels: str | None = None, golden: Sequence[str] = (GOLDEN_NAME,)
) -> tuple[File, ...]:
    """Every file in ``folder`` but the manifest, sorted by path.

    Those named in ``golden`` have the role golden, ``labels`` the role labels, all else belongs to the
    artifact (a Core ML package and ONNX external data are several files).
    """
    folder = Path(folder)
    roles: dict[str | None, Role] = {**dict.fromkeys(golden, "golden"), labels: "labels"}
    return tuple(
        File(
            name,
            roles.get(name, "artifact"),
            _sha256(folder / name),
            (folder / name).stat().st_size,
        )
        for name in _file_names(folder)
    )


def check_files(folder: Path | str, manifest: Manifest) -> None:
    """UsageError that names each file altered, missing or added since ``manifest`` was written."""
    folder = Path(folder)
    listed = {file.path: file for file in manifest.files}
    present = _file_names(folder)
    changes = [f"{name} is missing" for name in listed if name not in present]
    changes += [f"{name} was added" for name in present if name not in listed]
    changes += [
        f"{name} was altered"
        for name, file in listed.items()
        if name in present and _sha256(folder / name) != file.sha256
    ]
    if changes:
        raise UsageError(f"{folder}: not as its manifest lists it: {'; '.join(changes)}; export it again")


def _file_names(folder: Path) -> Sequence[str]:
    paths = (path for path in folder.rglob("*") if path.name not in IGNORED_NAMES and not path.is_dir())
    names = sorted(path.relative_to(folder).as_posix() for path in paths)
    return [name for name in names if name != MANIFEST_NAME]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
