"""RetinaNet -> static graph: the backbone folded as a classifier's is, pyramid and heads in the same layout.

Decoding can be in the graph, too, and is dense: every anchor's box, none chosen. The choice of the best and their
suppression, which depend on the data, are left to whoever reads the outputs.
"""

import copy
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dmf.detection import RetinaNet
from dmf.detection.boxes import clip, decode
from dmf.detection.fpn import FPN
from export.reparameterize import reparameterize_backbone
from export.static import Conv, Geometry, LaidOut, StaticBackbone


class StaticFPN(LaidOut):
    """`dmf.detection.fpn.FPN` with two extra levels, on feature maps in any layout."""

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
        return levels


class Head(LaidOut):
    """Convolutions, with a ReLU behind all but the last, shared by all levels."""

    def __init__(self, tower: nn.Sequential, output: nn.Conv2d, values: int) -> None:
        super().__init__()
        self.convs = static_convs([each for each in (*tower, output) if isinstance(each, nn.Conv2d)])
        self.values = values

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Feature maps -> (B, A, values)"""
        found = []
        for x in levels:
            for conv in self.convs[:-1]:
                x = F.relu(conv(x))
            found.append(self.layout.places(self.convs[-1](x)).reshape(x.shape[0], -1, self.values))
        return torch.cat(found, 1)


class StaticRetinaNet(LaidOut):
    """Images of one height and width -> class logits (B, A, K), box deltas (B, A, 4).

    With `decoded`: scores (B, A, K) from 0 to 1, boxes (B, A, 4) in pixels within the image, x1, y1, x2, y2.
    """

    anchors: Tensor

    def __init__(
        self,
        backbone: StaticBackbone,
        fpn: StaticFPN,
        classes: Head,
        boxes: Head,
        anchors: Tensor,
        size: tuple[int, int],
    ) -> None:
        super().__init__()
        self.backbone, self.fpn, self.classes, self.boxes = backbone, fpn, classes, boxes
        self.hold(anchors=anchors)
        self.size, self.decoded = size, False

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        levels = self.fpn(self.backbone(images)[1:])
        logits, deltas = self.classes(levels), self.boxes(levels)
        if not self.decoded:
            return logits, deltas
        return logits.sigmoid(), clip(decode(deltas, self.anchors), *self.size)


@torch.no_grad()
def reparameterize_retinanet(model: RetinaNet, height: int, width: int) -> StaticRetinaNet:
    """A new module that computes what `model` does in eval mode for images of this size, in the model's dtype.

    `ValueError`: a side is no positive multiple of the model's stride.
    """
    stride = model.config.backbone.stride
    if height < 1 or width < 1 or height % stride or width % stride:
        raise ValueError(f"images are {height} x {width}; both sides must be positive multiples of {stride}")
    source = copy.deepcopy(model).double()
    graph = StaticRetinaNet(
        reparameterize_backbone(source.backbone),
        StaticFPN(source.fpn),
        Head(source.class_tower, source.class_output, source.config.num_classes),
        Head(source.box_tower, source.box_output, 4),
        torch.cat(source.anchors(height, width)),
        (height, width),
    )
    return graph.to(next(model.parameters()).dtype).eval()


def static_convs(convs: Iterable[nn.Module]) -> nn.ModuleList:
    """Convolutions with a bias, as the static graph has them."""
    found = []
    for conv in convs:
        assert isinstance(conv, nn.Conv2d) and conv.bias is not None
        geometry = Geometry(conv.stride[0], int(conv.padding[0]), conv.dilation[0], conv.groups)
        found.append(Conv(conv.weight, conv.bias, geometry))
    return nn.ModuleList(found)
