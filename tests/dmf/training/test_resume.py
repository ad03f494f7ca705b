"""A run that is interrupted, wherever, ends with the bits of one that is not."""

import copy
import os
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from tiny_run import ALONE, same_bits, tiny_config, tiny_splits, tiny_trainer, to_end, write_folder

from dmf.training import run, state
from dmf.training.loop import Trainer
from runtime.errors import UsageError

COUNT = 72
TIMES = {"images_per_second", "seconds", "epoch_seconds"}
# augmentation, stochastic depth and dropout, two sizes, accumulation: all that is drawn at random or carried along
DRAWN = {
    "model": {"dropout": 0.3, "drop_path": 0.3},
    "augment": {"crop_scale": [0.5, 1.0], "flip": 0.5, "invert": 0.3, "erase": 0.1},
    "sampler": {"batch_size": 16, "accumulate": 2, "sizes": [16, 24]},
    "run": {"checkpoint_steps": 1},
}


def without_times(value):
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in TIMES}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def weights(trained):
    return {k: trained[k] for k in ("model", "average", "optimizer")}


@pytest.fixture(scope="module")
def uninterrupted():
    """Every checkpoint of a run, and the state it ends with."""
    trainer, kept = tiny_trainer(COUNT, **DRAWN), []
    to_end(trainer, lambda: kept.append(copy.deepcopy(trainer.state())))
    return kept, trainer.state()


def test_every_checkpoint_leads_to_the_same_end(uninterrupted, scratch):
    checkpoints, end = uninterrupted
    places = [(c["position"]["epoch"], c["position"]["step"]) for c in checkpoints]
    for place in ((0, 1), (1, 0), (1, 2), (2, 3)):
        checkpoint = checkpoints[places.index(place)]
        state.save(scratch / "state.pt", checkpoint)
        trainer = tiny_trainer(COUNT, **DRAWN)
        torch.manual_seed(0)  # nothing depends on what was drawn before
        torch.rand(7)
        trainer.resume(state.load(scratch / "state.pt"))
        found = to_end(trainer).state()
        assert same_bits(weights(found), weights(end))
        for part in ("position", "history", "skipped"):
            assert without_times(found[part]) == without_times(end[part])


@pytest.mark.parametrize("forgotten", ["optimizer", "average", "step"])
def test_all_of_the_state_is_needed(forgotten, uninterrupted):
    checkpoints, end = uninterrupted
    middle = next(c for c in checkpoints if c["position"]["step"] and c["position"]["epoch"])
    trainer, fresh = tiny_trainer(COUNT, **DRAWN), tiny_trainer(COUNT, **DRAWN).state()
    changed = copy.deepcopy(middle)
    if forgotten == "step":
        changed["position"]["step"] = 0
    else:
        changed[forgotten] = fresh[forgotten]
    trainer.resume(changed)
    assert not same_bits(weights(to_end(trainer).state()), weights(end))


def test_the_seed_decides_everything(uninterrupted):
    _, end = uninterrupted
    assert same_bits(weights(to_end(tiny_trainer(COUNT, **DRAWN)).state()), weights(end))
    other = to_end(tiny_trainer(COUNT, **DRAWN | {"run": {"seed": 6}})).state()
    assert not same_bits(weights(other), weights(end))


def test_another_config_or_data_set_is_refused(uninterrupted):
    checkpoint = uninterrupted[0][0]
    with pytest.raises(UsageError, match=r"^the checkpoint is of another config: optimizer.lr \(0.005, now 0.1\)$"):
        tiny_trainer(COUNT, **DRAWN | {"optimizer": {"lr": 0.1}}).resume(checkpoint)
    with pytest.raises(UsageError, match=r"^the checkpoint is of another data set: its pictures are \[72, 36\]"):
        tiny_trainer(48, **DRAWN).resume(checkpoint)
    splits = tiny_splits(COUNT)
    splits.train.classes = tuple("abcdefghij")
    with pytest.raises(UsageError, match=r"^the checkpoint is of another data set: its classes are \['0', "):
        Trainer(tiny_config(**DRAWN), splits, ALONE).resume(checkpoint)


# SIGKILL while the nth checkpoint is written: half of the file is on the disk
KILLED = """
import os, signal, sys
from dmf.training import cli, state
count, save = 0, state.save
def half(number):
    os.ftruncate(number, os.fstat(number).st_size // 2)
    os.kill(os.getpid(), signal.SIGKILL)
def killing(path, content):
    global count
    count += 1
    if count == int(sys.argv[1]):
        os.fsync = half
    save(path, content)
state.save = killing
sys.exit(cli.main(sys.argv[2:]))
"""


def test_killed_in_the_middle_of_a_checkpoint_write(scratch):
    config = tiny_config(data=write_folder(scratch / "data", COUNT), **DRAWN)
    (scratch / "run.toml").write_text(config.to_toml())
    run.train(config, scratch / "whole", ALONE, resume=False, quiet=True)
    out = scratch / "killed"
    command = [sys.executable, "-c", KILLED, "7", str(scratch / "run.toml"), "--out", str(out), "--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    code = subprocess.run(command, env=environment, check=False, capture_output=True).returncode
    assert code == -signal.SIGKILL
    assert 0 < (out / "state.pt.partial").stat().st_size < (out / "state.pt").stat().st_size
    left = state.load(out / "state.pt")
    assert left["position"]["epoch"] == 1 and left["position"]["step"] and len(left["history"]) == 1
    run.train(config, out, ALONE, resume=True, quiet=True)
    whole, killed = (state.load(scratch / out / "state.pt") for out in ("whole", "killed"))
    assert same_bits(weights(killed), weights(whole))
    assert not same_bits(weights(left), weights(whole))
    models = [load_file(scratch / out / "model.safetensors") for out in ("whole", "killed")]
    assert same_bits(*models)
    rows = [(scratch / out / "metrics.csv").read_text().splitlines() for out in ("whole", "killed")]
    assert len(rows[0]) == len(rows[1]) == 4
    for a, b in zip(*rows, strict=True):
        assert a.split(",")[:10] == b.split(",")[:10]
    assert not (out / "state.pt.partial").exists()
