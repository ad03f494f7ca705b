"""Configs of detectors: the table, what is refused, and the way to JSON and back."""

import json
from dataclasses import replace

import pytest

import dmf
from dmf.detection import DETECTORS, DetectorConfig, MaskRCNN, RetinaNet, create_detector

BAD = {
    "num_classes": (0, "num_classes is 0; it must be a positive whole number"),
    "fpn_channels": (2.5, "fpn_channels is 2.5; it must be a positive whole number"),
    "candidates": (True, "candidates is True; it must be a positive whole number"),
    "score_threshold": (1.5, "score_threshold is 1.5; it must be within 0 and 1"),
    "nms_iou": (float("nan"), "nms_iou is nan; it must be a finite number, at least 0"),
    "anchor_scale": (0, "anchor_scale is 0; an anchor has an area"),
    "backbone": ("dmf_xxs", "backbone is 'dmf_xxs'; it must be a DMFConfig"),
    "image_size": ((800, 1333), "image_size is 800 x 1333; both must be multiples of 32"),
    "frozen_stages": (5, "frozen_stages is 5; it must be a whole number from 0 to 4"),
    "max_detections": (-1, "max_detections is -1; it must be a positive whole number"),
}


@pytest.mark.parametrize("name", DETECTORS)
def test_round_trip(name):
    config = DETECTORS[name]
    assert DetectorConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert DetectorConfig.from_dict(replace(config, num_classes=3).to_dict()) != config


@pytest.mark.parametrize("field", BAD)
def test_bad_values(field):
    value, message = BAD[field]
    with pytest.raises(ValueError, match="^" + message.replace("(", r"\(")):
        create_detector("retinanet_dmf_nano", **{field: value})


@pytest.mark.parametrize("size", [64, (64,), (64, 0), (64.0, 64), [64, 64]])
def test_bad_image_size(size):
    with pytest.raises(ValueError, match=r"it must be \(height, width\), two positive whole numbers"):
        create_detector("retinanet_dmf_nano", image_size=size)


def test_backbone_of_other_stages():
    config = dmf.VARIANTS["dmf_nano"]
    with pytest.raises(ValueError, match="the backbone has 3 stages; a pyramid needs 4"):
        create_detector("retinanet_dmf_nano", backbone=replace(config, downsample=(0, 1, 2)))


def test_unknown_names():
    with pytest.raises(ValueError, match="unknown detector 'retinanet'; known: retinanet_dmf_nano, "):
        create_detector("retinanet")
    with pytest.raises(ValueError, match=r"unknown config field\(s\) mask_convs; known: "):
        create_detector("retinanet_dmf_nano", mask_convs=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "yolo"}, "a detector's config names its architecture: retinanet, mask_rcnn"),
        ({"proposals": 7}, r"unknown config field\(s\) proposals; known: "),
        ({"backbone": None}, "a config is an object of named fields, not None"),
        ({"backbone": {"stem_channels": 8}}, "incomplete config"),
    ],
)
def test_bad_files(change, message):
    with pytest.raises(ValueError, match=message):
        DetectorConfig.from_dict({**DETECTORS["retinanet_dmf_nano"].to_dict(), **change})


def test_no_backbone():
    values = DETECTORS["retinanet_dmf_nano"].to_dict()
    del values["backbone"]
    with pytest.raises(ValueError, match="incomplete config: no backbone"):
        DetectorConfig.from_dict(values)


@pytest.mark.parametrize("name", DETECTORS)
def test_backbones_are_the_variants(name):
    """Without dropout, as the released detectors have them."""
    variant = dmf.VARIANTS[name.removeprefix("retinanet_").removeprefix("mask_rcnn_")]
    assert variant.dropout > 0
    assert DETECTORS[name].backbone == replace(variant, dropout=0.0)


def test_create_detector():
    detector = create_detector("retinanet_dmf_nano", num_classes=3, image_size=(64, 96))
    assert isinstance(detector, RetinaNet) and not detector.training
    assert detector.config.num_classes == 3 and detector.config.image_size == (64, 96)
    assert isinstance(create_detector("mask_rcnn_dmf_nano"), MaskRCNN)
