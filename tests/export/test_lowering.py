"""One dynamic convolution of any geometry, lowered, against explicit sums per sample."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dmf import DynamicConv2d
from export.layout import NCHW, NHWC
from export.lowering import DEPTHWISE, NAMES, POINTWISE, Lowering, lower
from export.reparameterize import fold_dynamic
from export.static import StaticDMF

TOKEN_DIM = 16
GEOMETRIES = {  # in, out, kernel, stride, padding, dilation, groups
    "pointwise": (12, 20, 1, 1, 0, 1, 1),
    "pointwise of groups": (12, 18, 1, 1, 0, 1, 3),
    "depthwise": (10, 10, 3, 1, 1, 1, 10),
    "depthwise, wide": (10, 10, 5, 1, 2, 1, 10),
    "depthwise, stride": (10, 10, 3, 2, 1, 1, 10),
    "depthwise, dilated": (10, 10, 3, 1, 2, 2, 10),
    "depthwise, unpadded": (10, 10, 3, 1, 0, 1, 10),
    "dense": (6, 8, 3, 2, 1, 1, 1),
    "dense of groups": (6, 8, 3, 1, 1, 2, 2),
    "pointwise, stride": (6, 8, 1, 2, 0, 1, 1),
}


class Net(nn.Module):
    """The least that `lower` can be applied to."""

    def __init__(self, conv):
        super().__init__()
        self.conv = conv


def make(geometry):
    c_in, c_out, kernel, stride, padding, dilation, groups = geometry
    torch.manual_seed(0)
    conv = DynamicConv2d(c_in, c_out, kernel, TOKEN_DIM, stride, padding, dilation, groups, bank_init="random").double()
    bn = nn.BatchNorm2d(c_out).double()
    for norm in (bn, conv.kernel_attention.bn):
        for tensor in (norm.weight.data, norm.bias.data, norm.running_mean):
            tensor.normal_()
        norm.running_var.uniform_(0.5, 2)
    return conv.eval(), bn.eval()


def by_hand(conv, bn, x, z):
    """Per sample: pi, the kernel summed term by term, one convolution, BN."""
    rows = []
    for sample, token in zip(x, z, strict=True):
        attention = conv.kernel_attention
        hidden = attention.net1(torch.cat([token, sample.mean((1, 2))])[None])
        pi = torch.sigmoid(attention.net2(F.relu(attention.bn(hidden))))[0]
        kernel = conv.agnostic_kernel.clone()
        for k in range(len(pi)):
            kernel = kernel + 0.1 * pi[k] * conv.kernel_bank[k]
        y = F.conv2d(sample[None], kernel, None, conv.stride, conv.padding, conv.dilation, conv.groups)
        rows.append(bn(y))
    return torch.cat(rows)


def forms():
    for name, geometry in GEOMETRIES.items():
        table = DEPTHWISE if name.startswith("depthwise") else POINTWISE
        if name.startswith("dense") or name == "pointwise, stride":
            table = {"conv": None}
        for form in table:
            if form != "twin":
                yield pytest.param(name, geometry, form, id=f"{name}-{form}")


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("layout", [NCHW(), NHWC()], ids=lambda layout: layout.name)
@pytest.mark.parametrize(("name", "geometry", "form"), forms())
@torch.no_grad()
def test_a_form_is_the_convolution(name, geometry, form, layout, batch):
    conv, bn = make(geometry)
    x, z = torch.randn(batch, geometry[0], 9, 8).double(), torch.randn(batch, TOKEN_DIM).double()
    pointwise, depthwise = (form, "conv") if form in POINTWISE else ("conv", form)
    net = lower(Net(fold_dynamic(conv, bn)), Lowering(pointwise, depthwise, ""), layout, layout)
    y = layout.permute_to_nchw(layout.join(net.conv([layout.permute_from_nchw(x)], z)))
    expected = by_hand(conv, bn, x, z)
    assert y.shape == expected.shape
    assert (y - expected).abs().max() < 1e-12 * expected.abs().max()
    if batch > 1:  # samples that swap their tokens must differ, or the routing is frozen
        swapped = layout.permute_to_nchw(layout.join(net.conv([layout.permute_from_nchw(x)], z.roll(1, 0))))
        assert (swapped - expected).abs().max() > 1e-3 * expected.abs().max()


def test_names_are_every_pair_but_half_twins():
    assert NAMES == [
        "conv/conv",
        "conv/taps",
        "conv/bank",
        "matmul/conv",
        "matmul/taps",
        "matmul/bank",
        "twin/twin",
    ]
    for name in NAMES:
        assert str(Lowering.parse(name)) == name


@pytest.mark.parametrize("name", ["", "conv", "twin/conv", "matmul/matmul", "matmul/taps/"])
def test_other_names_are_refused_with_the_choices(name):
    with pytest.raises(ValueError, match=r"choose from conv/conv, .*twin/twin"):
        Lowering.parse(name)


def test_any_batch():
    assert [name for name in NAMES if Lowering.parse(name).any_batch] == ["matmul/taps", "matmul/bank", "twin/twin"]


def test_lowering_leaves_its_input_alone():
    conv, bn = make(GEOMETRIES["depthwise"])
    net = Net(fold_dynamic(conv, bn))
    before = type(net.conv), {k: v.clone() for k, v in net.state_dict().items()}
    lower(net, Lowering("matmul", "taps", ""), NHWC(), NHWC())
    assert type(net.conv) is before[0]
    assert net.conv.layout.name == "NCHW"
    assert all(torch.equal(v, before[1][k]) for k, v in net.state_dict().items())
    assert not isinstance(net, StaticDMF)
