"""Losses against their closed forms."""

from math import exp, log

import pytest
import torch
import torch.nn.functional as F

from dmf.detection.losses import sigmoid_focal, smooth_l1


@pytest.mark.parametrize("target", [0.0, 1.0])
def test_focal_by_hand(target):
    for logit in (-8.0, -1.5, 0.0, 0.7, 9.0):
        p = 1 / (1 + exp(-logit))
        p_t, alpha = (p, 0.25) if target else (1 - p, 0.75)
        expected = -alpha * (1 - p_t) ** 2 * log(p_t)
        found = sigmoid_focal(*torch.tensor([[logit], [target]], dtype=torch.float64))
        assert float(found) == pytest.approx(expected, rel=1e-9)


def test_focal_without_focus_is_half_the_cross_entropy():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(100, generator=generator, dtype=torch.float64)
    targets = torch.randint(2, (100,), generator=generator).double()
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    torch.testing.assert_close(sigmoid_focal(logits, targets, alpha=0.5, gamma=0), entropy / 2)
    assert not torch.allclose(sigmoid_focal(logits, targets, alpha=0.5), entropy / 2)


def test_focal_of_extreme_logits():
    logits = torch.tensor([200.0, -200.0, 200.0, -200.0], requires_grad=True)
    loss = sigmoid_focal(logits, torch.tensor([1.0, 0.0, 0.0, 1.0]))
    assert loss.tolist() == pytest.approx([0, 0, 150, 50])
    loss.sum().backward()
    assert logits.grad is not None and logits.grad.tolist() == pytest.approx([0, 0, 0.75, -0.25])


def test_focal_gradient():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(10, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(2, (10,), generator=generator).double()
    assert torch.autograd.gradcheck(lambda x: sigmoid_focal(x, targets), logits)


def test_focal_is_torchvisions():
    ops = pytest.importorskip("torchvision.ops")
    logits = torch.linspace(-5, 5, 11)
    for target in (torch.zeros(11), torch.ones(11)):
        torch.testing.assert_close(sigmoid_focal(logits, target), ops.sigmoid_focal_loss(logits, target))


def test_smooth_l1():
    x, zero = torch.linspace(-2, 2, 41, dtype=torch.float64), torch.zeros(41, dtype=torch.float64)
    torch.testing.assert_close(smooth_l1(x, zero), x.abs())
    for beta in (1 / 9, 1.0):
        torch.testing.assert_close(smooth_l1(x, zero, beta), F.smooth_l1_loss(x, zero, reduction="none", beta=beta))
    assert not torch.allclose(smooth_l1(x, zero, 1.0), x.abs())
