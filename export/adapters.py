"""Any dynamic convolution, not only ours: a registry of layer classes, each with an adapter that reads such a layer.

An adapter turns one layer into a `Description`: its kernels, and the module that weighs them. A rewritten network has
an `Adapted` in the layer's place: called as the layer was, and `export.lowering.lower` can put it into any form. What
surrounds the layers stays as it is, batch norm too: which convolution one follows is known only where `forward` is, as
for the Dynamic Mobile-Former. docs/your-own-layer.md shows how to add a layer.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dmf.dynamic_conv import BANK_SCALE, DynamicConv2d
from export.lowering.twin import Twin
from export.static import Attention, DynamicConv, Geometry, LaidOut, linear

Pair = int | tuple[int, int]


@dataclass(frozen=True, eq=False)
class Description:
    """A dynamic convolution: y = (agnostic + sum_k pi_k bank_k) conv x + bias, per sample.

    `bank` is (K, C_out, C_in / groups, k, k), `agnostic` the same without the K, or None for zeros. `routing` is called
    with whatever the layer is called with, x (B, C_in, H, W) first, and gives pi (B, K), or an `Attention` if there are
    other factors. `bias` is (C_out), or (K, C_out) if it is mixed as the kernels are. Raises `ValueError`.
    """

    bank: Tensor
    routing: nn.Module
    agnostic: Tensor | None = None
    bias: Tensor | None = None
    stride: Pair = 1
    padding: Pair = 0
    dilation: Pair = 1
    groups: int = 1

    def __post_init__(self) -> None:
        shape = tuple(self.bank.shape)
        if len(shape) != 5 or shape[3] != shape[4] or shape[1] % self.groups:
            raise ValueError(
                f"a bank of shape {shape} in {self.groups} groups; it must be (K, C_out, C_in / groups, k, k), "
                "with square kernels and C_out a multiple of groups"
            )
        if self.agnostic is not None and tuple(self.agnostic.shape) != shape[1:]:
            raise ValueError(f"an agnostic kernel of shape {tuple(self.agnostic.shape)}; it must be {shape[1:]}")
        if self.bias is not None and tuple(self.bias.shape) not in (shape[1:2], shape[:2]):
            raise ValueError(f"a bias of shape {tuple(self.bias.shape)}; it must be {shape[1:2]} or {shape[:2]}")
        if not isinstance(self.routing, nn.Module):
            raise ValueError(f"a routing of type {type(self.routing).__name__}; it must be a torch.nn.Module")

    @property
    def geometry(self) -> Geometry:
        return Geometry(
            _both("stride", self.stride), _both("padding", self.padding), _both("dilation", self.dilation), self.groups
        )


def _both(name: str, value: Pair) -> int:
    """What is the same in height and width. Raises `ValueError`."""
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or pair[0] != pair[1] or not isinstance(pair[0], int):
        raise ValueError(f"{name} {value!r}; it must be a number, or two equal ones")
    return pair[0]


Adapter = Callable[[Any], Description]


class Given(nn.Module):
    """The routing of a convolution whose attention is computed where it is called."""

    def forward(self, attention: Attention, _: list[Tensor]) -> Attention:
        return attention


class Adapted(LaidOut):
    """A dynamic convolution in a user's network: called as the layer that it replaces."""

    conv: nn.Module  # a `DynamicConv`, until it is lowered

    def __init__(self, layer: Description) -> None:
        super().__init__()
        self.routing = layer.routing
        agnostic = torch.zeros_like(layer.bank[0]) if layer.agnostic is None else layer.agnostic
        mixed = layer.bias is not None and layer.bias.dim() == 2
        bias = agnostic.new_zeros(len(agnostic)) if layer.bias is None or mixed else layer.bias
        self.conv = DynamicConv(Given(), layer.bank, agnostic, bias, layer.geometry)
        self.mixed_bias = linear(layer.bias.T) if mixed and layer.bias is not None else None

    def forward(self, x: Tensor, *given: Any) -> Tensor:
        """(B, C_in, H, W), and what else the layer takes -> (B, C_out, H', W')"""
        if isinstance(self.conv, Twin):  # of constants: nothing is weighed
            return self.convolve(x, None)
        attention = Attention.of(self.routing(x, *given))
        if attention.inputs is not None:
            x = x * attention.inputs[:, :, None, None]
        y = self.convolve(x, attention)
        if self.mixed_bias is not None:
            y = y + self.mixed_bias(attention.kernels)[:, :, None, None]
        return y if attention.outputs is None else y * attention.outputs[:, :, None, None]

    def convolve(self, x: Tensor, attention: Attention | None) -> Tensor:
        y = self.conv([self.layout.permute_from_nchw(x)], attention)
        return self.layout.permute_to_nchw(self.layout.join(y))


_ADAPTERS: dict[str, Adapter] = {}


def register(layer: type[nn.Module] | str, adapter: Adapter) -> None:
    """From now on layers of this class are read by `adapter`. A class that can't be imported is given by its full name.

    Only the class itself: a subclass may compute something else, and is registered by itself.
    """
    _ADAPTERS[layer if isinstance(layer, str) else _full_name(layer)] = adapter


def _full_name(layer: type) -> str:
    return f"{layer.__module__}.{layer.__qualname__}"


def adapt(model: nn.Module) -> nn.Module:
    """A copy of `model`, in eval mode, whose registered dynamic convolutions are `Adapted`; exact up to rounding.

    Raises `ValueError` if it has none, or one that its adapter can't read.
    """
    replaced: dict[nn.Module, Adapted] = {}
    adapted = _replace(copy.deepcopy(model).eval(), "", replaced)
    if not replaced:
        raise ValueError(
            f"{type(model).__name__} has no dynamic convolution that is registered; registered are "
            f"{', '.join(_ADAPTERS)}; add yours with export.register(its class, an adapter)"
        )
    return adapted


def _replace(module: nn.Module, name: str, replaced: dict[nn.Module, Adapted]) -> nn.Module:
    """`module` itself, with what is below it replaced, or what replaces it; the same each time, if it is shared."""
    if module in replaced:
        return replaced[module]
    layer = type(module)
    if adapter := _ADAPTERS.get(_full_name(layer)):
        try:
            replaced[module] = Adapted(adapter(module)).eval()
        except ValueError as error:
            raise ValueError(f"{name or 'the model'} ({layer.__name__}) has {error}") from error
        return replaced[module]
    if bases := [base.__name__ for base in layer.__mro__ if _full_name(base) in _ADAPTERS]:
        raise ValueError(
            f"{name or 'the model'} is a {layer.__name__}, of which only the base {bases[0]} is registered; "
            f"export.register({layer.__name__}, an adapter), the same one if that holds"
        )
    for child, below in list(module._modules.items()):  # named_children leaves out what it has seen
        if below is not None:
            setattr(module, child, _replace(below, f"{name}.{child}".lstrip("."), replaced))
    return module


class SecondArgument(nn.Module):
    """Routing weights (B, K) that the layer is given: f(x, pi) = pi."""

    def forward(self, _: Tensor, pi: Tensor) -> Tensor:
        return pi


class FourAttentions(nn.Module):
    """ODConv's attention, by its own layers; it gives rank 6, which Core ML can't have."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), attention.fc, attention.bn, nn.ReLU())
        self.kernels, self.taps, self.inputs, self.outputs = (
            getattr(attention, f"{name}_fc", None) for name in ("kernel", "spatial", "channel", "filter")
        )
        self.temperature = attention.temperature

    def forward(self, x: Tensor) -> Attention:
        """(B, C_in, H, W) -> kernels (B, K), taps (B, k * k), inputs (B, C_in), outputs (B, C_out)"""
        z = self.squeeze(x)
        taps, inputs, outputs = (
            None if layer is None else (layer(z).flatten(1) / self.temperature).sigmoid()
            for layer in (self.taps, self.inputs, self.outputs)
        )
        if self.kernels is None:
            return Attention(x.new_ones(x.shape[0], 1), taps, inputs, outputs)
        return Attention((self.kernels(z).flatten(1) / self.temperature).softmax(1), taps, inputs, outputs)


def dynamic_residual_convolution(layer: DynamicConv2d) -> Description:
    """Ours (Yun and Ro 2023, equation 2), in a network of the user's; called with x and first tokens (B, D)."""
    return Description(
        bank=layer.kernel_bank * (1 if layer.agnostic_kernel is None else BANK_SCALE),
        agnostic=layer.agnostic_kernel,
        routing=layer.kernel_attention,
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        groups=layer.groups,
    )


def dynamic_convolution(layer: Any) -> Description:
    """Chen et al. 2020, "Dynamic Convolution: Attention over Convolution Kernels", equation 2.

    `layer.weight` is (K, C_out, C_in / groups, k, k), `layer.bias` (K, C_out) or None; `layer.attention` maps x to pi,
    temperature and softmax (or another function) included.
    """
    return Description(
        bank=layer.weight,
        bias=layer.bias,
        routing=layer.attention,
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        groups=layer.groups,
    )


def condconv(layer: Any) -> Description:
    """Yang et al. 2019, "CondConv", section 3, as timm's `CondConv2d` stores it; called with x and pi (B, K).

    `layer.weight` is (K, C_out * C_in / groups * k * k), `layer.bias` (K, C_out) or None. `ValueError` for
    TensorFlow's padding, which depends on the size of x.
    """
    if getattr(layer, "dynamic_padding", False):
        raise ValueError('padding "same", which depends on the size of x; it must be a number')
    return Description(
        bank=layer.weight.unflatten(1, (layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size)),
        bias=layer.bias,
        routing=SecondArgument(),
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        groups=layer.groups,
    )


def odconv(layer: Any) -> Description:
    """Li et al. 2022, "Omni-Dimensional Dynamic Convolution", equation 2, as the authors' `ODConv2d` stores it.

    `layer.weight` is (K, C_out, C_in / groups, k, k). `layer.attention` has the layers `fc` and `bn`; `channel_fc`,
    `filter_fc`, `spatial_fc` and `kernel_fc`, of which it may leave out what the layer is too small for; and
    `temperature`. As there, all kernels share the first three attentions.
    """
    return Description(
        bank=layer.weight,
        routing=FourAttentions(layer.attention),
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        groups=layer.groups,
    )


register(DynamicConv2d, dynamic_residual_convolution)
register("timm.layers.cond_conv2d.CondConv2d", condconv)
register("timm.models.layers.cond_conv2d.CondConv2d", condconv)  # before timm 0.8
