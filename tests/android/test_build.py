"""The command: what a step says, and how it ends when one fails."""

import pytest

from android_demo.host import build
from android_demo.host.process import ToolError, run
from android_demo.host.toolchain import Toolchain


@pytest.fixture(autouse=True)
def no_tools(monkeypatch, tmp_path):
    """None of what is tested here needs them."""
    monkeypatch.setattr(build, "prepare", lambda say: Toolchain(tmp_path, None))


def test_a_step_says_what_came_of_it(monkeypatch, capsys):
    monkeypatch.setattr(build, "lint", lambda toolchain: 7)
    assert build.main(["lint"]) == 0
    assert capsys.readouterr() == ("7 files are as they should be\n", "")


def test_a_step_that_fails_shows_all_that_its_tool_said_and_one_line_more(monkeypatch, capsys):
    def fail(toolchain):
        raise ToolError("ktlint complains: A.kt:1:2: first (and 1 more)", "first\nsecond\n")

    monkeypatch.setattr(build, "lint", fail)
    assert build.main(["lint"]) == 5
    told = "first\nsecond\n\nandroid_demo.host.build: error: ktlint complains: A.kt:1:2: first (and 1 more)\n"
    assert capsys.readouterr() == ("", told)


def test_wrong_arguments_are_told_before_any_work(package, capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    assert build.main(["apk", str(tmp_path / "app.apk"), "--package", str(tmp_path / "empty")]) == 2
    assert "no manifest.json in it" in capsys.readouterr().err
    assert build.main(["apk", str(tmp_path / "nowhere" / "app.apk")]) == 2
    assert "nowhere; make it, or name another" in capsys.readouterr().err


def test_a_missing_tool_is_an_error_of_one_line():
    with pytest.raises(ToolError, match=r"^it can't be done: this machine has no no-such-tool$"):
        run(["no-such-tool"], "it can't be done")
