"""Detectors come back as they were; backbones come out of every kind of checkpoint that has one."""

import json
from dataclasses import replace

import pytest
import torch
from released_forward import features
from released_layout import WIDTHS, random_state
from safetensors.torch import save_file

import dmf
from dmf.detection import DETECTORS, create_detector, load_backbone, load_detector, save_detector

NANO = WIDTHS["dmf_nano"]
CLASSIFIER = ("end_", "head.")  # entries of this project's classifiers without use
RELEASED_CLASSIFIER = ("end_", "channel_conv.", "bn.", "head.")
STATE = random_state(NANO, seed=3)
BARE = {k: v for k, v in STATE.items() if not k.startswith(RELEASED_CLASSIFIER)}
HEADS = {"neck.lateral_convs.0.conv.weight": torch.ones(3), "bbox_head.retina_cls.bias": torch.ones(2)}
IN_MMDETECTION = {f"backbone.{k}": v for k, v in BARE.items()}
RELEASED = {
    "classifier": (STATE, sorted(STATE.keys() - BARE.keys())),
    "classifier of 7 classes": (random_state(replace(NANO, classes=7), seed=3), sorted(STATE.keys() - BARE.keys())),
    "backbone alone": (BARE, []),
    "data-parallel classifier": ({f"module.{k}": v for k, v in STATE.items()}, sorted(STATE.keys() - BARE.keys())),
    "detector": ({"meta": {"epoch": 12}, "state_dict": IN_MMDETECTION | HEADS, "optimizer": {}}, sorted(HEADS)),
    "detector with its classifier": (
        {"state_dict": {f"backbone.{k}": v for k, v in STATE.items()}},
        sorted(f"backbone.{k}" for k in STATE.keys() - BARE.keys()),
    ),
}


def detector(name: str = "retinanet_dmf_nano", seed: int = 0, **changes: object):
    torch.manual_seed(seed)
    made = create_detector(name, **changes)
    dmf.seed_weights(made.backbone, seed)
    return made


def same(a, b) -> bool:
    a, b = a.state_dict(), b.state_dict()
    return list(a) == list(b) and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("name", ["retinanet_dmf_nano", "mask_rcnn_dmf_nano"])
def test_round_trip(name, scratch):
    made = detector(name, num_classes=3, score_threshold=0.1)
    save_detector(made, scratch / "weights.safetensors", {"epoch": "3"})
    loaded = load_detector(scratch / "weights.safetensors")
    assert type(loaded) is type(made) and loaded.config == made.config and not loaded.training
    assert same(loaded, made)
    assert not same(loaded, detector(name, seed=1, num_classes=3))


def test_a_backbone_has_no_classifier():
    """And the classifier's checkpoints stay as they are: the detector only leaves entries out."""
    names, classifier = set(detector().backbone.state_dict()), set(dmf.create_model("dmf_nano").state_dict())
    assert names < classifier
    assert {name.split(".")[0] for name in classifier - names} == {
        "end_mobile2former",
        "end_former",
        "end_conv",
        "end_bn",
        "head",
    }


@pytest.mark.parametrize("grn", ["channel", "spatial"])
def test_from_this_projects_classifier(grn, nano, images, scratch):
    classifier = nano(seed=5, num_classes=7, grn=grn, num_kernels=4)
    dmf.save_checkpoint(classifier, scratch / "weights.safetensors")
    made = detector(image_size=(96, 64))
    unused = load_backbone(made, scratch / "weights.safetensors")
    assert unused == sorted(k for k in classifier.state_dict() if k.startswith(CLASSIFIER)) and unused
    assert made.config.backbone == replace(dmf.VARIANTS["dmf_nano"], dropout=0.0, grn=grn, num_kernels=4)
    assert made.backbone.config == made.config.backbone and made.config.image_size == (96, 64)
    batch = images(2).float()
    with torch.no_grad():
        for found, expected in zip(made.backbone(batch), classifier.forward_features(batch), strict=True):
            assert torch.equal(found, expected)
        assert not torch.equal(made.backbone(batch)[3], detector().backbone(batch)[3])


@pytest.mark.parametrize("name", ["retinanet_dmf_nano", "mask_rcnn_dmf_nano"])
def test_from_this_projects_detector(name, scratch):
    source = detector("retinanet_dmf_nano", seed=4)
    save_detector(source, scratch / "weights.safetensors")
    made = detector(name, num_classes=2)
    heads = {k: v.clone() for k, v in made.state_dict().items() if not k.startswith("backbone.")}
    unused = load_backbone(made, scratch / "weights.safetensors")
    assert set(unused) == {k for k in source.state_dict() if not k.startswith("backbone.")}
    assert same(made.backbone, source.backbone)
    assert all(torch.equal(made.state_dict()[k], v) for k, v in heads.items())


@pytest.mark.parametrize("kind", RELEASED)
def test_from_released_checkpoints(kind, images, scratch):
    """Features are those of an independent forward pass in the released code's layout."""
    content, expected_unused = RELEASED[kind]
    torch.save(content, scratch / "weights.pth")
    made = detector()
    unused = load_backbone(made, scratch / "weights.pth")
    assert unused == expected_unused
    assert made.config.backbone.grn == "spatial"
    batch = images(2)
    with torch.no_grad():
        maps = made.double().backbone(batch)
    expected = features(STATE, NANO, batch)
    for i, found in zip(made.config.backbone.feature_blocks, maps, strict=True):
        torch.testing.assert_close(found, expected[i], rtol=0, atol=1e-9)
    wrong = features(random_state(NANO, seed=4), NANO, batch)
    assert (wrong[4] - maps[3]).abs().max() > 0.01


def test_of_a_real_size(scratch):
    torch.save(random_state(WIDTHS["dmf_xxs"], seed=1), scratch / "weights.pth")
    made = create_detector("retinanet_dmf_xxs", image_size=(64, 64))
    assert len(load_backbone(made, scratch / "weights.pth")) == 31
    with pytest.raises(dmf.CheckpointError, match="holds dmf_xxs, the detector's backbone is dmf_nano"):
        load_backbone(detector(), scratch / "weights.pth")


def test_type_and_mode_are_kept(nano, scratch):
    dmf.save_checkpoint(nano(), scratch / "weights.safetensors")
    made = detector().double().train()
    load_backbone(made, scratch / "weights.safetensors")
    assert made.backbone.training and made.backbone.tokens.dtype == torch.float64


def refused(content, message: str, scratch, suffix: str = ".pth") -> None:
    path = scratch / f"weights{suffix}"
    torch.save(content, path) if suffix == ".pth" else path.write_bytes(content)
    made = detector()
    before = {k: v.clone() for k, v in made.state_dict().items()}
    with pytest.raises(dmf.CheckpointError, match=message) as error:
        load_backbone(made, path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
    after = made.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_refused(scratch):
    missing = {k: v for k, v in STATE.items() if k != "blocks.2.norm.bias"}
    refused(missing, "missing blocks.2.norm.bias$", scratch)
    refused({**STATE, "extra.weight": torch.ones(1)}, "surplus extra.weight$", scratch)
    refused({**IN_MMDETECTION, "mask_head.weight": torch.ones(1)}, "surplus mask_head.weight$", scratch)
    refused({**STATE, "tokens": torch.ones(1, 5, 64)}, r"misshapen tokens \[1, 5, 64\]", scratch)
    refused({**BARE, "stem.conv.bias": torch.full((8,), torch.nan)}, "not finite .* stem.conv.bias", scratch)
    refused({**STATE, "stem.conv.weight": torch.ones(9, 3, 3, 3)}, "as no variant's", scratch)
    refused(HEADS, "holds no DMF: neither stem.conv.weight nor backbone.stem.conv.weight", scratch)
    refused([1, 2], "holds a list, not a state dict", scratch)
    refused(b"nonsense", "damaged or not a checkpoint", scratch, ".safetensors")


def test_no_such_file(scratch):
    for load in (load_detector, lambda path: load_backbone(detector(), path)):
        with pytest.raises(dmf.CheckpointError, match=r"none\.safetensors: no such checkpoint file"):
            load(scratch / "none.safetensors")


def test_refused_detectors(nano, scratch):
    path = scratch / "weights.safetensors"
    dmf.save_checkpoint(nano(), path)
    with pytest.raises(dmf.CheckpointError, match="not a detector's checkpoint"):
        load_detector(path)
    config = DETECTORS["retinanet_dmf_nano"].to_dict()
    tensors = detector().state_dict()
    save_file(tensors, path, {"config": json.dumps({**config, "num_classes": 11})})
    with pytest.raises(dmf.CheckpointError, match=r"misshapen class_output.weight \[90, 64, 3, 3\]"):
        load_detector(path)
    save_file(tensors, path, {"config": json.dumps({**config, "num_classes": 0})})
    with pytest.raises(dmf.CheckpointError, match="num_classes is 0"):
        load_detector(path)
    save_file(tensors, path, {"config": "{"})
    with pytest.raises(dmf.CheckpointError, match="not a detector's checkpoint"):
        load_detector(path)


def test_another_suffix_is_refused(scratch):
    with pytest.raises(ValueError, match=r"weights\.pth: a checkpoint is saved as \.safetensors"):
        save_detector(detector(), scratch / "weights.pth")
