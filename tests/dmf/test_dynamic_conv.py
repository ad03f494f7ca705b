"""`DynamicConv2d` against a loop over samples whose kernels are summed one by one, in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import dmf

TOKEN_DIM = 24
LARGEST_ERROR = 1e-12

# in, out, kernel, stride, padding, dilation, groups
GEOMETRIES = [
    (8, 12, 1, 1, 0, 1, 1),
    (8, 12, 1, 2, 0, 1, 2),
    (8, 12, 1, 1, 1, 1, 4),
    (8, 4, 3, 1, 1, 1, 1),
    (8, 4, 3, 2, 1, 1, 2),
    (8, 8, 3, 1, 1, 1, 8),
    (8, 8, 3, 2, 0, 1, 8),
    (8, 16, 3, 1, 2, 2, 8),
    (6, 9, 3, 3, 2, 3, 3),
    (8, 12, 5, 1, 2, 1, 1),
    (8, 8, 5, 2, 2, 1, 8),
    (8, 4, 5, 1, 4, 2, 4),
]
ABLATIONS = {
    "paper": {},
    "softmax": {"routing": "softmax"},
    "vanilla": {"residual_kernel": False, "bank_init": "random", "routing": "softmax", "num_kernels": 4},
    "vanilla, sigmoid": {"residual_kernel": False, "bank_init": "random"},
    "pooled input only": {"token_input": False},
    "one kernel": {"num_kernels": 1},
}


def randomised(inputs: int, outputs: int, kernel: int, *, seed: int = 0, **keywords: object) -> dmf.DynamicConv2d:
    """In float64 and eval mode, nothing left at its initial value."""
    conv = dmf.DynamicConv2d(inputs, outputs, kernel, TOKEN_DIM, **keywords).double().eval()
    generator = torch.Generator().manual_seed(seed)
    for tensor in [*conv.parameters(), conv.kernel_attention.bn.running_mean]:
        tensor.data.copy_(torch.randn(tensor.shape, generator=generator))
    conv.kernel_attention.bn.running_var.copy_(
        0.5 + torch.rand(conv.kernel_attention.bn.running_var.shape, generator=generator)
    )
    conv.kernel_attention.net2.weight.data.mul_(0.3)
    return conv.requires_grad_(False)


def inputs(channels: int, count: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, channels, 11, 14, generator=generator, dtype=torch.float64)
    level = torch.arange(count, dtype=torch.float64).view(-1, 1, 1, 1)
    return x + level, torch.randn(count, TOKEN_DIM, generator=generator, dtype=torch.float64)


def routing(conv: dmf.DynamicConv2d, x: Tensor, z: Tensor, token_input: bool, softmax: bool) -> Tensor:
    """Of one sample, (C, H, W) and (D,) -> (K,), written out."""
    p = {key: value.double() for key, value in conv.kernel_attention.state_dict().items()}
    pooled = torch.stack([channel.sum() / channel.numel() for channel in x])
    hidden = p["net1.weight"] @ (torch.cat([z, pooled]) if token_input else pooled)
    hidden = (hidden - p["bn.running_mean"]) / (p["bn.running_var"] + 1e-5).sqrt()
    hidden = (hidden * p["bn.weight"] + p["bn.bias"]).clamp(min=0)
    logits = (p["net2.weight"] @ hidden) / p["temperature"]
    return logits.exp() / logits.exp().sum() if softmax else 1 / (1 + (-logits).exp())


def by_loop(
    conv: dmf.DynamicConv2d,
    x: Tensor,
    z: Tensor,
    geometry: tuple[int, int, int, int],
    *,
    token_input: bool = True,
    softmax: bool = False,
    residual: bool = True,
    frozen: bool = False,
) -> Tensor:
    """What `conv` should give; with `frozen`, what it gives where the first sample's routing serves all."""
    outputs = []
    for i in range(len(x)):
        of = 0 if frozen else i
        pi = routing(conv, x[of], z[of], token_input, softmax)
        kernel = torch.zeros_like(conv.kernel_bank[0])
        for k in range(len(pi)):
            kernel = kernel + pi[k] * conv.kernel_bank[k]
        if residual:
            kernel = conv.agnostic_kernel + kernel / 10
        outputs.append(F.conv2d(x[i : i + 1], kernel, None, *geometry))
    return torch.cat(outputs)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_geometry(geometry, count):
    channels, outputs, kernel, stride, padding, dilation, groups = geometry
    conv = randomised(
        channels, outputs, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups, num_kernels=5
    )
    x, z = inputs(channels, count)
    found = conv(x, z)
    expected = by_loop(conv, x, z, geometry[3:])
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=LARGEST_ERROR)
    assert (found * 1.001 - expected).abs().max() > 1e6 * LARGEST_ERROR
    if count > 1:
        frozen = by_loop(conv, x, z, geometry[3:], frozen=True)
        assert torch.equal(frozen[0], expected[0])
        assert all((found[i] - frozen[i]).abs().max() > 1e-3 for i in range(1, count))
        assert (found.flip(0) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_ablation(ablation):
    changes = ABLATIONS[ablation]
    choices = {
        "token_input": changes.get("token_input", True),
        "softmax": changes.get("routing") == "softmax",
        "residual": changes.get("residual_kernel", True),
    }
    geometry = (1, 1, 1, 2)
    conv = randomised(32, 8, 3, padding=1, groups=2, **changes)
    x, z = inputs(32, 3)
    found = conv(x, z)
    torch.testing.assert_close(found, by_loop(conv, x, z, geometry, **choices), rtol=0, atol=LARGEST_ERROR)
    other = by_loop(conv, x, z, geometry, **{**choices, "softmax": not choices["softmax"]})
    assert (found - other).abs().max() > 1e-3


def test_without_the_residual_kernel_nothing_is_scaled():
    conv = randomised(8, 8, 1, residual_kernel=False, bank_init="random")
    assert conv.agnostic_kernel is None
    x, z = inputs(8, 2)
    pi = conv.kernel_attention(x, z)
    torch.testing.assert_close(conv.kernel(pi)[1], sum(p * w for p, w in zip(pi[1], conv.kernel_bank, strict=True)))
    assert conv.kernel(pi).abs().max() > 5 * (0.1 * conv.kernel(pi)).abs().max()


@pytest.mark.parametrize(("channels", "hidden"), [(8, 1), (16, 1), (32, 2), (100, 6)])
def test_without_the_token_the_input_is_squeezed_by_16(channels, hidden):
    conv = randomised(channels, 8, 1, token_input=False)
    attention = conv.kernel_attention
    assert attention.net1.weight.shape == (hidden, channels)
    assert attention.net2.weight.shape == (8, hidden)
    attention.net1.weight.abs_()
    attention.bn.bias.fill_(3)  # so that one hidden unit is enough to route by
    x, z = inputs(channels, 3)
    assert torch.equal(conv(x, z), conv(x, z + 1))
    assert not torch.allclose(attention(x, z), attention(x + 1, z))


def test_with_the_token_both_inputs_route():
    attention = randomised(8, 8, 1).kernel_attention
    assert attention.net1.weight.shape == (TOKEN_DIM, TOKEN_DIM + 8)
    x, z = inputs(8, 3)
    assert (attention(x, z) - attention(x, z + 1)).abs().max() > 0.01
    assert (attention(x, z) - attention(x + 1, z)).abs().max() > 0.01


def test_softmax_routing_sums_to_one():
    x, z = inputs(8, 3)
    softmax = randomised(8, 8, 1, routing="softmax").kernel_attention(x, z)
    torch.testing.assert_close(softmax.sum(1), torch.ones(3, dtype=torch.float64))
    sigmoid = randomised(8, 8, 1).kernel_attention(x, z)
    assert ((sigmoid.sum(1) - 1).abs() > 0.1).all()
    assert ((sigmoid > 0) & (sigmoid < 1)).all()


@pytest.mark.parametrize("bank_init", ["zero", "random"])
def test_a_fresh_zero_bank_makes_routing_irrelevant(bank_init):
    torch.manual_seed(0)
    conv = dmf.DynamicConv2d(8, 12, 3, TOKEN_DIM, padding=1, groups=4, bank_init=bank_init).double().eval()
    assert bool(conv.kernel_bank.any()) == (bank_init == "random")
    x, z = inputs(8, 3)
    static = F.conv2d(x, conv.agnostic_kernel, None, 1, 1, 1, 4)
    error = (conv(x, z) - static).abs().max()
    change = (conv(x, z) - conv(x, 9 * z)).abs().max()
    if bank_init == "zero":
        assert error < LARGEST_ERROR
        assert change == 0
    else:
        assert error > 1e-3
        assert change > 1e-6


def test_a_zero_bank_can_be_learnt():
    torch.manual_seed(0)
    conv = dmf.DynamicConv2d(8, 8, 1, TOKEN_DIM).double().eval()
    x, z = inputs(8, 3)
    conv(x, z).square().sum().backward()
    assert conv.kernel_bank.grad.abs().sum((1, 2, 3, 4)).min() > 0


@pytest.mark.parametrize(("channels", "outputs", "groups"), [(8, 9, 2), (9, 8, 2)])
def test_channels_that_groups_do_not_divide(channels, outputs, groups):
    with pytest.raises(ValueError, match=f"{channels} and {outputs} channels can't be split into {groups} groups"):
        dmf.DynamicConv2d(channels, outputs, 1, TOKEN_DIM, groups=groups)
