"""Dynamic Mobile-Former in PyTorch: the reference model."""

from dataclasses import replace
from typing import Any

from dmf.checkpoint import CheckpointError, checkpoint_classes, load_checkpoint, save_checkpoint
from dmf.config import VARIANTS, DMFConfig
from dmf.dynamic_conv import DynamicConv2d
from dmf.model import DMF
from dmf.pretrained import pretrained
from dmf.seeded import seed_weights

__all__ = [
    "DMF",
    "VARIANTS",
    "CheckpointError",
    "DMFConfig",
    "DynamicConv2d",
    "checkpoint_classes",
    "create_model",
    "load_checkpoint",
    "pretrained",
    "save_checkpoint",
    "seed_weights",
]


def create_model(variant: str, **changes: Any) -> DMF:
    """A fresh, untrained model of the named variant, in eval mode; `changes` are fields of `DMFConfig`.

    Raises `ValueError` for an unknown variant, field or value.
    """
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; known: {', '.join(VARIANTS)}")
    if unknown := sorted(set(changes) - set(VARIANTS[variant].to_dict())):
        raise ValueError(
            f"unknown config field(s) {', '.join(unknown)}; known: {', '.join(VARIANTS[variant].to_dict())}"
        )
    return DMF(replace(VARIANTS[variant], **changes)).eval()
