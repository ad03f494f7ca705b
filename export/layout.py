"""How a feature map lies in memory: the static graph is written once, against this interface.

A converter names the layout that is natural to its runtime, so that no transposes are needed around convolutions,
attention and norms. Small tensors are the same in both: pooled (B, C), tokens (B * M, D), routing weights (B, K).
Kernels are always given as (C_out, C_in / groups, k, k).
"""

import math
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Layout(Protocol):
    name: Literal["NCHW", "NHWC"]
    splits_groups: bool  # whether the groups of a pointwise convolution are better kept as tensors of their own
    tile: int  # output channels of a pointwise convolution of constants are computed this many at a time
    lanes: int  # and channels of a depthwise one whose filter is computed

    def permute_to_nchw(self, x: Tensor) -> Tensor:
        """A feature map in this layout -> (B, C, H, W)"""

    def permute_from_nchw(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> a feature map in this layout"""

    def conv(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, dilation: int, groups: int
    ) -> Tensor:
        """An ordinary convolution of feature maps."""

    def pointwise(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """A 1x1 convolution; weight (C_out, C_in)."""

    def channels(self, x: Tensor, start: int, end: int) -> Tensor:
        """Channels `start` to `end` of a feature map."""

    def join(self, pieces: list[Tensor]) -> Tensor:
        """The feature map whose channels these are, one piece after the other."""

    def matmul_order(self, kernels: Tensor, groups: int) -> Tensor:
        """(..., C_out, C_in / g, 1, 1) -> (..., n), in the order in which `matmul` reads them."""

    def matmul(self, x: Tensor, kernels: Tensor, bias: Tensor, groups: int) -> Tensor:
        """A grouped 1x1 convolution per sample; kernels (B, n) in `matmul_order`, bias (C_out)."""

    def conv_order(self, kernels: Tensor) -> Tensor:
        """(..., C_out, C_in / g, k, k) -> (..., n), in the order in which this layout's convolution stores a filter."""

    def conv_kernel(self, kernel: Tensor, shape: torch.Size) -> Tensor:
        """(n,) in `conv_order` -> (C_out, C_in / g, k, k) = `shape`"""

    def taps(self, x: Tensor, kernel_size: int, stride: int, padding: int, dilation: int) -> list[Tensor]:
        """The k * k shifted views of a zero-padded feature map, row by row."""

    def per_channel(self, values: Tensor) -> Tensor:
        """(C) or (B, C) -> broadcastable to a feature map"""

    def pool(self, x: Tensor) -> Tensor:
        """Mean over space -> (B, C)"""

    def upsample(self, x: Tensor) -> Tensor:
        """Twice as high and wide, every value four times."""

    def places(self, x: Tensor) -> Tensor:
        """A feature map -> (B, HW, C), row by row"""

    def spatial_norm(self, x: Tensor) -> Tensor:
        """L2 norm over space -> (B, C)"""

    def normalize(self, x: Tensor, eps: float) -> Tensor:
        """To mean 0 and variance 1 over channels and space together."""

    def layer_norm(self, tokens: Tensor, eps: float) -> Tensor:
        """(N, D), each row to mean 0 and variance 1."""

    def spread(self, queries: Tensor, mask: Tensor) -> Tensor:
        """Queries (B, M, C), one copy per head with the other heads' channels 0, as `scores` takes them.

        mask is (h, C): 1 where the channel belongs to the head.
        """

    def scores(self, queries: Tensor, x: Tensor) -> Tensor:
        """Products of spread queries with every position of a feature map -> (B, h * M, HW)"""

    def gather(self, attention: Tensor, x: Tensor) -> Tensor:
        """Sums of positions weighted by attention (B, h * M, HW) -> (B, h * M, C)"""


class NCHW:
    """PyTorch's, ONNX's and Core ML's layout, with native norms."""

    name: Literal["NCHW", "NHWC"] = "NCHW"
    splits_groups = False
    tile, lanes = 1, 1

    def __init__(self, largest_norm: float = math.inf) -> None:
        """Feature maps of more values than `largest_norm` are normalised by means.

        ONNX Runtime 1.31 adds up an InstanceNormalization's values in one go, in float32: of a million values it is a
        hundred times as far off as PyTorch.
        """
        self.largest_norm = largest_norm

    def permute_to_nchw(self, x: Tensor) -> Tensor:
        return x

    def permute_from_nchw(self, x: Tensor) -> Tensor:
        return x

    def conv(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, dilation: int, groups: int
    ) -> Tensor:
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)

    def pointwise(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.conv2d(x, weight[:, :, None, None], bias)

    def channels(self, x: Tensor, start: int, end: int) -> Tensor:
        return x[:, start:end]

    def join(self, pieces: list[Tensor]) -> Tensor:
        return torch.cat(pieces, 1) if len(pieces) > 1 else pieces[0]

    def matmul_order(self, kernels: Tensor, groups: int) -> Tensor:
        return kernels.flatten(-4)

    def matmul(self, x: Tensor, kernels: Tensor, bias: Tensor, groups: int) -> Tensor:
        _, channels, height, width = x.shape
        weight = kernels.reshape(-1, groups, len(bias) // groups, channels // groups)
        y = weight @ x.reshape(-1, groups, channels // groups, height * width)
        return y.reshape(-1, len(bias), height, width) + self.per_channel(bias)

    def conv_order(self, kernels: Tensor) -> Tensor:
        return kernels.flatten(-4)

    def conv_kernel(self, kernel: Tensor, shape: torch.Size) -> Tensor:
        return kernel.reshape(shape)

    def taps(self, x: Tensor, kernel_size: int, stride: int, padding: int, dilation: int) -> list[Tensor]:
        rows, columns = (_starts_and_ends(side, kernel_size, stride, padding, dilation) for side in x.shape[2:])
        x = F.pad(x, (padding,) * 4)
        return [x[:, :, i:i_end:stride, j:j_end:stride] for i, i_end in rows for j, j_end in columns]

    def per_channel(self, values: Tensor) -> Tensor:
        return values[..., None, None]

    def pool(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))

    def upsample(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2.0, mode="nearest")

    def places(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2)

    def spatial_norm(self, x: Tensor) -> Tensor:
        return torch.linalg.vector_norm(x, dim=(2, 3))

    def normalize(self, x: Tensor, eps: float) -> Tensor:
        if x[0].numel() <= self.largest_norm:
            return F.group_norm(x, 1, eps=eps)
        centred = x - self._mean(x)
        return centred * self._mean(centred * centred).add(eps).rsqrt()

    def _mean(self, x: Tensor) -> Tensor:
        """Of each sample, (B, 1, 1, 1): of each channel first, for short sums are exact ones."""
        return self.pool(x).mean(1)[:, None, None, None]

    def layer_norm(self, tokens: Tensor, eps: float) -> Tensor:
        return F.layer_norm(tokens, tokens.shape[-1:], eps=eps)

    def spread(self, queries: Tensor, mask: Tensor) -> Tensor:
        return (queries[:, None] * mask[:, None]).flatten(1, 2)  # (B, h * M, C)

    def scores(self, queries: Tensor, x: Tensor) -> Tensor:
        return queries @ x.flatten(2)

    def gather(self, attention: Tensor, x: Tensor) -> Tensor:
        return attention @ x.flatten(2).transpose(1, 2)


class NHWC:
    """TFLite's layout. It has no norm ops, so norms are written as means, in the fewest passes."""

    name: Literal["NCHW", "NHWC"] = "NHWC"

    def __init__(self, tuned: bool = True) -> None:
        """`tuned` is for XNNPACK's GEMM on ARM, which computes 8 columns at a time, or two where that wastes over 1 %;
        for TensorFlow Lite's own depthwise convolution, 4 channels at a time; and for maps that are costly to slice.
        """
        self.tile, self.lanes, self.splits_groups = (8, 4, True) if tuned else (1, 1, False)

    def permute_to_nchw(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)

    def permute_from_nchw(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)

    def conv(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, dilation: int, groups: int
    ) -> Tensor:
        # the permutations stand beside the convolution so that the converter cancels them against its own
        y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, stride, padding, dilation, groups)
        return y.permute(0, 2, 3, 1)

    def pointwise(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.linear(x, weight, bias)

    def channels(self, x: Tensor, start: int, end: int) -> Tensor:
        return x[..., start:end]

    def join(self, pieces: list[Tensor]) -> Tensor:
        return torch.cat(pieces, 3) if len(pieces) > 1 else pieces[0]

    def matmul_order(self, kernels: Tensor, groups: int) -> Tensor:
        return kernels.flatten(-3).unflatten(-2, (groups, -1)).transpose(-1, -2).flatten(-3)  # (g, C_in / g, C_out / g)

    def matmul(self, x: Tensor, kernels: Tensor, bias: Tensor, groups: int) -> Tensor:
        _, height, width, channels = x.shape
        size = channels // groups
        x, weight = x.flatten(1, 2), kernels.reshape(-1, groups, size, len(bias) // groups)
        products = [x[:, :, i * size : (i + 1) * size] @ weight[:, i] for i in range(groups)]
        # the bias is added before the rows are unflattened, or the converter makes it a product per row of the image
        return ((torch.cat(products, 2) if groups > 1 else products[0]) + bias).unflatten(1, (height, width))

    def conv_order(self, kernels: Tensor) -> Tensor:
        if kernels.shape[-3] == 1:  # depthwise filters are stored (1, k, k, C), others (C_out, k, k, C_in / g)
            return kernels.movedim(-4, -1).flatten(-4)
        return kernels.movedim(-3, -1).flatten(-4)

    def conv_kernel(self, kernel: Tensor, shape: torch.Size) -> Tensor:
        out_channels, in_channels, *size = shape
        if in_channels == 1:
            return kernel.reshape(1, *size, out_channels).permute(3, 0, 1, 2)
        return kernel.reshape(out_channels, *size, in_channels).permute(0, 3, 1, 2)

    def taps(self, x: Tensor, kernel_size: int, stride: int, padding: int, dilation: int) -> list[Tensor]:
        rows, columns = (_starts_and_ends(side, kernel_size, stride, padding, dilation) for side in x.shape[1:3])
        x = F.pad(x, (0, 0, *(padding,) * 4))
        return [x[:, i:i_end:stride, j:j_end:stride] for i, i_end in rows for j, j_end in columns]

    def per_channel(self, values: Tensor) -> Tensor:
        return values[..., None, None, :]

    def pool(self, x: Tensor) -> Tensor:
        return x.mean((1, 2))

    def upsample(self, x: Tensor) -> Tensor:
        # as `conv`: the permutations are the converter's own
        return F.interpolate(x.permute(0, 3, 1, 2), scale_factor=2.0, mode="nearest").permute(0, 2, 3, 1)

    def places(self, x: Tensor) -> Tensor:
        return x.flatten(1, 2)

    def spatial_norm(self, x: Tensor) -> Tensor:
        return (x * x).sum((1, 2)).sqrt()

    def normalize(self, x: Tensor, eps: float) -> Tensor:
        return normalized(x, (1, 2, 3), eps)

    def layer_norm(self, tokens: Tensor, eps: float) -> Tensor:
        return normalized(tokens, (1,), eps)

    # A product with a transposed operand becomes a FULLY_CONNECTED with computed weights, which XNNPACK leaves out. So
    # queries are transposed before the mask is applied, where no converter can see it, and scores after the product.

    def spread(self, queries: Tensor, mask: Tensor) -> Tensor:
        return (queries.transpose(1, 2)[:, :, None] * mask.T[:, :, None]).flatten(2)  # (B, C, h * M)

    def scores(self, queries: Tensor, x: Tensor) -> Tensor:
        return (x.flatten(1, 2) @ queries).transpose(1, 2)

    def gather(self, attention: Tensor, x: Tensor) -> Tensor:
        return attention @ x.flatten(1, 2)


def normalized(x: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    """To mean 0 and variance 1 over these dimensions, by means, in the fewest passes."""
    centred = x - x.mean(axes, keepdim=True)
    return centred * (centred * centred).mean(axes, keepdim=True).add(eps).rsqrt()


def _starts_and_ends(side: int, kernel_size: int, stride: int, padding: int, dilation: int) -> list[tuple[int, int]]:
    """Where each tap's strided slice of one padded side begins and ends."""
    outputs = (side + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1
    return [(t * dilation, t * dilation + (outputs - 1) * stride + 1) for t in range(kernel_size)]
