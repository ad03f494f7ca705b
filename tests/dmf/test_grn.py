"""Global response normalisation against its closed form."""

import numpy as np
import pytest
import torch

from dmf.model import GRN


def numpy_grn(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, over: str) -> np.ndarray:
    found = np.empty_like(x)
    for b in range(x.shape[0]):
        norms = [np.sqrt((x[b, c] ** 2).sum()) for c in range(x.shape[1])]
        for c, norm in enumerate(norms):
            mean = np.mean(norms) if over == "channel" else norm
            found[b, c] = gamma[c] * x[b, c] * norm / (mean + 1e-6) + beta[c] + x[b, c]
    return found


@pytest.mark.parametrize("scale", [1.0, 1e-6], ids=["ordinary", "as small as the epsilon"])
@pytest.mark.parametrize(("over", "other"), [("channel", "spatial"), ("spatial", "channel")])
def test_closed_form(over, other, scale):
    generator = np.random.default_rng(0)
    x = scale * generator.normal(size=(3, 5, 4, 6)) * np.arange(1, 6).reshape(1, 5, 1, 1)
    gamma, beta = generator.normal(size=(2, 5))
    grn = GRN(5, over).double()
    grn.gamma.data.copy_(torch.from_numpy(gamma).view(1, 5, 1, 1))
    grn.beta.data.copy_(torch.from_numpy(beta).view(1, 5, 1, 1))
    with torch.no_grad():
        found = grn(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, numpy_grn(x, gamma, beta, over), rtol=0, atol=1e-12 * scale)
    assert np.abs(found - numpy_grn(x, gamma, beta, other)).max() > 0.01 * scale


def test_a_fresh_one_changes_nothing():
    x = torch.randn(2, 5, 3, 3)
    assert torch.equal(GRN(5, "channel")(x), x)


def test_zero_input_stays_finite():
    for over in ("channel", "spatial"):
        assert GRN(5, over)(torch.zeros(1, 5, 2, 2)).isfinite().all()
