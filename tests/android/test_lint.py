"""All Kotlin has one style, and ktlint does complain."""

import pytest

from android_demo.host.lint import lint
from android_demo.host.process import ToolError
from android_demo.host.project import ROOT, kotlin_sources


def test_the_project_has_one_style(toolchain):
    scripts = ["build.gradle.kts", "settings.gradle.kts", "app/build.gradle.kts", "classifier/build.gradle.kts"]
    sources = [
        path for module in ("app", "classifier") for kind in ("main", "test") for path in kotlin_sources(module, kind)
    ]
    assert lint(toolchain) == len(scripts) + len(sources)


def test_a_bad_file_is_complained_of(toolchain, tmp_path):
    (tmp_path / ".editorconfig").write_text((ROOT / ".editorconfig").read_text())
    bad = tmp_path / "Bad.kt"
    bad.write_text("fun  two( )=2\n")
    with pytest.raises(ToolError, match=r"^ktlint complains: Bad\.kt:1:4: Single space expected after the fun keyword"):
        lint(toolchain, [bad], tmp_path)
    bad.write_text("fun two() = 2\n")
    assert lint(toolchain, [bad], tmp_path) == 1
