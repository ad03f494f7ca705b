"""This project's own checkpoints: a round trip changes nothing, and a failed one leaves nothing."""

import json

import pytest
import torch
from safetensors import safe_open

import dmf
import dmf.checkpoint

CHANGES = {
    "plain": {},
    "pooled input only": {"token_input": False},
    "vanilla": {"residual_kernel": False, "bank_init": "random", "routing": "softmax", "num_kernels": 4},
    "released GRN": {"grn": "spatial"},
    "classes and size": {"num_classes": 7, "image_size": 96, "dropout": 0.0, "drop_path": 0.2},
    "tokens": {"num_tokens": 3, "former_heads": 4},
}


@pytest.mark.parametrize("changes", CHANGES)
def test_round_trip_is_exact(changes, nano, images, scratch):
    model = nano(seed=1, **CHANGES[changes])
    model.set_temperature(3.5)
    dmf.save_checkpoint(model, scratch / "weights.safetensors")
    loaded = dmf.load_checkpoint(scratch / "weights.safetensors")
    assert loaded.config == model.config
    assert all(getattr(loaded.config, field) == value for field, value in CHANGES[changes].items())
    assert not loaded.training
    before, after = model.state_dict(), loaded.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)
    batch = images(2, 96, 64).float()
    with torch.no_grad():
        logits = loaded(batch)
        assert torch.equal(logits, model(batch))
        loaded.set_temperature(1.0)
        assert not torch.equal(logits, loaded(batch))  # the temperature was restored too


def test_another_models_weights_differ(nano, images, scratch):
    dmf.save_checkpoint(nano(seed=1), scratch / "weights.safetensors")
    with torch.no_grad():
        assert not torch.equal(
            dmf.load_checkpoint(scratch / "weights.safetensors")(images().float()), nano(seed=2)(images().float())
        )


def test_metadata(nano, scratch):
    path = scratch / "weights.safetensors"
    dmf.save_checkpoint(nano(), path, {"epoch": "3", "config": "not this"})
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert metadata["epoch"] == "3"
    assert json.loads(metadata["config"]) == nano().config.to_dict()


def test_training_mode_is_not_saved(nano, scratch):
    dmf.save_checkpoint(nano().train(), scratch / "weights.safetensors")
    assert not any(module.training for module in dmf.load_checkpoint(scratch / "weights.safetensors").modules())


def test_a_failed_save_leaves_the_old_file_alone(nano, scratch, monkeypatch):
    path = scratch / "weights.safetensors"

    def fail(tensors, filename, metadata):
        assert filename.parent == path.parent  # a rename within one file system
        filename.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(dmf.checkpoint, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        dmf.save_checkpoint(nano(), path)
    assert list(scratch.iterdir()) == []
    monkeypatch.undo()
    dmf.save_checkpoint(nano(), path)
    old = path.read_bytes()
    monkeypatch.setattr(dmf.checkpoint, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        dmf.save_checkpoint(nano(seed=1), path)
    assert list(scratch.iterdir()) == [path]
    assert path.read_bytes() == old


def test_a_save_replaces_the_old_file(nano, scratch):
    path = scratch / "weights.safetensors"
    dmf.save_checkpoint(nano(seed=1), path)
    old = path.read_bytes()
    dmf.save_checkpoint(nano(seed=2), path)
    assert path.read_bytes() != old
    assert list(scratch.iterdir()) == [path]


def test_another_suffix_is_refused(nano, scratch):
    with pytest.raises(ValueError, match=r"weights\.pth: a checkpoint is saved as \.safetensors"):
        dmf.save_checkpoint(nano(), scratch / "weights.pth")
    assert list(scratch.iterdir()) == []
