"""`DMFConfig` and `create_model`: what can't be built is refused, with the value that is wrong."""

import json
from dataclasses import FrozenInstanceError, replace

import pytest

import dmf
from dmf import VARIANTS, DMFConfig

REFUSED = [
    ({"block_channels": (12, 16)}, "block_channels has 2 entries for 5 blocks"),
    ({"cross_heads": (2,) * 6}, "cross_heads has 6 entries for 5 blocks"),
    ({"block_hidden": (), "block_channels": (), "cross_heads": ()}, "block_hidden is empty"),
    ({"routing": "tanh"}, "routing is 'tanh'; allowed: sigmoid, softmax"),
    ({"bank_init": "one"}, "bank_init is 'one'; allowed: zero, random"),
    ({"grn": "batch"}, "grn is 'batch'; allowed: channel, spatial"),
    ({"residual_kernel": False}, "residual_kernel=False needs bank_init='random'"),
    ({"image_size": 100}, "image_size is 100; it must be a positive multiple of 32"),
    ({"image_size": 0}, "image_size is 0; it must be a positive whole number"),
    ({"former_heads": 3}, "token_dim 64 is not a multiple of former_heads 3"),
    ({"former_heads": 0}, "former_heads is 0"),
    ({"cross_heads": (2, 2, 2, 2, 3)}, "40 channels can't be split into 3 cross-attention heads"),
    ({"cross_heads": (2, 2, 2, 2, 0)}, "cross_heads is .*; it must be a tuple of whole numbers, each at least 1"),
    ({"groups": 3}, "8 channels can't be split into 3 groups"),
    ({"groups": 0}, "groups is 0"),
    ({"block_hidden": (32, 48, 72, 96, 127)}, "127 channels can't be split into 2 groups"),
    ({"block_hidden": [32, 48, 72, 96, 128]}, "block_hidden is .*; it must be a tuple"),
    ({"downsample": (0, 1, 2, 5)}, "downsample is .*; it must name increasing indices of the 5 blocks"),
    ({"downsample": (0, 2, 1, 4)}, "increasing"),
    ({"downsample": (0, 1, 1, 4)}, "increasing"),
    ({"downsample": (-1, 1, 2, 4)}, "each at least 0"),
    ({"num_kernels": 0}, "num_kernels is 0"),
    ({"num_kernels": 2.5}, "num_kernels is 2.5; it must be a positive whole number"),
    ({"num_classes": 0}, "num_classes is 0"),
    ({"num_tokens": -1}, "num_tokens is -1"),
    ({"stem_channels": True}, "stem_channels is True"),
    ({"token_input": 1}, "token_input is 1; it must be True or False"),
    ({"dropout": 1.0}, "dropout is 1.0; it must be at least 0 and below 1"),
    ({"drop_path": -0.1}, "drop_path is -0.1"),
    ({"drop_path": "0.1"}, "drop_path is '0.1'; it must be a finite number"),
    ({"ffn_expansion": float("nan")}, "ffn_expansion is nan"),
    ({"ffn_expansion": 0}, "ffn_expansion is 0; it leaves no channel"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(VARIANTS["dmf_nano"], **changes)
    with pytest.raises(ValueError, match=message):
        dmf.create_model("dmf_nano", **changes)


@pytest.mark.parametrize("variant", VARIANTS)
def test_round_trip_through_json(variant):
    config = replace(VARIANTS[variant], grn="spatial", num_classes=7)
    text = json.dumps(config.to_dict())
    assert DMFConfig.from_dict(json.loads(text)) == config
    assert DMFConfig.from_dict(json.loads(text)) != VARIANTS[variant]


def test_from_dict_names_what_is_unknown_or_missing():
    values = VARIANTS["dmf_nano"].to_dict()
    with pytest.raises(ValueError, match=r"unknown config field\(s\) sigma, squeeze; known: .*block_hidden"):
        DMFConfig.from_dict({**values, "squeeze": 16, "sigma": 1})
    del values["stem_channels"], values["groups"]
    with pytest.raises(ValueError, match=r"incomplete config: .*stem_channels.*groups"):
        DMFConfig.from_dict(values)
    with pytest.raises(ValueError, match=r"not \[1\]"):
        DMFConfig.from_dict([1])


def test_frozen():
    with pytest.raises(FrozenInstanceError):
        VARIANTS["dmf_nano"].groups = 1


def test_stride_and_feature_blocks():
    assert VARIANTS["dmf_xxs"].feature_blocks == (1, 3, 7, 10)
    assert VARIANTS["dmf_nano"].feature_blocks == (0, 1, 3, 4)
    assert {config.stride for config in VARIANTS.values()} == {32}
    assert replace(VARIANTS["dmf_nano"], downsample=(0, 2)).stride == 8


def test_create_model():
    model = dmf.create_model("dmf_nano", num_classes=3, grn="spatial")
    assert model.config == replace(VARIANTS["dmf_nano"], num_classes=3, grn="spatial")
    with pytest.raises(ValueError, match="unknown variant 'dmf_m'; known: dmf_nano, dmf_xxs, dmf_xs, dmf_s"):
        dmf.create_model("dmf_m")
    with pytest.raises(ValueError, match=r"unknown config field\(s\) classes, kernels; known: .*num_classes"):
        dmf.create_model("dmf_nano", kernels=4, classes=3)
