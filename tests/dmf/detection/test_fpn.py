"""The pyramid against one written with slices and sums."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dmf.detection.fpn import FPN

WIDTHS, SIZES = (6, 10, 14), ((12, 20), (6, 10), (3, 5))
LARGEST_ERROR = 1e-12


def convolve(conv: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W), for any odd kernel with half of it as padding, as a sum over the kernel's taps."""
    assert isinstance(conv, nn.Conv2d) and conv.bias is not None
    side, (height, width) = conv.weight.shape[2], x.shape[2:]
    padded = F.pad(x, [side // 2] * 4)
    total = conv.bias[:, None, None].expand(x.shape[0], -1, height, width)
    for i in range(side):
        for j in range(side):
            window = padded[:, :, i : i + height, j : j + width]
            total = total + torch.einsum("oc,bchw->bohw", conv.weight[:, :, i, j], window)
    return total[:, :, :: conv.stride[0], :: conv.stride[1]]


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, c, *s, generator=generator).double() for c, s in zip(WIDTHS, SIZES, strict=True)]


def make(extra: str) -> FPN:
    torch.manual_seed(1)
    fpn = FPN(WIDTHS, 8, extra).double()
    for parameter in fpn.parameters():
        nn.init.normal_(parameter, std=0.2)
    return fpn


def expected(fpn: FPN, features, extra_from_output: bool = False, keeps_top_down: bool = True):
    merged = [convolve(conv, x) for conv, x in zip(fpn.laterals, features, strict=True)]
    for i in (1, 0):
        if keeps_top_down:
            merged[i] = merged[i] + merged[i + 1].repeat_interleave(2, 2).repeat_interleave(2, 3)
    levels = [convolve(conv, x) for conv, x in zip(fpn.outputs, merged, strict=True)]
    if not fpn.extra:
        return [*levels, levels[-1][:, :, ::2, ::2]]
    first = convolve(fpn.extra[0], features[-1])
    return [*levels, first, convolve(fpn.extra[1], first)]


@pytest.mark.parametrize("extra", ["input", "pool"])
def test_levels(features, extra):
    fpn = make(extra)
    found, wanted = fpn(features), expected(fpn, features)
    sizes = [*SIZES, (2, 3), (1, 2)] if extra == "input" else [*SIZES, (2, 3)]
    assert [tuple(x.shape) for x in found] == [(2, 8, *size) for size in sizes]
    for x, y in zip(found, wanted, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=LARGEST_ERROR)
        assert y.std() > 0.1
    apart = expected(fpn, features, keeps_top_down=False)
    assert (apart[0] - found[0]).abs().max() > 0.1 and (apart[2] - found[2]).abs().max() < LARGEST_ERROR


def test_extra_levels_come_from_the_input(features):
    """The outputs' convolutions have no part in them."""
    fpn = make("input")
    before = fpn(features)
    nn.init.zeros_(fpn.outputs[2].weight)
    after = fpn(features)
    assert torch.equal(before[3], after[3]) and torch.equal(before[4], after[4])
    assert not torch.equal(before[2], after[2])
    assert fpn.extra[0].weight.shape == (8, WIDTHS[-1], 3, 3)


def test_fresh_one_is_bounded(features):
    """Xavier's: activations keep their order of magnitude."""
    torch.manual_seed(0)
    assert all(0.1 < x.std() < 10 for x in FPN(WIDTHS, 256, "input").double()(features))
