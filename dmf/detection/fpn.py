"""Feature pyramid network (Lin et al., 2017): every level sees what the coarser ones know."""

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn


class FPN(nn.Module):
    """Laterals, top-down nearest upsampling and 3x3 outputs; each input has twice the stride of the one before.

    `extra` levels follow: "input" makes two by 3x3 convolutions of stride 2, the first from the last *input*
    (mmdetection's add_extra_convs="on_input", without an activation between them); "pool" makes one by taking every
    second place of the last output.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, extra: Literal["input", "pool"]) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in in_channels)
        self.outputs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels)
        widths = (in_channels[-1], channels) if extra == "input" else ()
        self.extra = nn.ModuleList(nn.Conv2d(width, channels, 3, 2, 1) for width in widths)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                assert module.bias is not None
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """(B, C_i, H / s_i, W / s_i) of each level -> (B, channels, ...) of each, and of the extra ones"""
        merged = [lateral(x) for lateral, x in zip(self.laterals, features, strict=True)]
        for i in range(len(merged) - 1, 0, -1):
            merged[i - 1] = merged[i - 1] + F.interpolate(merged[i], scale_factor=2.0, mode="nearest")
        levels = [output(x) for output, x in zip(self.outputs, merged, strict=True)]
        if self.extra:
            x = features[-1]
            for conv in self.extra:
                x = conv(x)
                levels.append(x)
        else:
            levels.append(F.max_pool2d(levels[-1], 1, 2))
        return levels
