"""What the tests share."""

import os

import pytest
import torch

from runtime.arm64.setup import Harness, prepare
from runtime.errors import RunnerError


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Two test processes on two cores: more threads would only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def arm64() -> Harness:
    """The emulation of ARM64, filled on first use (about a minute); CI can't do without it."""
    try:
        return prepare()
    except RunnerError as error:
        if os.environ.get("CI") or os.environ.get("DMF_REQUIRE_ARM64"):
            pytest.fail(f"required here: {error}")
        pytest.skip(f"{error}; DMF_REQUIRE_ARM64=1 makes this a failure")
