"""What a detector is made of: a frozen config per architecture, and one table of named ones."""

from dataclasses import asdict, dataclass, fields, replace
from math import isfinite
from typing import Any, ClassVar

from dmf.config import VARIANTS, DMFConfig

COCO_CLASSES = 80
COCO_IMAGE_SIZE = (800, 1344)  # the paper's 800 x 1333, padded to a multiple of the stride


@dataclass(frozen=True)
class DetectorConfig:
    """What both architectures share. Raises `ValueError` for a combination that can't be built."""

    architecture: ClassVar[str]

    backbone: DMFConfig
    num_classes: int = COCO_CLASSES  # without the background
    image_size: tuple[int, int] = COCO_IMAGE_SIZE  # height and width that it is trained, measured and exported at
    fpn_channels: int = 256
    anchor_scale: float = 4  # side of a level's smallest square anchor, in strides
    frozen_stages: int = 0  # first stages of a pretrained backbone that don't learn

    # what `detect` returns (mmdetection's test settings)
    candidates: int = 1000  # of each level, that go into NMS
    score_threshold: float = 0.05
    nms_iou: float = 0.5
    max_detections: int = 100

    def __post_init__(self) -> None:
        if not isinstance(self.backbone, DMFConfig):
            raise ValueError(f"backbone is {self.backbone!r}; it must be a DMFConfig")
        if len(self.backbone.downsample) != 4:
            raise ValueError(
                f"the backbone has {len(self.backbone.downsample)} stages; a pyramid needs 4 (strides 4 to 32)"
            )
        for name, kind in ((f.name, f.type) for f in fields(self)):
            value = getattr(self, name)
            if kind is int and name != "frozen_stages" and (type(value) is not int or value < 1):
                raise ValueError(f"{name} is {value!r}; it must be a positive whole number")
            if kind is float and (type(value) not in (int, float) or not isfinite(value) or value < 0):
                raise ValueError(f"{name} is {value!r}; it must be a finite number, at least 0")
        for name in ("score_threshold", "nms_iou"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be within 0 and 1")
        if type(self.frozen_stages) is not int or not 0 <= self.frozen_stages <= 4:
            raise ValueError(f"frozen_stages is {self.frozen_stages!r}; it must be a whole number from 0 to 4")
        if self.anchor_scale == 0:
            raise ValueError("anchor_scale is 0; an anchor has an area")
        size, stride = self.image_size, self.backbone.stride
        if not (isinstance(size, tuple) and len(size) == 2 and all(type(v) is int and v > 0 for v in size)):
            raise ValueError(f"image_size is {size!r}; it must be (height, width), two positive whole numbers")
        if any(v % stride for v in size):
            raise ValueError(f"image_size is {size[0]} x {size[1]}; both must be multiples of {stride}")

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it: the architecture's name, and its fields."""
        own = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return {"architecture": self.architecture, **own, "backbone": self.backbone.to_dict()}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "DetectorConfig":
        """The inverse of `to_dict`. Raises `ValueError` for an unknown architecture, an unknown or missing field."""
        if not isinstance(values, dict) or values.get("architecture") not in tuple(ARCHITECTURES):
            raise ValueError(f"a detector's config names its architecture: {', '.join(ARCHITECTURES)}")
        kind = ARCHITECTURES[values["architecture"]]
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k != "architecture"
        }
        known = {f.name for f in fields(kind)}
        if unknown := sorted(set(plain) - known):
            raise ValueError(f"unknown config field(s) {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        if "backbone" not in plain:
            raise ValueError("incomplete config: no backbone")
        return kind(**{**plain, "backbone": DMFConfig.from_dict(plain["backbone"])})


@dataclass(frozen=True)
class RetinaNetConfig(DetectorConfig):
    """RetinaNet (Lin et al., 2017) as mmdetection builds it: strides 8 to 128, 9 anchors a place."""

    architecture: ClassVar[str] = "retinanet"

    head_convs: int = 4  # of each of both towers


@dataclass(frozen=True)
class MaskRCNNConfig(DetectorConfig):
    """Mask R-CNN (He et al., 2017) as mmdetection builds it: strides 4 to 64, 3 anchors a place, two stages."""

    architecture: ClassVar[str] = "mask_rcnn"

    anchor_scale: float = 8
    box_hidden: int = 1024  # width of both linear layers of the box head
    mask_convs: int = 4
    proposals: int = 1000  # that the first stage hands to the second
    box_samples: int = 512  # proposals of an image that the box head learns from, a quarter of them on objects


ARCHITECTURES: dict[str, type[DetectorConfig]] = {c.architecture: c for c in (RetinaNetConfig, MaskRCNNConfig)}

# as the released detectors: stochastic depth, no dropout, and the first two stages as they were pretrained
BACKBONES = {name: replace(config, dropout=0.0) for name, config in VARIANTS.items()}
PAPER: dict[str, dict[str, Any]] = {
    name: {"backbone": BACKBONES[name], "frozen_stages": 2} for name in ("dmf_xxs", "dmf_xs", "dmf_s")
}
# ours: narrow, and with anchors for small pictures, so that it trains on a CPU
NANO: dict[str, Any] = {
    "backbone": BACKBONES["dmf_nano"],
    "num_classes": 10,
    "image_size": (128, 128),
    "fpn_channels": 64,
}

DETECTORS: dict[str, DetectorConfig] = {
    "retinanet_dmf_nano": RetinaNetConfig(**NANO, anchor_scale=2, head_convs=2),
    **{f"retinanet_{name}": RetinaNetConfig(**values) for name, values in PAPER.items()},
    "mask_rcnn_dmf_nano": MaskRCNNConfig(
        **NANO, anchor_scale=4, box_hidden=128, mask_convs=2, proposals=200, box_samples=64
    ),
    **{f"mask_rcnn_{name}": MaskRCNNConfig(**values) for name, values in PAPER.items()},
}
