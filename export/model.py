"""What can be exported, a classifier or a detector, and what an export has to know of each."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

import dmf
from dmf import DMF, VARIANTS
from dmf.detection import DETECTORS, Detector, MaskRCNN, RetinaNet, create_detector, load_detector
from dmf.detection.boxes import clip, decode
from dmf.detection.seeded import seed_detector
from export.detection.mask_rcnn import Found, reparameterize_mask_rcnn
from export.detection.retinanet import reparameterize_retinanet
from export.reparameterize import reparameterize

Model = DMF | Detector
MODELS = (*VARIANTS, *DETECTORS)
INTERCHANGEABLE = ("grn", "routing", "bank_init", "num_kernels", "token_input", "residual_kernel")
"""Fields of a DMF's configuration that make it no other variant, beside its classes and image size."""


def image_size(model: Model) -> tuple[int, int]:
    """Height and width of the images that it is exported for, in px."""
    size = model.config.image_size
    return size if isinstance(size, tuple) else (size, size)


def at_size(model: Model, size: tuple[int, int]) -> Model:
    """A copy for images of this height and width. Raises `ValueError` for a size that it can't take."""
    height, width = size
    other = copy.copy(model)
    if isinstance(model, DMF):
        if height != width:
            raise ValueError(f"images are {height} x {width}; a classifier's are square: give one side")
        other.config = replace(model.config, image_size=height)
    else:
        other.config = replace(model.config, image_size=size)
    return other


def routed(model: Model) -> DMF:
    """The part of it that has dynamic convolutions."""
    return model if isinstance(model, DMF) else model.backbone


def variant_name(model: Model) -> str:
    """The variant that this model is, whatever its ablations, classes, image size and thresholds; else "custom"."""
    if isinstance(model, DMF):
        known: Mapping[str, Any] = VARIANTS
        kept: tuple[str, ...] = ("num_classes", "image_size", *INTERCHANGEABLE)
    else:
        known = {name: config for name, config in DETECTORS.items() if type(config) is type(model.config)}
        kept = ("num_classes", "image_size", "frozen_stages", "score_threshold", "nms_iou", "max_detections")
    for name, config in known.items():
        same = replace(config, **{field: getattr(model.config, field) for field in kept})
        if isinstance(model, Detector):
            own = model.config.backbone
            same = replace(same, backbone=replace(same.backbone, **{f: getattr(own, f) for f in INTERCHANGEABLE}))
        if same == model.config:
            return name
    return "custom"


def create(name: str, seed: int, size: tuple[int, int] | None) -> Model:
    """A model of `MODELS` with seeded random weights. Raises `ValueError`."""
    if name in DETECTORS:
        return seed_detector(create_detector(name, **({} if size is None else {"image_size": size})), seed)
    model = dmf.create_model(name)
    return dmf.seed_weights(model if size is None else _as_classifier(at_size(model, size)), seed)


def load(path: Any, name: str, size: tuple[int, int] | None) -> Model:
    """The model of this name in the checkpoint at `path`. Raises `ValueError`."""
    model: Model
    try:
        model = load_detector(path) if name in DETECTORS else dmf.load_checkpoint(path, name)
    except dmf.CheckpointError as error:
        raise _of_other_kind(path, name) or error from None
    if name in DETECTORS and (held := variant_name(model)) != name:
        raise _of_other_model(path, held, name)
    return model if size is None else at_size(model, size)


def _of_other_kind(path: Any, name: str) -> ValueError | None:
    """Where a detector is wanted and the file holds a classifier, or the other way round."""
    try:
        other = dmf.load_checkpoint(path) if name in DETECTORS else load_detector(path)
    except dmf.CheckpointError:
        return None
    return _of_other_model(path, variant_name(other), name)


def _of_other_model(path: Any, held: str, wanted: str) -> ValueError:
    return ValueError(f"{path}: holds {held}, not {wanted}; give --model {held}")


def _as_classifier(model: Model) -> DMF:
    assert isinstance(model, DMF)
    return model


def output_names(model: Model) -> tuple[str, ...]:
    """Of what its static graph gives."""
    if isinstance(model, DMF):
        return ("logits",)
    return Found._fields if isinstance(model, MaskRCNN) else ("scores", "boxes")


@torch.no_grad()
def answer(model: Model, images: Tensor) -> tuple[Tensor, ...]:
    """What the eager model gives for (B, 3, H, W), by `output_names`: of a RetinaNet, decoded; not of a Mask R-CNN,
    whose outputs are of no fixed size.
    """
    if isinstance(model, DMF):
        return (model(images),)
    assert isinstance(model, RetinaNet)
    logits, deltas = model(images)
    anchors = torch.cat(model.anchors(*images.shape[2:])).to(deltas)
    return logits.sigmoid(), clip(decode(deltas, anchors), *images.shape[2:])


def static_graph(model: Model) -> nn.Module:
    """A new module that computes what `model` does in eval mode, for images of its size, in its dtype."""
    if isinstance(model, DMF):
        return reparameterize(model)
    if isinstance(model, RetinaNet):
        return reparameterize_retinanet(model, *image_size(model))
    assert isinstance(model, MaskRCNN)
    return reparameterize_mask_rcnn(model, *image_size(model))
