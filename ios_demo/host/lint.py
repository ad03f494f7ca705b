"""Swift's style, by SwiftLint and ``.swiftlint.yml``."""

import re
from pathlib import Path

from android_demo.host.process import ToolError
from ios_demo.host.project import ROOT
from ios_demo.host.root import INSIDE, inside, run_swift
from ios_demo.host.toolchain import Toolchain


def lint(toolchain: Toolchain, folder: Path = ROOT) -> int:
    """Check the Swift files in ``folder`` (the project, unless given) and return their number.

    ToolError: the first complaint.
    """
    command: list[str | Path] = ["/tmp/dmf/swiftlint", "lint", "--strict", "--no-cache", "."]
    command += ["--config", inside(ROOT / ".swiftlint.yml")]
    if folder == ROOT:
        output = run_swift(toolchain, command, "SwiftLint complains", inside(ROOT))
    else:
        output = run_swift(toolchain, command, "SwiftLint complains", INSIDE / "linted", {folder: "linted"})
    found = re.search(r"Found 0 violations, 0 serious in (\d+) files?", output)
    if found is None:
        raise ToolError("SwiftLint does not say that it found nothing", output)
    return int(found[1])
