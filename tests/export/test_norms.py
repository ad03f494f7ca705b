"""How exact a feature map's normalisation is in ONNX Runtime, by its own operator and by means."""

import numpy as np
import pytest
import torch
from torch import nn

from export.convert import CONVERTERS
from export.convert.options import Options
from export.layout import NCHW
from runtime.runners import open_runner

EPS = 1e-5


class Norm(nn.Module):
    def __init__(self, layout):
        super().__init__()
        self.layout = layout

    def forward(self, x):
        return self.layout.normalize(x, EPS)


@pytest.fixture(scope="module")
def x():
    """Of the size that the first blocks have at 640 x 640 px; its mean is not 0."""
    return 1 + torch.randn(1, 32, 160, 160, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def expected(x):
    exact = x.double().numpy()
    return (exact - exact.mean()) / np.sqrt(exact.var() + EPS)


def by_onnx_runtime(layout, x, tmp_path):
    path = tmp_path / "model.onnx"
    CONVERTERS["torch-onnx"].load()(Norm(layout).eval(), x, path, Options(tmp_path / "log", outputs=("y",)))
    return open_runner("onnx", path).run(x.numpy())[0]


def test_means_are_the_norm(x, expected):
    found = NCHW(largest_norm=0).normalize(x.double(), EPS).numpy()
    assert np.abs(found - expected).max() < 1e-12
    assert np.abs(NCHW(largest_norm=0).normalize(x.double(), 1e-2).numpy() - expected).max() > 1e-4
    both = torch.cat([x, 2 * x + 3]).double()  # a sample's own
    assert np.abs(NCHW(largest_norm=0).normalize(both, EPS)[:1].numpy() - expected).max() < 1e-12


def test_onnx_runtime_s_own_operator_is_inexact_for_large_maps_and_means_are_not(x, expected, tmp_path):
    """Should it be mended, `NCHW.largest_norm` has no use any more."""
    converted = CONVERTERS["torch-onnx"].layout
    own, means = (np.abs(by_onnx_runtime(each, x, tmp_path) - expected).max() for each in (NCHW(), converted))
    assert own > 1e-5 > 3 * means
    small = x[:, :, :28, :28]
    exact = (small.double() - small.double().mean()) / torch.sqrt(small.double().var(correction=0) + EPS)
    assert np.abs(by_onnx_runtime(converted, small, tmp_path) - exact.numpy()).max() < 3e-6
