"""``dmf`` stands alone: it imports nothing of ``export``, and without its training nothing of ``runtime``."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "absent"), [("dmf", {"export", "runtime"}), ("dmf.training.run", {"export", "tensorflow"})]
)
def test_what_is_not_imported(module, absent):
    code = f"import {module}, sys; print(sorted({{name.split('.')[0] for name in sys.modules}} & {absent!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
