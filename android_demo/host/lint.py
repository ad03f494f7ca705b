"""Kotlin's style, by ktlint and ``.editorconfig``."""

from collections.abc import Sequence
from pathlib import Path

from android_demo.host.process import java
from android_demo.host.project import ROOT
from android_demo.host.toolchain import Toolchain


def lint(toolchain: Toolchain, files: Sequence[Path] | None = None, folder: Path = ROOT) -> int:
    """Check ``files`` (the project's, unless given) and return their number. ToolError: the first complaint."""
    if files is None:
        files = [path for kind in ("*.kt", "*.kts") for path in folder.rglob(kind) if "build" not in path.parts]
    arguments: list[str | Path] = ["--relative", *sorted(files)]
    java([toolchain.ktlint], "com.pinterest.ktlint.Main", arguments, "ktlint complains", folder=folder)
    return len(files)
