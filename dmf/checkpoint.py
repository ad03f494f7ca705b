"""Checkpoints in this project's layout (safetensors, the config in its metadata) and in the released code's.

Loading is strict: a missing, surplus or misshapen key is an error that lists it. No pickled code is ever executed.
"""

import argparse
import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dmf.config import VARIANTS, DMFConfig
from dmf.model import DMF

# here -> released code, all applied to every key
UPSTREAM_NAMES = (
    (r"\.agnostic_kernel$", ".static_weight"),
    (r"\.kernel_bank$", ".weight"),
    (r"\.kernel_attention\.", ".Kernel_Attention."),
    (r"^end_conv\.", "channel_conv."),
    (r"^end_bn\.", "bn."),
    (r"\.ffn\.bn2\.", ".ffn.bn3."),
)
WRAPPERS = ("model_ema", "model", "state_dict")  # the averaged weights are the ones the paper evaluates
# what two models of one variant may differ in: training, ablations, classes, image size
FREE_FIELDS = frozenset(
    {
        "image_size",
        "num_classes",
        "dropout",
        "drop_path",
        "num_kernels",
        "token_input",
        "residual_kernel",
        "routing",
        "bank_init",
        "grn",
    }
)


class CheckpointError(ValueError):
    """A checkpoint that can't be loaded; the message names the file and what is wrong with it."""


def save_checkpoint(model: DMF, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write weights and config to a .safetensors file, whole or not at all. `metadata` is stored beside the config.

    Raises `ValueError` for another suffix, by which the file couldn't be read again.
    """
    write_tensors(model.state_dict(), model.config.to_dict(), Path(path), metadata)


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
    tensors, metadata = read_tensors(path)
    released = "config" not in metadata
    config = _upstream_config(path, tensors) if released else _own_config(path, metadata["config"])
    if variant is not None and not same_variant(config, VARIANTS[variant]):
        names = [name for name, known in VARIANTS.items() if same_variant(config, known)]
        raise CheckpointError(f"{path}: holds {names[0] if names else 'a custom model'}, not {variant}")
    model = DMF(config)
    state = model.state_dict()
    entries = upstream_entries(state) if released else {k: (k, list(v.shape)) for k, v in state.items()}
    check_entries(path, tensors, dict(entries.values()))
    model.load_state_dict(state | {k: tensors[name].reshape(state[k].shape) for k, (name, _) in entries.items()})
    return model.eval()


def checkpoint_classes(path: str | Path) -> tuple[str, ...] | None:
    """The names of the classes, where the checkpoint was trained by `dmf-train`. Raises `CheckpointError`."""
    metadata = read_tensors(Path(path))[1]
    return tuple(json.loads(metadata["classes"])) if "classes" in metadata else None


def write_tensors(
    tensors: Mapping[str, Tensor], config: dict[str, Any], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """For `save_checkpoint`, of any network that has a config."""
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: a checkpoint is saved as .safetensors")
    plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    partial = path.with_name(path.name + ".partial")
    try:
        save_file(plain, partial, {**(metadata or {}), "config": json.dumps(config)})
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file in either container."""
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 (not a dict)
                return _without_prefix(tensors), file.metadata() or {}
        except (SafetensorError, OSError, ValueError) as error:
            raise _damaged(path, error) from error
    try:
        # training scripts store their parsed arguments beside the weights; a Namespace holds values and runs nothing
        with torch.serialization.safe_globals([argparse.Namespace]):
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: not a plain file of weights (it is damaged, or would run code when loaded, which is never done)"
        ) from error
    except Exception as error:  # on a damaged file torch raises whatever its parser stumbles over
        raise _damaged(path, error) from error
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a state dict")
    if strange := [str(k) for k, v in content.items() if not isinstance(v, Tensor)]:
        raise CheckpointError(f"{path}: not tensors: {_some(strange)}")
    return _without_prefix({str(k): v for k, v in content.items()}), {}


def _damaged(path: Path, error: Exception) -> CheckpointError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return CheckpointError(f"{path}: damaged or not a checkpoint: {reason}")


def _without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the `module.` of data-parallel training, where every key has it."""
    if all(key.startswith("module.") for key in tensors):
        return {key.removeprefix("module."): value for key, value in tensors.items()}
    return tensors


def _own_config(path: Path, config: str) -> DMFConfig:
    try:
        return DMFConfig.from_dict(json.loads(config))
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _upstream_config(path: Path, tensors: Mapping[str, Tensor]) -> DMFConfig:
    """The config of a state dict in the released code's layout, known by the width of its stem."""
    if missing := [key for key in ("stem.conv.weight", "head.fc2.bias") if key not in tensors]:
        raise CheckpointError(
            f"{path}: neither this project's layout (no config) nor the released code's (no {', '.join(missing)})"
        )
    stem, classes = list(tensors["stem.conv.weight"].shape), tensors["head.fc2.bias"].numel()
    for known in VARIANTS.values():
        if stem[:1] == [known.stem_channels]:
            return replace(known, num_classes=max(classes, 1), grn="spatial")
    raise CheckpointError(f"{path}: stem.conv.weight is {stem}, as no variant's ({', '.join(VARIANTS)})")


def upstream_entries(state: Mapping[str, Tensor]) -> dict[str, tuple[str, list[int]]]:
    """For every key here, key and shape in the released code, which anneals the temperature outside the state dict."""
    entries = {}
    for key, value in state.items():
        name = key
        for pattern, replacement in UPSTREAM_NAMES:
            name = re.sub(pattern, replacement, name)
        if not key.endswith(".kernel_attention.temperature"):
            one_by_one = [1, 1] if ".kernel_attention.net" in key else []  # convolutions there, linear layers here
            entries[key] = (name, [*value.shape, *one_by_one])
    return entries


def check_entries(path: Path, found: Mapping[str, Tensor], wanted: Mapping[str, list[int]]) -> None:
    """`wanted` are shapes. Everything wrong is listed, by the file's own keys."""
    faults = []
    if missing := [k for k in wanted if k not in found]:
        faults.append(f"missing {_some(missing)}")
    if surplus := [k for k in found if k not in wanted]:
        faults.append(f"surplus {_some(surplus)}")
    misshapen = [k for k in wanted if k in found and list(found[k].shape) != wanted[k]]
    if misshapen:
        shapes = [f"{k} {list(found[k].shape)} (should be {wanted[k]})" for k in misshapen]
        faults.append(f"misshapen {_some(shapes)}")
    if broken := [k for k, v in found.items() if v.is_floating_point() and not v.isfinite().all()]:
        faults.append(f"not finite (NaN or infinite) {_some(broken)}")
    if faults:
        raise CheckpointError(f"{path}: " + "; ".join(faults))


def same_variant(a: DMFConfig, b: DMFConfig) -> bool:
    return all(getattr(a, f.name) == getattr(b, f.name) for f in fields(DMFConfig) if f.name not in FREE_FIELDS)


def _some(names: list[str]) -> str:
    """All of a short list, the beginning of a long one."""
    shown = ", ".join(names[:20])
    return shown if len(names) <= 20 else f"{shown} and {len(names) - 20} more"
