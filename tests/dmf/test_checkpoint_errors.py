"""Checkpoints that must not load: each fault is a `CheckpointError` that names the file and the fault."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from released_layout import WIDTHS, random_state
from safetensors.torch import load_file, save_file

import dmf

STATE = random_state(WIDTHS["dmf_nano"], seed=0)
NET1 = "blocks.2.dynamic_mobile.dw_conv.Kernel_Attention.net1.weight"
BN = "blocks.1.ffn.bn3.weight"


def without(*keys: str) -> dict:
    return {key: value for key, value in STATE.items() if key not in keys}


def message(path: Path, variant: str | None = None) -> str:
    with pytest.raises(dmf.CheckpointError) as caught:
        dmf.load_checkpoint(path, variant)
    assert str(path) in str(caught.value)
    return str(caught.value)


def message_for(state: object, folder: Path, variant: str | None = None) -> str:
    torch.save(state, folder / "weights.pth")
    return message(folder / "weights.pth", variant)


def test_unharmed_state_loads(scratch):
    torch.save(STATE, scratch / "weights.pth")
    dmf.load_checkpoint(scratch / "weights.pth")


# released code -> what the error must say
STATES = {
    "missing": (without(BN, "tokens"), ["missing tokens, " + BN]),
    "missing bank": (without("channel_conv.weight"), ["missing channel_conv.weight"]),
    "missing statistic": (without("bn.running_var"), ["missing bn.running_var"]),
    "missing stem": (without("stem.conv.weight"), ["no stem.conv.weight"]),
    "missing head": (without("head.fc2.bias"), ["no head.fc2.bias"]),
    "surplus": ({**STATE, "blocks.5.norm.weight": torch.ones(1)}, ["surplus blocks.5.norm.weight"]),
    "surplus, this project's name": ({**STATE, "end_bn.weight": STATE["bn.weight"]}, ["surplus end_bn.weight"]),
    "surplus, half a prefix": ({**STATE, "module.tokens": STATE["tokens"]}, ["surplus module.tokens"]),
    "surplus temperature": (
        {**STATE, "channel_conv.Kernel_Attention.temperature": torch.tensor(30.0)},
        ["surplus channel_conv.Kernel_Attention.temperature"],
    ),
    "misshapen": (
        {**STATE, BN: torch.ones(15), NET1: torch.zeros(64, 68, 2, 1)},
        [f"{BN} [15] (should be [16])", f"{NET1} [64, 68, 2, 1] (should be [64, 136, 1, 1])"],
    ),
    "misshapen scalar": ({**STATE, NET1: torch.tensor(0.0)}, [f"misshapen {NET1} []"]),
    "misshapen bank": ({**STATE, "channel_conv.weight": torch.zeros(160, 40, 1, 1)}, ["channel_conv.weight [160, 40"]),
    "misshapen head": ({**STATE, "head.fc2.bias": torch.tensor(0.0)}, ["head.fc2.bias [] (should be [1])"]),
    "all at once": (
        {**without("tokens"), BN: torch.ones(15), "more": torch.ones(1)},
        ["missing tokens", "surplus more", f"misshapen {BN}"],
    ),
    "NaN": ({**STATE, BN: torch.full((16,), torch.nan)}, ["not finite", BN]),
    "infinite": ({**STATE, "bn.running_var": torch.full((160,), torch.inf)}, ["not finite", "bn.running_var"]),
    "stem of no variant": ({**STATE, "stem.conv.weight": torch.zeros(13, 3, 3, 3)}, ["[13, 3, 3, 3]", "dmf_xxs"]),
    "nothing in it": ({}, ["no stem.conv.weight, head.fc2.bias"]),
    "not tensors": ({**STATE, "epoch": 3}, ["not tensors: epoch"]),
    "a list": ([1, 2], ["holds a list, not a state dict"]),
    "a tensor": (torch.ones(3), ["holds a Tensor, not a state dict"]),
}


@pytest.mark.parametrize("fault", STATES)
def test_state(fault, scratch):
    state, parts = STATES[fault]
    found = message_for(state, scratch)
    for part in parts:
        assert part in found


def test_a_long_list_is_cut(scratch):
    found = message_for({**STATE, **{f"more{k}": torch.ones(1) for k in range(25)}}, scratch)
    assert "more19 and 5 more" in found
    assert "more20" not in found


def test_another_variant(scratch):
    found = message_for(STATE, scratch, "dmf_xs")
    assert "holds dmf_nano, not dmf_xs" in found
    assert "misshapen" not in found
    dmf.save_checkpoint(dmf.create_model("dmf_nano"), scratch / "own.safetensors")
    assert "holds dmf_nano, not dmf_s" in message(scratch / "own.safetensors", "dmf_s")
    dmf.save_checkpoint(dmf.create_model("dmf_nano", former_heads=4), scratch / "custom.safetensors")
    assert "holds a custom model, not dmf_nano" in message(scratch / "custom.safetensors", "dmf_nano")
    with pytest.raises(dmf.CheckpointError, match=r"unknown variant 'dmf_xl'; known: dmf_nano, dmf_xxs"):
        dmf.load_checkpoint(scratch / "own.safetensors", "dmf_xl")
    dmf.load_checkpoint(scratch / "own.safetensors", "dmf_nano")


def test_no_file_and_a_folder(scratch):
    assert "no such checkpoint file" in message(scratch / "none.pth")
    assert "no such checkpoint file" in message(scratch)
    (scratch / "folder.safetensors").mkdir()
    assert "no such checkpoint file" in message(scratch / "folder.safetensors")


class Executed:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", ["zip", "legacy", "bare pickle"])
def test_code_in_a_pickle_is_not_run(protocol, scratch):
    path, trace = scratch / "weights.pth", scratch / "trace"
    content = {"model": STATE, "args": Executed(trace)}
    if protocol == "bare pickle":
        path.write_bytes(pickle.dumps(Executed(trace), protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=protocol == "zip")
    assert "would run code" in message(path)
    assert not trace.exists()
    if protocol == "bare pickle":  # it would have
        pickle.loads(path.read_bytes())
        assert trace.is_dir()


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated(kind, scratch):
    """Cut anywhere, the headers included."""
    small = {"stem.conv.weight": STATE["stem.conv.weight"], "head.fc2.bias": STATE["head.fc2.bias"]}
    path = scratch / ("weights.safetensors" if kind == "safetensors" else "weights.pth")
    if kind == "safetensors":
        save_file(small, path)
    else:
        torch.save(small, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    assert "missing tokens" in message(path)  # read, and found wanting
    for size in range(0, len(whole) - 1, max(len(whole) // 60, 1)):
        path.write_bytes(whole[:size])
        found = message(path)
        assert "damaged" in found
        assert "missing tokens" not in found


def own(folder: Path, **changes: object) -> Path:
    """A file of this project with these config fields changed (None: left out) behind its back."""
    path = folder / "own.safetensors"
    model = dmf.create_model("dmf_nano")
    dmf.save_checkpoint(model, path)
    config = {k: v for k, v in {**model.config.to_dict(), **changes}.items() if v is not None}
    save_file(load_file(path), path, {"config": json.dumps(config)})
    return path


CONFIGS = {
    "unknown": ({"squeeze": 16}, "unknown config field(s) squeeze"),
    "missing": ({"groups": None}, "groups"),
    "wrong type": ({"groups": "2"}, "groups is '2'"),
    "zero": ({"former_heads": 0}, "former_heads is 0"),
    "impossible": ({"grn": "batch"}, "grn is 'batch'; allowed: channel, spatial"),
    "other widths": ({"head_hidden": 100}, "head.fc1.weight [128, 224] (should be [100, 224])"),
}


@pytest.mark.parametrize("fault", CONFIGS)
def test_config(fault, scratch):
    changes, part = CONFIGS[fault]
    assert part in message(own(scratch, **changes))


def test_unchanged_config_loads(scratch):
    dmf.load_checkpoint(own(scratch))


@pytest.mark.parametrize("config", ["{", "[]", "5", '"dmf_xxs"', "null"])
def test_config_that_is_none(config, scratch):
    save_file(STATE, scratch / "weights.safetensors", {"config": config})
    message(scratch / "weights.safetensors")


@pytest.mark.parametrize("fault", ["missing", "surplus", "misshapen", "not finite"])
def test_own_state(fault, scratch):
    path = own(scratch)
    state = load_file(path)
    key = "end_conv.kernel_attention.temperature"
    if fault == "missing":
        del state[key]
    elif fault == "surplus":
        key = "blocks.0.bias"
        state[key] = torch.ones(1)
    else:
        state[key] = torch.tensor([1.0]) if fault == "misshapen" else torch.tensor(torch.nan)
    config = json.dumps(dmf.VARIANTS["dmf_nano"].to_dict())
    save_file(state, path, {"config": config})
    found = message(path)
    assert fault in found
    assert key in found
