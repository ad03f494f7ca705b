"""All Swift has one style, and SwiftLint does complain."""

import pytest

from android_demo.host.process import ToolError
from ios_demo.host.lint import lint
from ios_demo.host.project import DEMO_MODULE, ROOT, swift_sources


def test_the_project_has_one_style(toolchain):
    folders = [ROOT / name for name in ("Sources", "Tests", DEMO_MODULE, f"{DEMO_MODULE}Tests")]
    package = 1
    assert lint(toolchain) == package + sum(len(swift_sources(folder)) for folder in folders)


def test_a_bad_file_is_complained_of(toolchain, tmp_path):
    bad = tmp_path / "Bad.swift"
    bad.write_text('let x = Int("1")!\n')
    with pytest.raises(ToolError, match=r"^SwiftLint complains: \S+/Bad\.swift:1:\d+: error: \w+"):
        lint(toolchain, tmp_path)
    bad.write_text('let one = Int("1")\n')
    assert lint(toolchain, tmp_path) == 1
