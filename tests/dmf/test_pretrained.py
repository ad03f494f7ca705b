"""The checkpoint that comes with the package was trained as its metadata says, and is as good."""

import json

import pytest
import torch
from safetensors import safe_open

import dmf
from dmf.training.augment import eval_transform
from dmf.training.config import TrainingConfig, read
from dmf.training.data import load

PATH = dmf.pretrained("dmf_nano")


@pytest.fixture(scope="module")
def summary():
    with safe_open(PATH, "pt") as file:
        return json.loads(file.metadata()["training"])


def test_it_is_small_and_names_its_classes():
    assert PATH.stat().st_size <= 3e6
    assert dmf.checkpoint_classes(PATH) == tuple("0123456789")
    assert dmf.pretrained("dmf_s") is None


def test_it_was_made_by_the_shipped_recipe_in_twenty_minutes(summary):
    assert TrainingConfig.from_dict(summary["config"]) == read("dmf_nano_digits")
    assert summary["seconds"] <= 20 * 60
    assert summary["device"] == "cpu, 2 cores"


@torch.no_grad()
def test_its_held_out_accuracy_is_what_it_says(summary):
    """Computed again picture by picture, without the trainer; with another picture's label it is chance."""
    heldout = load(read("dmf_nano_digits").data).heldout
    assert len(heldout) == summary["heldout_images"]
    model = dmf.load_checkpoint(PATH, "dmf_nano")
    pictures = torch.stack([eval_transform(heldout.picture(i), 64) for i in range(len(heldout))])
    predicted = torch.cat([model(part) for part in pictures.split(30)]).argmax(1)
    labels = torch.tensor(heldout.labels)
    correct = int((predicted == labels).sum())
    assert correct == summary["heldout_correct"]
    assert correct / len(labels) >= 0.985
    assert int((predicted == labels.roll(1)).sum()) < 0.3 * len(labels)
