"""Checkpoints in this project's layout (safetensors, the config in its metadata) and in the released code's.

Loading is strict: a missing, surplus or misshapen key is an error that lists it. No pickled code is ever executed.
"""

import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dmf.config import VARIANTS, DMFConfig
from dmf.model import DMF

# released code -> here, tried in order on every key
UPSTREAM_NAMES = (
    (r"\.static_weight$", ".agnostic_kernel"),
    (r"(pw_conv1|dw_conv|pw_conv2|channel_conv)\.weight$", r"\1.kernel_bank"),  # five-dimensional ones only
    (r"\.Kernel_Attention\.", ".kernel_attention."),
    (r"^channel_conv\.", "end_conv."),
    (r"^bn\.", "end_bn."),
    (r"\.ffn\.bn3\.", ".ffn.bn2."),
)
WRAPPERS = ("model_ema", "model", "state_dict")  # the averaged weights are the ones the paper evaluates


class CheckpointError(ValueError):
    """A checkpoint that can't be loaded; the message names the file and what is wrong with it."""


def save_checkpoint(model: DMF, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write weights and config to a .safetensors file, whole or not at all. `metadata` is stored beside the config."""
    path = Path(path)
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    partial = path.with_name(path.name + ".partial")
    try:
        save_file(tensors, partial, {**(metadata or {}), "config": json.dumps(model.config.to_dict())})
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_checkpoint(path: str | Path, variant: str | None = None) -> DMF:
    """The model stored at `path`, in eval mode and float32.

    Either layout: this project's .safetensors, or the released code's state dict (plain, or wrapped in `model`,
    `state_dict` or `model_ema`; with or without a `module.` prefix; .pth or .safetensors), whose logits are then the
    released code's, its GRN included. With `variant`, a checkpoint of another one is refused.

    Raises `CheckpointError`.
    """
    path = Path(path)
    if variant is not None and variant not in VARIANTS:
        raise CheckpointError(f"unknown variant {variant!r}; known: {', '.join(VARIANTS)}")
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    tensors, metadata = _read(path)
    if "config" in metadata:
        try:
            config = DMFConfig.from_dict(json.loads(metadata["config"]))
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}") from error
    else:
        config, tensors = _from_upstream(path, tensors, variant)
    if variant is not None and not _same_widths(config, VARIANTS[variant]):
        names = [name for name, known in VARIANTS.items() if _same_widths(config, known)]
        raise CheckpointError(f"{path}: holds {names[0] if names else 'a custom model'}, not {variant}")
    model = DMF(config)
    _check(path, tensors, model.state_dict())
    model.load_state_dict(tensors)
    return model.eval()


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file in either container."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                return {k: file.get_tensor(k) for k in file.keys()}, file.metadata() or {}  # noqa: SIM118 (not a dict)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: not a plain file of weights (it is damaged, or would run code when loaded, which is never done)"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: damaged or not a checkpoint: {str(error).splitlines()[0]}") from error
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a state dict")
    tensors = {str(k).removeprefix("module."): v for k, v in content.items()}
    if strange := [k for k, v in tensors.items() if not isinstance(v, Tensor)]:
        raise CheckpointError(f"{path}: not tensors: {_some(strange)}")
    return tensors, {}


def _from_upstream(path: Path, tensors: dict[str, Tensor], variant: str | None) -> tuple[DMFConfig, dict[str, Tensor]]:
    """Config and renamed tensors of a state dict in the released code's layout."""
    stem, head = tensors.get("stem.conv.weight"), tensors.get("head.fc2.bias")
    if stem is None or head is None:
        raise CheckpointError(f"{path}: neither this project's layout (no config) nor the released code's")
    if variant is None:
        matches = [name for name, c in VARIANTS.items() if c.stem_channels == len(stem)]
        if not matches:
            raise CheckpointError(f"{path}: its stem has {len(stem)} channels, as no variant's ({', '.join(VARIANTS)})")
        variant = matches[0]
    renamed = {}
    for key, value in tensors.items():
        name = key
        for pattern, replacement in UPSTREAM_NAMES:
            if "kernel_bank" not in replacement or value.ndim == 5:
                name = re.sub(pattern, replacement, name)
        renamed[name] = value.flatten(1) if ".kernel_attention.net" in name else value
        if name.endswith(".kernel_attention.net2.weight"):
            renamed[name.replace("net2.weight", "temperature")] = torch.tensor(1.0)
    return replace(VARIANTS[variant], num_classes=len(head), grn="spatial"), renamed


def _check(path: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    faults = []
    if missing := [k for k in wanted if k not in found]:
        faults.append(f"missing {_some(missing)}")
    if surplus := [k for k in found if k not in wanted]:
        faults.append(f"surplus {_some(surplus)}")
    misshapen = [k for k in wanted if k in found and found[k].shape != wanted[k].shape]
    if misshapen:
        shapes = [f"{k} {list(found[k].shape)} (should be {list(wanted[k].shape)})" for k in misshapen]
        faults.append(f"misshapen {_some(shapes)}")
    if broken := [k for k, v in found.items() if v.is_floating_point() and not v.isfinite().all()]:
        faults.append(f"not finite (NaN or infinite) {_some(broken)}")
    if faults:
        raise CheckpointError(f"{path}: " + "; ".join(faults))


def _same_widths(a: DMFConfig, b: DMFConfig) -> bool:
    """Whether two configs differ in ablations, classes and image size at most."""
    return all(
        getattr(a, name) == getattr(b, name)
        for name in ("stem_channels", "block_hidden", "block_channels", "groups", "end_channels", "token_dim")
    )


def _some(names: list[str]) -> str:
    """All of a short list, the beginning of a long one."""
    shown = ", ".join(names[:20])
    return shown if len(names) <= 20 else f"{shown} and {len(names) - 20} more"
