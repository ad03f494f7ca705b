"""The feature pyramid of a static graph, and the convolutions that a detector's static parts are made of."""

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from dmf.detection import Detector
from dmf.detection.fpn import FPN
from export.static import Conv, Geometry, LaidOut


class StaticFPN(LaidOut):
    """`dmf.detection.fpn.FPN` with its extra levels, on feature maps in any layout."""

    def __init__(self, fpn: FPN) -> None:
        super().__init__()
        self.laterals, self.outputs, self.extra = (static_convs(c) for c in (fpn.laterals, fpn.outputs, fpn.extra))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """A feature map for each lateral -> one for each of these, and for each extra level"""
        merged = [lateral(x) for lateral, x in zip(self.laterals, features, strict=True)]
        for i in range(len(merged) - 1, 0, -1):
            merged[i - 1] = merged[i - 1] + self.layout.upsample(merged[i])
        levels, x = [output(x) for output, x in zip(self.outputs, merged, strict=True)], features[-1]
        for conv in self.extra:
            x = conv(x)
            levels.append(x)
        if not self.extra:  # every second place of the last one
            x = self.layout.permute_to_nchw(levels[-1])[:, :, ::2, ::2]
            levels.append(self.layout.permute_from_nchw(x))
        return levels


def check_size(model: Detector, height: int, width: int) -> None:
    """`ValueError`: a side of the images is no positive multiple of the model's stride."""
    stride = model.config.backbone.stride
    if height < 1 or width < 1 or height % stride or width % stride:
        raise ValueError(f"images are {height} x {width}; both sides must be positive multiples of {stride}")


def static_convs(convs: Iterable[nn.Module]) -> nn.ModuleList:
    return nn.ModuleList(static_conv(conv) for conv in convs)


def static_conv(conv: nn.Module) -> Conv:
    """A convolution with a bias, as the static graph has it."""
    assert isinstance(conv, nn.Conv2d) and conv.bias is not None
    geometry = Geometry(conv.stride[0], int(conv.padding[0]), conv.dilation[0], conv.groups)
    return Conv(conv.weight, conv.bias, geometry)
