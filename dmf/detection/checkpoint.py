"""Checkpoints of detectors (safetensors, the config in the metadata), and backbones out of other checkpoints."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from dmf.checkpoint import (
    CheckpointError,
    check_entries,
    load_checkpoint,
    read_tensors,
    same_variant,
    upstream_entries,
    write_tensors,
)
from dmf.config import VARIANTS, DMFConfig
from dmf.detection.config import DetectorConfig, MaskRCNNConfig, RetinaNetConfig
from dmf.detection.detector import CLASSIFIER, Backbone, Detector
from dmf.detection.mask_rcnn import MaskRCNN
from dmf.detection.retinanet import RetinaNet

PREFIX = "backbone."
# what a file says about how its backbone computes; everything else is the detector's to choose, or must agree
ADOPTED = ("num_kernels", "token_input", "residual_kernel", "routing", "bank_init", "grn")
UPSTREAM_CLASSIFIER = ("end_mobile2former", "end_former", "channel_conv", "bn", "head")
UPSTREAM_HEADS = ("neck", "bbox_head", "rpn_head", "roi_head")  # beside `backbone` in mmdetection's state dicts


def build_detector(config: DetectorConfig) -> Detector:
    """The untrained detector that a config describes."""
    if isinstance(config, RetinaNetConfig):
        return RetinaNet(config)
    assert isinstance(config, MaskRCNNConfig)
    return MaskRCNN(config)


def save_detector(detector: Detector, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write weights and config to a .safetensors file, whole or not at all. `metadata` is stored beside the config.

    Raises `ValueError` for another suffix, by which the file couldn't be read again.
    """
    write_tensors(detector.state_dict(), detector.config.to_dict(), Path(path), metadata)


def load_detector(path: str | Path) -> Detector:
    """The detector stored at `path`, in eval mode and float32. Raises `CheckpointError`."""
    path = _existing(path)
    tensors, metadata = read_tensors(path)
    if not _is_detector(metadata):
        raise CheckpointError(f"{path}: not a detector's checkpoint (no config of one in its metadata)")
    try:
        detector = build_detector(DetectorConfig.from_dict(json.loads(metadata["config"])))
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    check_entries(path, tensors, {k: list(v.shape) for k, v in detector.state_dict().items()})
    detector.load_state_dict(tensors)
    return detector.eval()


def load_backbone(detector: Detector, path: str | Path) -> list[str]:
    """Replace the detector's backbone by the one stored at `path`; before an optimizer holds its parameters.

    The file is a classifier's or a detector's, in this project's layout or the released code's, of the same variant.
    How the file's backbone computes (its GRN, its number of kernels, ...) goes into the detector's config. Returns the
    entries that a detector's backbone has no use for: those of end modules and heads. Raises `CheckpointError`.
    """
    path = _existing(path)
    tensors, metadata = read_tensors(path)
    if _is_detector(metadata):
        source = load_detector(path).backbone
        config, state = source.config, source.state_dict()
        unused = [k for k in tensors if not k.startswith(PREFIX)]
    elif "config" in metadata:
        classifier = load_checkpoint(path)
        config = classifier.config
        unused = [k for k in tensors if k.split(".")[0] in CLASSIFIER]
        state = {k: v for k, v in classifier.state_dict().items() if k not in unused}
    else:
        config, state, unused = _released(path, tensors)
    own = detector.config.backbone
    if not same_variant(config, own):
        raise CheckpointError(f"{path}: holds {_name(config)}, the detector's backbone is {_name(own)}")
    adopted = replace(own, **{name: getattr(config, name) for name in ADOPTED})
    old = next(detector.parameters())
    backbone = Backbone(adopted, detector.config.frozen_stages)
    backbone.load_state_dict(state)
    detector.backbone = backbone.to(old.device, old.dtype).train(detector.training)
    detector.config = replace(detector.config, backbone=adopted)
    return sorted(unused)


def _released(path: Path, tensors: dict[str, Tensor]) -> tuple[DMFConfig, dict[str, Tensor], list[str]]:
    """Config, state and unused entries of a file in the released code's layout."""
    prefix = PREFIX if any(k.startswith(PREFIX) for k in tensors) else ""
    others = UPSTREAM_HEADS if prefix else UPSTREAM_CLASSIFIER
    unused = [k for k in tensors if k.split(".")[0] in others]
    unused += [k for k in tensors if prefix and k.removeprefix(PREFIX).split(".")[0] in UPSTREAM_CLASSIFIER]
    stem = tensors.get(f"{prefix}stem.conv.weight")
    if stem is None:
        raise CheckpointError(f"{path}: holds no DMF: neither stem.conv.weight nor {PREFIX}stem.conv.weight")
    known = [config for config in VARIANTS.values() if config.stem_channels == stem.shape[0]]
    if not known:
        shape = list(stem.shape)
        raise CheckpointError(f"{path}: {prefix}stem.conv.weight is {shape}, as no variant's ({', '.join(VARIANTS)})")
    config = replace(known[0], grn="spatial")
    state = Backbone(config).state_dict()
    entries = {k: (prefix + name, shape) for k, (name, shape) in upstream_entries(state).items()}
    check_entries(path, {k: v for k, v in tensors.items() if k not in unused}, dict(entries.values()))
    return config, state | {k: tensors[name].reshape(state[k].shape) for k, (name, _) in entries.items()}, unused


def _existing(path: str | Path) -> Path:
    if not Path(path).is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    return Path(path)


def _is_detector(metadata: Mapping[str, str]) -> bool:
    try:
        config = json.loads(metadata.get("config", "null"))
    except ValueError:
        return False
    return isinstance(config, dict) and "architecture" in config


def _name(config: DMFConfig) -> str:
    return next((name for name, known in VARIANTS.items() if same_variant(config, known)), "a custom model")
