"""RetinaNet -> static graph: the backbone folded as a classifier's is, pyramid and heads in the same layout.

Decoding is in the graph, too, and dense: every anchor's box, none chosen. The choice of the best and their suppression,
which depend on the data, are left to whoever reads the outputs, or to `export.detection.suppression`.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dmf.detection import RetinaNet
from dmf.detection.boxes import clip, decode
from export.detection.pyramid import StaticFPN, check_size, static_conv
from export.reparameterize import reparameterize_backbone
from export.static import LaidOut, StaticBackbone

DECODING = "decode"  # the module of `Decoded` that fp16 is too coarse for: 1 px from 1024 px on, half a one from 512 on


class StaticRetinaNet(LaidOut):
    """Images of one size -> class logits (B, A, K), box deltas (B, A, 4). Modules are named as the model's."""

    def __init__(
        self,
        backbone: StaticBackbone,
        fpn: StaticFPN,
        class_tower: nn.Sequential,
        class_output: nn.Module,
        box_tower: nn.Sequential,
        box_output: nn.Module,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.backbone, self.fpn, self.num_classes = backbone, fpn, num_classes
        self.class_tower, self.class_output = class_tower, class_output
        self.box_tower, self.box_output = box_tower, box_output

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        levels = self.fpn(self.backbone(images)[1:])
        logits = [self.class_output(self.class_tower(x)) for x in levels]
        deltas = [self.box_output(self.box_tower(x)) for x in levels]
        return self._flat(logits, self.num_classes), self._flat(deltas, 4)

    def _flat(self, outputs: Sequence[Tensor], values: int) -> Tensor:
        """A head's output for each level -> (B, A, values)"""
        return torch.cat([self.layout.places(x).reshape(x.shape[0], -1, values) for x in outputs], 1)


class Decode(nn.Module):
    """Box deltas (B, A, 4) -> boxes (B, A, 4) in pixels within the image, x1, y1, x2, y2."""

    anchors: Tensor

    def __init__(self, anchors: Tensor, size: tuple[int, int]) -> None:
        super().__init__()
        self.register_buffer("anchors", anchors)
        self.size = size

    def forward(self, deltas: Tensor) -> Tensor:
        return clip(decode(deltas, self.anchors), *self.size)


class Decoded(nn.Module):
    """Images -> scores (B, A, K) from 0 to 1, boxes (B, A, 4)."""

    def __init__(self, network: StaticRetinaNet, anchors: Tensor, size: tuple[int, int]) -> None:
        super().__init__()
        self.network, self.decode = network, Decode(anchors, size)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits, deltas = self.network(images)
        return logits.sigmoid(), self.decode(deltas)


@torch.no_grad()
def reparameterize_retinanet(model: RetinaNet, height: int, width: int) -> Decoded:
    """A new module that computes what `model` does in eval mode for images of this size, in the model's dtype.

    `ValueError`: a side is no positive multiple of the model's stride.
    """
    check_size(model, height, width)
    source = copy.deepcopy(model).double()
    network = StaticRetinaNet(
        reparameterize_backbone(source.backbone),
        StaticFPN(source.fpn),
        _tower(source.class_tower),
        static_conv(source.class_output),
        _tower(source.box_tower),
        static_conv(source.box_output),
        source.config.num_classes,
    )
    graph = Decoded(network, torch.cat(source.anchors(height, width)), (height, width))
    return graph.to(next(model.parameters()).dtype).eval()


def _tower(tower: nn.Sequential) -> nn.Sequential:
    return nn.Sequential(*(static_conv(each) if isinstance(each, nn.Conv2d) else nn.ReLU() for each in tower))
