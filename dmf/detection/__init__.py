"""Object detection and instance segmentation on DMF (the paper's section 3.6, Tables 4 and 5): the reference models."""

from dataclasses import fields, replace
from typing import Any

from dmf.detection.checkpoint import build_detector, load_backbone, load_detector, save_detector
from dmf.detection.config import DETECTORS, DetectorConfig, MaskRCNNConfig, RetinaNetConfig
from dmf.detection.detector import Detector
from dmf.detection.instances import Detections, Target
from dmf.detection.mask_rcnn import MaskRCNN
from dmf.detection.retinanet import RetinaNet

__all__ = [
    "DETECTORS",
    "Detections",
    "Detector",
    "DetectorConfig",
    "MaskRCNN",
    "MaskRCNNConfig",
    "RetinaNet",
    "RetinaNetConfig",
    "Target",
    "create_detector",
    "load_backbone",
    "load_detector",
    "save_detector",
]


def create_detector(name: str, **changes: Any) -> Detector:
    """A fresh, untrained detector of the table `DETECTORS`, in eval mode; `changes` are fields of its config.

    Raises `ValueError` for an unknown name, field or value.
    """
    if name not in DETECTORS:
        raise ValueError(f"unknown detector {name!r}; known: {', '.join(DETECTORS)}")
    config = DETECTORS[name]
    if unknown := sorted(set(changes) - (known := {f.name for f in fields(config)})):
        raise ValueError(f"unknown config field(s) {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    return build_detector(replace(config, **changes)).eval()
