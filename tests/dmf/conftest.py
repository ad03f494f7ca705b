import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from torch import Tensor

import dmf

sys.path.append(str(Path(__file__).parent))  # for released_layout and released_forward, under --import-mode=importlib


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder that goes when the test ends (pytest would keep three runs' worth of checkpoints)."""
    with TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
def nano() -> Callable[..., dmf.DMF]:
    """Makes a small model whose every parameter, bank and statistic is random; keywords are config fields."""

    def make(seed: int = 0, **changes: object) -> dmf.DMF:
        return dmf.seed_weights(dmf.create_model("dmf_nano", **changes), seed)

    return make


@pytest.fixture
def images() -> Callable[..., Tensor]:
    """Makes float64 pictures, each unlike the others."""

    def make(count: int = 3, height: int = 64, width: int = 64, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        level = torch.linspace(-1, 1, count, dtype=torch.float64).view(-1, 1, 1, 1)
        contrast = torch.linspace(0.5, 1.5, count, dtype=torch.float64).view(-1, 1, 1, 1)
        noise = torch.randn(count, 3, height, width, generator=generator, dtype=torch.float64)
        return level + contrast * noise

    return make
