"""Dynamic convolutions of four papers in networks of a user's own: rewritten, lowered and exported.

The layers are stored and computed as their well-known implementations do, the whole batch as groups of one convolution.
What they are compared with are the papers' equations, written out: sums per sample, term by term.
"""

import copy
import gc
import math
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import dmf
import export
from export import adapters
from export.layout import NCHW, NHWC
from export.lowering import DEPTHWISE, NAMES, POINTWISE, Lowering, lower
from export.static import Attention, DynamicConv, StaticDMF
from runtime.errors import ConverterError, ParityError, UsageError

TOKEN_DIM = 6


class Layer(nn.Module):
    """What the users' layers have in common."""

    def __init__(self, c_in, c_out, kernel_size, stride=1, padding=0, dilation=1, groups=1):
        super().__init__()
        self.c_in, self.c_out, self.kernel_size = c_in, c_out, kernel_size
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups

    def convolve(self, x, weight, bias=None):
        """(B, C, H, W), (B, C_out, C_in / g, k, k), (B, C_out): the samples as groups."""
        batch = len(x)
        y = F.conv2d(
            x.reshape(1, -1, *x.shape[2:]),
            weight.reshape(-1, *weight.shape[-3:]),
            None if bias is None else bias.reshape(-1),
            self.stride,
            self.padding,
            self.dilation,
            self.groups * batch,
        )
        return y.view(batch, -1, *y.shape[2:])


class SoftmaxAttention(nn.Module):
    def __init__(self, c_in, num_kernels):
        super().__init__()
        self.pool, self.temperature = nn.AdaptiveAvgPool2d(1), 3.0
        self.fc1, self.fc2 = nn.Conv2d(c_in, 5, 1), nn.Conv2d(5, num_kernels, 1)

    def forward(self, x):
        return F.softmax(self.fc2(F.relu(self.fc1(self.pool(x)))).flatten(1) / self.temperature, 1)


class DynamicConvolution(Layer):
    """Chen et al. 2020."""

    def __init__(self, c_in, c_out, kernel_size, **geometry):
        super().__init__(c_in, c_out, kernel_size, **geometry)
        self.weight = nn.Parameter(torch.randn(4, c_out, c_in // self.groups, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.randn(4, c_out)) if c_out % 3 else None
        self.attention = SoftmaxAttention(c_in, 4)

    def forward(self, x):
        pi = self.attention(x)
        weight = torch.einsum("bk,k...->b...", pi, self.weight)
        return self.convolve(x, weight, None if self.bias is None else pi @ self.bias)


def dynamic_convolution_by_hand(layer, x):
    """Chen et al. 2020, section 3 and 4: W = sum_k pi_k W_k, b = sum_k pi_k b_k, pi = softmax(logits / T)."""
    rows = []
    for sample in x:
        attention = layer.attention
        pooled = sample.sum((1, 2)) / (sample.shape[1] * sample.shape[2])
        hidden = (attention.fc1.weight.flatten(1) @ pooled + attention.fc1.bias).clamp(min=0)
        powers = ((attention.fc2.weight.flatten(1) @ hidden + attention.fc2.bias) / 3.0).exp()
        weight, bias = 0, 0
        for k in range(4):
            weight = weight + powers[k] / powers.sum() * layer.weight[k]
            bias = bias + powers[k] / powers.sum() * (0 if layer.bias is None else layer.bias[k])
        bias = None if layer.bias is None else bias
        rows.append(F.conv2d(sample[None], weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups))
    return torch.cat(rows)


class CondConv2d(Layer):
    """Yang et al. 2019, with the attributes of timm's `CondConv2d`."""

    def __init__(self, c_in, c_out, kernel_size, bias=True, **geometry):
        super().__init__(c_in, c_out, kernel_size, **geometry)
        self.in_channels, self.out_channels, self.kernel_size = c_in, c_out, (kernel_size, kernel_size)
        self.stride, self.padding = (self.stride, self.stride), (self.padding, self.padding)
        self.dilation, self.dynamic_padding = (self.dilation, self.dilation), False
        self.weight = nn.Parameter(torch.randn(3, c_out * c_in // self.groups * kernel_size**2))
        self.bias = nn.Parameter(torch.randn(3, c_out)) if bias else None

    def forward(self, x, routing_weights):
        weight = (routing_weights @ self.weight).view(len(x), self.out_channels, -1, *self.kernel_size)
        return self.convolve(x, weight, None if self.bias is None else routing_weights @ self.bias)


class CondConvBlock(nn.Module):
    """A CondConv and its routing, as in EfficientNet: r(x) = sigmoid(pooled x R), outside of the layer."""

    def __init__(self, c_in, *shape, **geometry):
        super().__init__()
        self.routing_fn, self.conv = nn.Linear(c_in, 3), CondConv2d(c_in, *shape, **geometry)

    def forward(self, x):
        return self.conv(x, torch.sigmoid(self.routing_fn(F.adaptive_avg_pool2d(x, 1).flatten(1))))


def condconv_by_hand(block, x):
    """Yang et al. 2019, section 3: (alpha_1 W_1 + ... + alpha_n W_n) * x, alpha = sigmoid(mean(x) R)."""
    rows, layer = [], block.conv
    shape = (layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size)
    for sample in x:
        alpha = 1 / (1 + (-(block.routing_fn.weight @ sample.mean((1, 2)) + block.routing_fn.bias)).exp())
        weight, bias = torch.zeros(shape).double(), torch.zeros(shape[0]).double()
        for k in range(3):
            weight += alpha[k] * layer.weight[k].reshape(shape)
            bias += 0 if layer.bias is None else alpha[k] * layer.bias[k]
        rows.append(F.conv2d(sample[None], weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups))
    return torch.cat(rows)


class OmniAttention(nn.Module):
    """The four attentions; those that the layer is too small for are 1.0."""

    def __init__(self, c_in, c_out, kernel_size, groups, num_kernels):
        super().__init__()
        self.pool, self.kernel_size, self.temperature = nn.AdaptiveAvgPool2d(1), kernel_size, 2.0
        self.fc, self.bn = nn.Conv2d(c_in, 7, 1, bias=False), nn.BatchNorm2d(7)
        self.channel_fc = nn.Conv2d(7, c_in, 1)
        self.filter_fc = None if c_in == groups == c_out else nn.Conv2d(7, c_out, 1)
        self.spatial_fc = None if kernel_size == 1 else nn.Conv2d(7, kernel_size**2, 1)
        self.kernel_fc = None if num_kernels == 1 else nn.Conv2d(7, num_kernels, 1)

    def forward(self, x):
        z = F.relu(self.bn(self.fc(self.pool(x))))
        shapes = {"channel": (-1, 1, 1), "filter": (-1, 1, 1), "spatial": (1, 1, 1, *2 * (self.kernel_size,))}
        factors = []
        for name in ("channel", "filter", "spatial"):
            fc = getattr(self, f"{name}_fc")
            factors.append(1.0 if fc is None else torch.sigmoid(fc(z) / self.temperature).view(len(x), *shapes[name]))
        kernels = 1.0
        if self.kernel_fc is not None:
            kernels = F.softmax(self.kernel_fc(z).view(len(x), -1, 1, 1, 1, 1) / self.temperature, 1)
        return *factors, kernels


class ODConv2d(Layer):
    """Li et al. 2022, with the attributes of the authors' `ODConv2d`."""

    def __init__(self, c_in, c_out, kernel_size, num_kernels=4, **geometry):
        super().__init__(c_in, c_out, kernel_size, **geometry)
        self.weight = nn.Parameter(torch.randn(num_kernels, c_out, c_in // self.groups, kernel_size, kernel_size))
        self.attention = OmniAttention(c_in, c_out, kernel_size, self.groups, num_kernels)

    def forward(self, x):
        channels, filters, taps, kernels = self.attention(x)
        return self.convolve(x * channels, (taps * kernels * self.weight[None]).sum(1)) * filters


def odconv_by_hand(layer, x):
    """Li et al. 2022, equation 2: (sum_i alpha_wi alpha_fi alpha_ci alpha_si W_i) * x, each along its dimension."""
    rows, a, k = [], layer.attention, layer.kernel_size
    num_kernels, c_out, size = layer.weight.shape[:3]

    def logits(fc, z):
        return (fc.weight.flatten(1) @ z + fc.bias) / 2.0

    for sample in x:
        z = a.bn((a.fc.weight.flatten(1) @ sample.mean((1, 2)))[None, :, None, None]).flatten().clamp(min=0)
        channel = 1 / (1 + (-logits(a.channel_fc, z)).exp())
        filters = torch.ones(c_out) if a.filter_fc is None else 1 / (1 + (-logits(a.filter_fc, z)).exp())
        spatial = torch.ones(k, k).double() if k == 1 else (1 / (1 + (-logits(a.spatial_fc, z)).exp())).reshape(k, k)
        kernel = (
            torch.ones(1) if num_kernels == 1 else logits(a.kernel_fc, z).exp() / logits(a.kernel_fc, z).exp().sum()
        )
        weight = torch.zeros(layer.weight.shape[1:]).double()
        for i in range(num_kernels):
            for o in range(c_out):
                group = o // (c_out // layer.groups)
                for c in range(size):
                    factor = kernel[i] * filters[o] * channel[group * size + c]
                    weight[o, c] += factor * spatial * layer.weight[i, o, c]
        rows.append(F.conv2d(sample[None], weight, None, layer.stride, layer.padding, layer.dilation, layer.groups))
    return torch.cat(rows)


class ResidualBlock(nn.Module):
    """This project's layer in someone else's network: z (B, D) comes from the user's own tokens."""

    def __init__(self, c_in, c_out, kernel_size, **geometry):
        super().__init__()
        self.token = nn.Linear(c_in, TOKEN_DIM)
        self.conv = dmf.DynamicConv2d(c_in, c_out, kernel_size, TOKEN_DIM, bank_init="random", **geometry)

    def forward(self, x):
        return self.conv(x, self.token(x.amax((2, 3))))


def residual_by_hand(block, x):
    """Yun and Ro 2023, equation 2: W_agnostic + 0.1 sum_k pi_k W_k, pi = sigmoid(net2(relu(bn(net1([z, mean x])))))."""
    rows, conv = [], block.conv
    for sample in x:
        attention = conv.kernel_attention
        z = block.token.weight @ sample.amax((1, 2)) + block.token.bias
        hidden = attention.bn((attention.net1.weight @ torch.cat([z, sample.mean((1, 2))]))[None])[0].clamp(min=0)
        pi = 1 / (1 + (-(attention.net2.weight @ hidden)).exp())
        weight = conv.agnostic_kernel
        for k in range(len(pi)):
            weight = weight + 0.1 * pi[k] * conv.kernel_bank[k]
        rows.append(F.conv2d(sample[None], weight, None, conv.stride, conv.padding, conv.dilation, conv.groups))
    return torch.cat(rows)


KINDS = {
    "residual": (ResidualBlock, residual_by_hand),
    "softmax": (DynamicConvolution, dynamic_convolution_by_hand),
    "CondConv": (CondConvBlock, condconv_by_hand),
    "ODConv": (ODConv2d, odconv_by_hand),
}
GEOMETRIES = {
    "pointwise": {"shape": (6, 10, 1)},
    "pointwise of groups": {"shape": (6, 9, 1), "groups": 3},
    "depthwise": {"shape": (6, 6, 3), "padding": 1, "groups": 6},
    "depthwise, stride": {"shape": (8, 8, 5), "stride": 2, "padding": 2, "groups": 8},
    "depthwise, dilated": {"shape": (8, 8, 3), "padding": 2, "dilation": 2, "groups": 8},
    "dense": {"shape": (6, 8, 3), "stride": 2, "padding": 1},
    "dense of groups": {"shape": (6, 8, 3), "groups": 2},
}


class Network(nn.Module):
    """Three dynamic convolutions, one grouped, one depthwise, one dense, in a network of common layers."""

    def __init__(self, block):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.GELU())
        self.pointwise, self.bn1 = block(8, 16, 1, groups=2), nn.BatchNorm2d(16)
        self.depthwise, self.bn2 = block(16, 16, 3, stride=2, padding=1, groups=16), nn.BatchNorm2d(16)
        self.dense = nn.Sequential(block(16, 12, 3, padding=1), nn.BatchNorm2d(12), nn.SiLU())
        self.head = nn.Linear(12, 5)

    def forward(self, images):
        x = F.gelu(self.bn1(self.pointwise(self.stem(images))))
        x = x[:, :, 1:, 1:] + F.hardswish(self.bn2(self.depthwise(x))).mean((2, 3), keepdim=True)
        return self.head(self.dense(x).mean((2, 3)))


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """As a user would, but forgotten after the test."""
    monkeypatch.setattr(adapters, "_ADAPTERS", dict(adapters._ADAPTERS))
    export.register(DynamicConvolution, adapters.dynamic_convolution)
    export.register(CondConv2d, adapters.condconv)
    export.register(ODConv2d, adapters.odconv)


@torch.no_grad()
def randomised(module, seed=0):
    torch.manual_seed(seed)
    for each in module.modules():
        if isinstance(each, nn.BatchNorm1d | nn.BatchNorm2d):
            each.weight.uniform_(0.5, 1.5), each.bias.normal_(), each.running_mean.normal_()
            each.running_var.uniform_(0.5, 2)
    return module.double().eval()


def relative(actual, expected):
    assert actual.shape == expected.shape
    return ((actual - expected).abs().max() / expected.abs().max()).item()


def forms():
    for kind in KINDS:
        for name, geometry in GEOMETRIES.items():
            table = DEPTHWISE if name.startswith("depthwise") else POINTWISE
            table = ["conv"] if name.startswith("dense") else [form for form in table if form != "twin"]
            for form in table:
                if (kind, form) != ("ODConv", "bank"):
                    yield pytest.param(kind, geometry, form, id=f"{kind}-{name}-{form}")


def layer_of(kind, geometry):
    torch.manual_seed(1)
    shape = geometry["shape"]
    return randomised(KINDS[kind][0](*shape, **{k: v for k, v in geometry.items() if k != "shape"}))


def form_of(name):
    return Lowering(*((name, "conv") if name in POINTWISE else ("conv", name)), "")


@pytest.mark.parametrize("layout", [NCHW(), NHWC()], ids=lambda layout: layout.name)
@pytest.mark.parametrize(("kind", "geometry", "form"), forms())
@torch.no_grad()
def test_a_form_is_the_papers_convolution(kind, geometry, form, layout):
    layer = layer_of(kind, geometry)
    x = torch.randn(3, geometry["shape"][0], 9, 8).double() * torch.tensor([0.5, 1, 3])[:, None, None, None]
    expected = KINDS[kind][1](layer, x)
    assert relative(layer(x), expected) < 1e-12
    graph = export.reparameterize(layer)
    assert relative(graph(x), expected) < 1e-12
    lowered = lower(graph, form_of(form), layout)
    assert not any(isinstance(module, DynamicConv) for module in lowered.modules())
    assert relative(lowered(x), expected) < 1e-12
    assert relative(lowered(x[:1]), expected[:1]) < 1e-12
    (adapted,) = (module for module in lowered.modules() if isinstance(module, adapters.Adapted))
    adapted.routing.register_forward_hook(lambda _module, _given, attention: rolled(attention))
    assert relative(lowered(x), expected) > 1e-3  # samples that swap their attentions must differ


def rolled(attention):
    attention = Attention.of(attention)
    return Attention(*(None if factor is None else factor.roll(1, 0) for factor in attention))


@pytest.mark.parametrize("factor", Attention._fields)
@torch.no_grad()
def test_each_of_four_attentions_counts(factor):
    layer = layer_of("ODConv", GEOMETRIES["dense"])
    x = torch.randn(2, 6, 9, 8).double()
    graph = export.reparameterize(layer)
    assert all(part is not None for part in graph.routing(x))
    ignored = {"kernels": torch.full((2, 4), 0.25).double()}.get(factor)
    graph.routing.register_forward_hook(lambda _module, _given, attention: attention._replace(**{factor: ignored}))
    assert relative(graph(x), odconv_by_hand(layer, x)) > 1e-2


@torch.no_grad()
def test_an_odconv_of_one_kernel_has_no_weights_of_kernels():
    layer = randomised(ODConv2d(6, 8, 3, num_kernels=1))
    x = torch.randn(2, 6, 9, 8).double()
    graph = export.reparameterize(layer)
    assert relative(graph(x), odconv_by_hand(layer, x)) < 1e-12
    assert graph.routing(x).kernels.tolist() == [[1], [1]]


def network(kind, seed=0):
    torch.manual_seed(seed)
    return randomised(Network(KINDS[kind][0]), seed)


def images(count):
    size = (count, 3, 24, 24)
    contrast = torch.linspace(0.3, 3, count)[:, None, None, None]
    return torch.randn(size, generator=torch.Generator().manual_seed(5)) * contrast


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_every_lowering_of_a_network_is_the_network(kind, name):
    model, x = network(kind), images(3).double()
    before = copy.deepcopy(model.state_dict())
    graph = export.reparameterize(model)
    assert relative(graph(x), model(x)) < 1e-12
    lowered = lower(graph, Lowering.parse(name))
    if (kind, name.split("/")[1]) == ("ODConv", "bank"):
        with pytest.raises(ValueError, match=r"the form bank can't weigh taps.*use taps or conv"):
            lowered(x)
    elif name == "twin/twin":
        twin = copy.deepcopy(model)
        for conv in (module for module in twin.modules() if hasattr(module, "kernel_bank")):
            conv.kernel_bank.zero_()
        for conv in (module for module in twin.modules() if isinstance(module, Layer)):
            conv.weight.zero_()
            if getattr(conv, "bias", None) is not None:
                conv.bias.zero_()
        assert relative(lowered(x), twin(x)) < 1e-12
        assert relative(lowered(x), model(x)) > 1e-3
    else:
        assert relative(lowered(x), model(x)) < 1e-12
        assert relative(lowered(x), model(x.roll(1, 0))) > 1e-3
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert sum(isinstance(module, DynamicConv) for module in graph.modules()) == 3


@pytest.fixture(autouse=True, scope="module")
def _cheap_collections():
    """Converters collect garbage: let them not walk all of torch."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


SUFFIXES = {"onnx": "onnx", "tflite": "tflite", "coreml": "mlpackage"}


@pytest.mark.parametrize("format", SUFFIXES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_network_in_every_format(kind, format, tmp_path):
    path = tmp_path / f"net.{SUFFIXES[format]}"
    parity = export.convert_module(network(kind).float(), images(3), format, path)
    (figures,) = parity.outputs
    print(f"{kind} {format}: {figures.max_abs_error:.2g} of {figures.reference_max_abs:.3g}; {parity.checked_by}")
    assert parity.routing_not_frozen
    assert parity.passed
    assert figures.max_rel_error < 1e-5
    assert list(tmp_path.iterdir()) == [path]


def frozen(graph, x):
    """Every routing held at what it gives for x."""
    held = {}

    def hold(routing, given, pi):
        return held.setdefault(routing, pi).to(pi.dtype).expand(len(given[0]), -1)

    for module in graph.modules():
        if isinstance(module, adapters.Adapted):
            module.routing.register_forward_hook(hold)
    graph(x)
    return graph


class Scale(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


SPOILT = {
    "routing frozen": lambda graph: frozen(graph, images(1)[..., :6, :6].double()),
    "output scaled": lambda graph: nn.Sequential(graph, Scale(1.001)).eval(),
    "output zeroed": lambda graph: nn.Sequential(graph, Scale(0)).eval(),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_spoilt_artifact_is_rejected(spoil, tmp_path, monkeypatch):
    model, examples = randomised(CondConvBlock(3, 4, 3)), images(3)[..., :6, :6]
    monkeypatch.setattr("export.module.lower", lambda graph, form: spoil(lower(graph, form)))
    with pytest.raises(ParityError, match=r"the rewritten model is .* from the model; at most 1e-10"):
        export.convert_module(model, examples, "onnx", tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr("export.module._check_exact", lambda *_: None)  # as a converter would spoil it
    with pytest.raises(ParityError, match=r"net.onnx is not the model: .* exceeds the budget") as caught:
        export.convert_module(model, examples, "onnx", tmp_path / "net.onnx")
    assert ("routing seems frozen" in str(caught.value)) == (spoil is SPOILT["routing frozen"])
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.onnx")] == [
        "rejected/net.onnx",
        "rejected/net.onnx/model.onnx",
    ]


def test_a_wrong_adapter_is_noticed(tmp_path):
    def without_scale(layer):
        return adapters.Description(layer.kernel_bank, layer.kernel_attention, layer.agnostic_kernel, groups=2)

    export.register(dmf.DynamicConv2d, without_scale)
    with pytest.raises(ParityError, match="see that each adapter describes what its layer computes"):
        export.convert_module(ResidualBlock(8, 16, 1, groups=2), torch.randn(2, 8, 9, 9), "onnx", tmp_path / "x.onnx")


class Branching(nn.Module):
    """What no converter can trace."""

    def __init__(self):
        super().__init__()
        self.conv = ODConv2d(3, 4, 1)

    def forward(self, x):
        return self.conv(x if x.abs().mean() > 0 else -x)


def test_a_failed_conversion_keeps_its_log(tmp_path):
    with pytest.raises(ConverterError, match=r"torch-onnx failed: .*; its log is .*rejected/x.onnx/converter.log"):
        export.convert_module(Branching(), torch.randn(2, 3, 8, 8), "onnx", tmp_path / "x.onnx")
    assert "Traceback" in (tmp_path / "rejected/x.onnx/converter.log").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["rejected"]


class Twice(nn.Module):
    def forward(self, x):
        return x, x


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "onix"}, "unknown format 'onix'; choose from onnx, coreml, tflite; did you mean 'onnx'?"),
        ({"format": "tflite"}, "net.onnx is no name for tflite; it must end in .tflite"),
        ({"lowering": "matmul"}, "unknown lowering 'matmul'; choose from conv/conv,"),
        ({"lowering": "twin/twin"}, "twin/twin is not the model"),
        ({"lowering": "matmul/bank"}, "the form bank can't weigh taps"),
        (
            {"examples": torch.ones(3, 3, 24, 24)},
            "examples of shape (3, 3, 24, 24); give (N, C, H, W) with at least two",
        ),
        ({"examples": torch.randn(3, 24, 24)}, "examples of shape (3, 24, 24); give (N, C, H, W) with at least two"),
        ({"model": nn.Sequential(ODConv2d(3, 4, 1), Twice())}, "the model gives a tuple; it must give one tensor"),
        ({"model": nn.Conv2d(3, 4, 1)}, "Conv2d has no dynamic convolution that is registered; registered are dmf."),
    ],
)
def test_what_can_not_be_done_is_refused_before_any_work(changes, message, tmp_path):
    given = {"model": network("ODConv"), "examples": images(2), "format": "onnx"} | changes
    with pytest.raises(UsageError, match=re.escape(message)):
        export.convert_module(path=tmp_path / "net.onnx", **given)
    assert not list(tmp_path.iterdir())


def test_a_file_is_replaced_only_if_asked_for(tmp_path):
    (path := tmp_path / "net.onnx").write_text("precious")
    block = randomised(CondConvBlock(4, 4, 1)).float()
    with pytest.raises(UsageError, match=r"exists already; give overwrite=True"):
        export.convert_module(block, torch.randn(2, 4, 5, 5), "onnx", path)
    assert path.read_text() == "precious"
    export.convert_module(block, torch.randn(2, 4, 5, 5), "onnx", path, overwrite=True)
    assert path.stat().st_size > 1000


def test_our_own_model_is_still_a_static_graph():
    assert isinstance(export.reparameterize(dmf.create_model("dmf_nano")), StaticDMF)


def test_timms_class_is_known_by_its_name(monkeypatch):
    class Timms(CondConv2d):
        __module__, __qualname__ = "timm.layers.cond_conv2d", "CondConv2d"

    layer = randomised(Timms(6, 9, 3, groups=3))
    x, pi = torch.randn(2, 6, 7, 7).double(), torch.rand(2, 3).double()
    graph = export.reparameterize(layer)
    assert isinstance(graph.conv, DynamicConv)
    with torch.no_grad():
        assert relative(graph(x, pi), layer(x, pi)) < 1e-12
        assert relative(graph(x, pi.flip(1)), layer(x, pi)) > 1e-3
    layer.dynamic_padding = True
    with pytest.raises(ValueError, match=r'the model \(Timms\) has padding "same", .* it must be a number'):
        export.reparameterize(layer)


def test_a_subclass_is_registered_by_itself():
    class Reversed(ODConv2d):
        def forward(self, x):
            return super().forward(x).flip(1)

    model = nn.Sequential(ODConv2d(3, 4, 1), nn.Sequential(Reversed(4, 4, 1)))
    with pytest.raises(
        ValueError, match=r"1.0 is a Reversed, of which only the base ODConv2d is registered; export.reg"
    ):
        export.reparameterize(model)


@torch.no_grad()
def test_a_layer_that_is_used_twice_is_rewritten_once():
    layer = ODConv2d(4, 4, 3, padding=1)
    model = randomised(nn.Sequential(layer, nn.GELU(), layer, nn.ModuleDict({"a": layer})["a"]))
    lowered = lower(export.reparameterize(model), Lowering.parse("matmul/conv"))
    assert lowered[0] is lowered[2] is lowered[3]
    x = torch.randn(2, 4, 7, 7).double()
    assert relative(lowered(x), model(x)) < 1e-12


BANK = torch.zeros(3, 4, 2, 3, 3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bank": BANK[0]}, "a bank of shape (4, 2, 3, 3) in 1 groups; it must be (K, C_out, C_in / groups, k, k)"),
        ({"bank": BANK[..., :1]}, "a bank of shape (3, 4, 2, 3, 1) in 1 groups"),
        ({"groups": 3}, "a bank of shape (3, 4, 2, 3, 3) in 3 groups"),
        ({"agnostic": BANK}, "an agnostic kernel of shape (3, 4, 2, 3, 3); it must be (4, 2, 3, 3)"),
        ({"bias": torch.zeros(3)}, "a bias of shape (3,); it must be (4,) or (3, 4)"),
        ({"routing": lambda x: x}, "a routing of type function; it must be a torch.nn.Module"),
        ({"stride": (1, 2)}, "stride (1, 2); it must be a number, or two equal ones"),
        ({"padding": "same"}, "padding 'same'; it must be a number, or two equal ones"),
    ],
)
def test_a_layer_that_can_not_be_read_is_named(fields, message):
    export.register(ODConv2d, lambda _: adapters.Description(**{"bank": BANK, "routing": nn.Identity()} | fields))
    model = nn.ModuleDict({"stage": nn.Sequential(nn.ReLU(), ODConv2d(2, 4, 3))})
    with pytest.raises(ValueError, match=re.escape(f"stage.1 (ODConv2d) has {message}")):
        export.reparameterize(model)


def test_the_example_of_the_document(tmp_path, monkeypatch):
    document = Path(__file__).parents[2] / "docs" / "your-own-layer.md"
    layer, adapter, use = re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL)
    assert len([line for line in adapter.splitlines() if line.strip()]) == 10
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "document"}
    torch.manual_seed(0)
    for block in (layer, adapter, use):
        exec(block, names)
    assert names["parity"].passed
    assert names["parity"].routing_not_frozen
    assert (tmp_path / "network.onnx").exists()
    graph, x = export.reparameterize(names["network"].double()), names["examples"].double()
    with torch.no_grad():
        conv = names["network"][2]
        for sample in names["network"][:2](x).split(1):
            kernel = conv.base.clone()
            for k in range(4):
                kernel += math.tanh(conv.router(sample.mean((2, 3)))[0, k]) * conv.experts[k]
            assert relative(graph[2](sample), F.conv2d(sample, kernel, padding=1, groups=8)) < 1e-12
