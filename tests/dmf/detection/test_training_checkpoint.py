"""The detector that comes with the package was trained as its metadata says, and is as good."""

import json

import pytest
import torch
from safetensors import safe_open

import dmf
from dmf.detection import DETECTORS, load_detector
from dmf.detection.data import Annotated
from dmf.detection.metrics import average_precision, found
from dmf.training.augment import normalize, to_tensor
from dmf.training.config import TrainingConfig, differences, read
from dmf.training.detection import load

PATH = dmf.pretrained("retinanet_dmf_nano")
SHIFT = torch.tensor([12.0, 0, 12, 0])  # px


@pytest.fixture(scope="module")
def summary():
    with safe_open(PATH, "pt") as file:
        return json.loads(file.metadata()["training"])


def test_it_is_small_and_names_its_classes():
    assert PATH.stat().st_size <= 5e6
    assert dmf.checkpoint_classes(PATH) == tuple("0123456789")
    with pytest.raises(dmf.CheckpointError):
        dmf.load_checkpoint(PATH)


def test_it_was_made_by_the_shipped_recipe_in_thirty_minutes(summary):
    assert differences(TrainingConfig.from_dict(summary["config"]), read("retinanet_dmf_nano_digits")) == []
    assert summary["seconds"] <= 30 * 60
    assert summary["device"] == "cpu, 2 cores"


@torch.no_grad()
def test_its_average_precision_is_what_it_says(summary):
    """Computed again picture by picture, without the trainer; with other labels or shifted boxes it is poor."""
    config = read("retinanet_dmf_nano_digits")
    heldout = load(config).heldout
    assert len(heldout) == summary["heldout_images"]
    detector = load_detector(PATH)
    assert detector.config.image_size == DETECTORS["retinanet_dmf_nano"].image_size
    results, shifted, truths = {}, {}, {}
    for i in range(len(heldout)):
        picture, target = heldout.example(i, torch.Generator())
        one = detector.detect(normalize(to_tensor(picture))[None])[0]
        about = Annotated(target, i, picture.height, picture.width, 1.0, 1.0)
        results[i], truths[i] = found(one, about), heldout.truth(i)
        shifted[i] = found(type(one)(one.boxes + SHIFT, one.scores, one.labels), about)
    measured = average_precision(results, truths, 10)
    for name in ("ap", "ap50", "ap75"):
        # sums in another order may swap two detections that are about equally sure
        assert getattr(measured, name) == pytest.approx(summary[f"heldout_{name}"], abs=2e-3)
    assert measured.ap50 >= 0.8
    assert average_precision(shifted, truths, 10).ap50 < 0.6
    turned = {i: one._replace(labels=(one.labels + 1) % 10) for i, one in results.items()}
    assert average_precision(turned, truths, 10).ap50 < 0.1
