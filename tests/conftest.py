"""What the tests share."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Two test processes on two cores: more threads would only wait for each other."""
    torch.set_num_threads(1)
