"""What the documents say is so."""

import re
from pathlib import Path

import pytest

from benchmarks import readme
from dmf.training.cli import build_parser as train_parser
from export.cli import build_parser as export_parser
from export.verify.cli import build_parser as verify_parser
from runtime.cli import build_parser as bench_parser

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    *(ROOT / "README.md", ROOT / "CONTRIBUTING.md"),
    *(ROOT / "android_demo" / "README.md", ROOT / "ios_demo" / "README.md"),
    *sorted((ROOT / "docs").glob("*.md")),
]
PARSERS = {
    "dmf-export": export_parser,
    "dmf-verify": verify_parser,
    "dmf-bench": bench_parser,
    "dmf-train": train_parser,
}


@pytest.mark.parametrize("document", readme.TABLES)
def test_the_tables_are_those_of_the_results(document):
    text = (ROOT / document).read_text()
    assert readme.filled(document, text) == text, "run python -m benchmarks.readme"
    head, made_by, tables = text.partition("made by python -m benchmarks.readme")  # other tables may come first
    spoilt = head + made_by + tables.replace("| ---", "|  ---", 1)
    assert readme.filled(document, spoilt) == text
    assert spoilt != text


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_flags_in_commands_exist(document):
    for command, arguments in re.findall(
        r"(dmf-export|dmf-verify|dmf-bench|dmf-train)\b(?!`)([^\n`#]*)", document.read_text()
    ):
        known = PARSERS[command]()._option_string_actions
        for flag in re.findall(r"(?<!\S)--[a-z0-9-]+", arguments):
            assert flag in known, f"{document.name}: {command} {flag}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_paths_exist(document):
    text = document.read_text()
    for link in re.findall(r"\]\(([^)h][^)]*)\)", text):
        assert (document.parent / link).exists(), link
    for path in re.findall(r"`((?:dmf|export|runtime|android_demo|ios_demo|benchmarks|docs|tests)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("command", PARSERS)
def test_every_flag_says_what_it_does(command):
    parser = PARSERS[command]()
    assert all(action.help for action in parser._actions), command
    help_text = parser.format_help()
    for flag in parser._option_string_actions:
        assert flag in help_text
