"""Where an artifact came from: the weights, the source tree, the tools."""

import hashlib
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from torch import nn

import dmf
from runtime.manifest import Checkpoint, Source

TOOLS = (
    "torch",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "coremltools",
    "litert-torch",
    "ai-edge-litert",
    "ai-edge-quantizer",
    "tensorflow",
    "onnx2tf",
)


@dataclass(frozen=True)
class Origin:
    """Where the weights of a model came from: a file, a seed, or (neither) whoever called `export`."""

    path: Path | None = None
    seed: int | None = None

    @property
    def source(self) -> Literal["file", "seeded", "memory"]:
        if self.path is not None:
            return "file"
        return "memory" if self.seed is None else "seeded"

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The classes' names, where the file has them."""
        return None if self.path is None else dmf.checkpoint_classes(self.path)


def checkpoint(model: nn.Module, origin: Origin) -> Checkpoint:
    """The manifest's record of the weights."""
    file_sha256 = None
    if origin.path is not None:
        with origin.path.open("rb") as file:
            file_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    name = None if origin.path is None else origin.path.name
    return Checkpoint(origin.source, name, origin.seed, weights_sha256(model), file_sha256)


def weights_sha256(model: nn.Module) -> str:
    """Of the names, types and bytes of all weights, whatever file held them."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def source() -> Source:
    """The commit of the tree this code runs from, and whether it was changed since; None outside a repository."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    commit = git("rev-parse", "HEAD")
    if commit is None or git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return Source(None, None)
    status = git("status", "--porcelain")
    return Source(commit, None if status is None else bool(status))


def tools() -> dict[str, str]:
    """Versions of Python and of whatever is installed of the packages that make or run artifacts."""
    versions = {"python": platform.python_version()}
    for name in TOOLS:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
