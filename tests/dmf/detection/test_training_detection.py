"""A detector through the training loop: its loss, its measure, its resume, and what a run leaves behind."""

import copy
import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import dmf
from dmf.detection import Target, create_detector, load_detector
from dmf.detection.metrics import Found, average_precision
from dmf.dynamic_conv import KernelAttention
from dmf.training import cli, state
from dmf.training.augment import normalize, to_tensor
from dmf.training.config import TrainingConfig
from dmf.training.detection import begin_with, load
from dmf.training.distributed import Processes
from dmf.training.loop import NotFinite, Trainer, reseed
from dmf.training.sampler import loader
from runtime.errors import UsageError

ALONE = Processes(torch.device("cpu"))
SIZE = [64, 96]
SMALL = {
    "model": {
        "variant": "retinanet_dmf_nano",
        "image_size": SIZE,
        "fpn_channels": 8,
        "head_convs": 1,
        "score_threshold": 0.001,
    },
    "data": {"name": "digit_scenes", "train_scenes": 8, "heldout_scenes": 5},
    "sampler": {"batch_size": 4},
    "optimizer": {"lr": 1e-3, "weight_decay": 0.05, "clip": 5.0},
    "schedule": {"epochs": 2, "warmup_epochs": 0.5, "temperature": 3.0, "temperature_epochs": 1},
    "ema": {"decay": 0.5},
    "run": {"seed": 3, "checkpoint_steps": 1},
}


def small_config(**changes) -> TrainingConfig:
    """`section={field: value}` over `SMALL`."""
    return TrainingConfig.from_dict({name: SMALL.get(name, {}) | changes.get(name, {}) for name in SMALL | changes})


def small_trainer(**changes) -> Trainer:
    return Trainer(small_config(**changes), None, ALONE)


def to_end(trainer, checkpoint=lambda: None):
    trainer.run(checkpoint, lambda *_: None, lambda _: None)
    return trainer


def first_batch(trainer):
    trainer.batches.set_epoch(0)
    return next(iter(loader(trainer.splits.train, trainer.transform, trainer.batches, trainer.config.run.seed, 0)))


@pytest.fixture(scope="module")
def trained():
    """A whole run, and every checkpoint of it."""
    trainer, kept = small_trainer(), []
    to_end(trainer, lambda: kept.append(copy.deepcopy(trainer.state())))
    return trainer, kept


def test_a_step_is_the_sum_of_the_detectors_losses():
    trainer = small_trainer()
    images, known = first_batch(trainer)
    assert images.shape == (4, 3, *SIZE) and sum(len(one.target.boxes) for one in known) > 4
    reference = copy.deepcopy(trainer.model)
    reseed(3, 0, 0, 0)  # stochastic depth
    losses = reference.loss(images, [one.target for one in known])
    total = sum(losses.values())
    total.backward()
    summed, count = trainer.step(iter([(images, known)]), 1e-3)
    assert count == 4 and summed == pytest.approx(4 * total.item(), rel=1e-5)
    assert summed != pytest.approx(4 * losses["classes"].item(), rel=1e-2)
    norm = sum(p.grad.square().sum() for p in reference.parameters()).sqrt().item()
    for ours, theirs in zip(trainer.model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad * min(1, 5 / norm), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("variant", ["retinanet_dmf_nano", "mask_rcnn_dmf_nano"])
def test_every_parameter_has_a_gradient_even_without_objects(variant):
    """DistributedDataParallel waits for each of them."""
    values = small_config().to_dict() | {"model": {"variant": variant, "image_size": SIZE, "fpn_channels": 8}}
    trainer = Trainer(TrainingConfig.from_dict(values), None, ALONE)
    images, known = first_batch(trainer)
    nothing = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, *SIZE, dtype=torch.bool))
    total, _ = trainer.step(iter([(images, [one._replace(target=nothing) for one in known])]), 1e-3)
    assert np.isfinite(total)
    assert [name for name, p in trainer.model.named_parameters() if p.grad is None] == []


def test_it_learns_the_pictures_that_it_sees():
    """Always the same four, learnt by heart."""
    trainer = small_trainer(
        model={"fpn_channels": 32, "backbone_weights": "dmf_nano"},
        schedule={"epochs": 1, "warmup_epochs": 0.0, "temperature": 1.0, "temperature_epochs": 0},
    )
    heldout = trainer.splits.heldout
    samples = [heldout.sample(i, trainer.task.eval_transform, 0, torch.Generator()) for i in range(4)]
    batch = heldout.batch(samples)
    losses = []
    for step in range(30):
        trainer.at.step = step
        total, count = trainer.step(iter([batch]), 3e-3)
        losses.append(total / count)
    assert losses[-1] < 0.7 * losses[0]


def test_resumed_in_the_middle_it_ends_the_same(trained, tmp_path):
    trainer, kept = trained
    middle = next(c for c in kept if c["position"]["step"] and c["position"]["epoch"])
    state.save(tmp_path / "state.pt", middle)
    again = small_trainer()
    torch.rand(7)
    again.resume(state.load(tmp_path / "state.pt"))
    to_end(again)
    for name in ("model", "average"):
        ours, theirs = again.state()[name], trainer.state()[name]
        assert all(torch.equal(ours[k], theirs[k]) for k in theirs)
    before = again.state()["model"] | middle["model"]
    assert not all(torch.equal(before[k], v) for k, v in trainer.state()["model"].items())
    times = {"images_per_second", "seconds"}
    rows = [[{k: v for k, v in r.to_dict().items() if k not in times} for r in t.history] for t in (again, trainer)]
    np.testing.assert_equal(*rows)


def test_the_temperature_reaches_the_backbone():
    trainer = small_trainer()
    trainer.train_epoch(lambda: None, lambda *_: None)
    for network in (trainer.model, trainer.average.module):
        found = {float(m.temperature) for m in network.modules() if isinstance(m, KernelAttention)}
        assert found == {3.0}


def test_what_is_kept_is_as_good_as_it_says(trained):
    """Its average precision again, picture by picture, without transform, batches and trainer."""
    trainer, _ = trained
    network, heldout = trainer.average.module, trainer.splits.heldout
    guesses = {}
    for i in range(len(heldout)):
        image = normalize(to_tensor(heldout.example(i, torch.Generator())[0]))
        one = network.detect(image[None])[0]
        assert len(one)
        guesses[i] = Found(one.boxes.double().numpy(), one.scores.double().numpy(), one.labels.numpy(), None)
    truths = {i: heldout.truth(i) for i in guesses}
    row = trainer.history[-1]
    assert average_precision(guesses, truths, 10).ap == pytest.approx(row.heldout_ap, abs=1e-4)
    assert row.heldout_images == 5 and row.heldout_mask_ap is None
    perfect = {i: Found(t.boxes, np.ones(len(t.labels)), t.labels, None) for i, t in truths.items()}
    assert average_precision(perfect, truths, 10).ap > 0.99 > row.heldout_ap


def test_a_backbone_to_begin_with(tmp_path):
    detector = create_detector("retinanet_dmf_nano")
    begin_with(detector, "dmf_nano")
    theirs = dmf.load_checkpoint(dmf.pretrained("dmf_nano")).state_dict()
    ours = detector.backbone.state_dict()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours) and ours.keys() < theirs.keys()
    fresh = create_detector("retinanet_dmf_nano").backbone.state_dict()
    assert not all(torch.equal(ours[k], fresh[k]) for k in ours)
    for detector, weights, message in (
        ("retinanet_dmf_nano", "dmf_s", "dmf_s: no such checkpoint file"),
        ("retinanet_dmf_nano", str(tmp_path / "no.pth"), "no.pth: no such checkpoint file"),
        ("retinanet_dmf_xxs", "dmf_nano", "dmf_nano.safetensors: holds dmf_nano, the detector's backbone is dmf_xxs"),
    ):
        with pytest.raises(UsageError, match=rf"^\[model\] backbone_weights: .*{message}") as caught:
            begin_with(create_detector(detector), weights)
        assert "\n" not in str(caught.value)


def test_a_loss_that_is_not_finite():
    trainer = small_trainer()
    before = copy.deepcopy(trainer.model.state_dict())
    images, known = first_batch(trainer)
    with pytest.raises(NotFinite, match=r"^the loss is not finite$"):
        trainer.step(iter([(images * float("nan"), known)]), 1e-3)
    assert all(torch.equal(p, before[k]) for k, p in trainer.model.named_parameters())


@pytest.fixture
def coco_folder(tmp_path):
    """Two kinds of squares on noise, in pictures of several sizes: some without any, one crowd, one broken file."""
    rng = np.random.default_rng(0)
    for split, count in (("train2017", 8), ("val2017", 4)):
        (tmp_path / split).mkdir()
        images, annotations = [], []
        for i in range(count):
            height, width = 50 + 10 * (i % 3), 90
            pixels = rng.integers(0, 100, (height, width, 3), np.uint8)
            for k in range(i % 3):
                x, y, label = 5 + 40 * k, 10, int(rng.integers(2))
                pixels[y : y + 24, x : x + 30] = (255, 40, 40) if label else (40, 255, 40)
                polygon = [x, y, x + 30, y, x + 30, y + 24, x, y + 24]
                box = [x, y, 30, 24] if i != 4 else [x, y, 30, 0]
                annotations.append(
                    {"id": len(annotations), "image_id": i, "category_id": 3 + label, "bbox": box}
                    | {"area": 720, "iscrowd": int(i == 5), "segmentation": [polygon]}
                )
            images.append({"id": i, "file_name": f"{i}.png", "height": height, "width": width})
            Image.fromarray(pixels).save(tmp_path / split / f"{i}.png")
        if split == "train2017":
            path = tmp_path / split / "7.png"
            path.write_bytes(path.read_bytes()[:500])
        (tmp_path / "annotations").mkdir(exist_ok=True)
        content = {"images": images, "annotations": annotations}
        content["categories"] = [{"id": 3, "name": "green"}, {"id": 4, "name": "red"}]
        (tmp_path / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return tmp_path


@pytest.mark.parametrize("variant", ["retinanet_dmf_nano", "mask_rcnn_dmf_nano"])
def test_a_run_on_coco(variant, coco_folder, tmp_path, capfd):
    masks = variant.startswith("mask")
    narrow = {"box_hidden": 8, "mask_convs": 1} if masks else {"head_convs": 1}
    config = SMALL | {
        "model": {"variant": variant, "image_size": SIZE, "fpn_channels": 8, "score_threshold": 0.001, **narrow},
        "data": {"name": "coco", "path": str(coco_folder), "unreadable": "skip"},
        "augment": {"shorter_sides": [48, 64], "longer_side": 100, "flip": 0.5},
        "schedule": {"epochs": 2, "milestones": [1]},
        "run": {},
    }
    (tmp_path / "run.toml").write_text(TrainingConfig.from_dict(config).to_toml())
    out = tmp_path / "out"
    arguments = [str(tmp_path / "run.toml"), "--out", str(out), "--device", "cpu"]
    assert cli.main(arguments) == 0
    stdout, stderr = capfd.readouterr()
    summary = json.loads((out / "summary.json").read_text(), parse_constant=pytest.fail)  # no NaN
    assert summary["heldout_large"] is None
    assert json.loads(stdout) == {k: v for k, v in summary.items() if k != "config"}
    assert summary["heldout_images"] == 4 and summary["train_images"] == 8 and summary["unreadable_images"] == 1
    assert summary["degenerate_boxes"] == 1
    assert (summary["heldout_mask_ap"] is not None) == masks
    assert "7.png: not a whole image" in stderr and "held out AP " in stderr
    with (out / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["lr"]) for row in rows] == pytest.approx([1e-3, 1e-4])
    assert {path.name for path in out.iterdir()} >= {"curves.png", "tensorboard", "state.pt", "config.toml"}
    detector = load_detector(out / "model.safetensors")
    assert detector.config.num_classes == 2 and dmf.checkpoint_classes(out / "model.safetensors") == ("green", "red")
    assert cli.main([*arguments, "--quiet", "--resume"]) == 0  # a finished run: its results again
    assert json.loads(capfd.readouterr().out)["heldout_ap"] == summary["heldout_ap"]
    assert cli.main([*arguments, "--set", "data.unreadable=fail", "--quiet"]) == 2


def test_data_that_is_not_there(tmp_path):
    config = small_config(data={"name": "coco", "path": str(tmp_path)}, model={"image_size": SIZE})
    with pytest.raises(UsageError, match=r"train2017: no such folder; COCO's layout has"):
        load(config)
    with pytest.raises(UsageError, match=r"^scenes of 32 x 64 px are too small for digits"):
        load(small_config(model={"image_size": [32, 64]}))
    with pytest.raises(UsageError, match=r"^8 training pictures are fewer than one batch of 16"):
        small_trainer(sampler={"batch_size": 16})


def test_batch_norm_of_the_detector_is_joined():
    """By name and kind, as the classifier's: see test_distributed.py for what it computes."""
    from dmf.training.distributed import JointBatchNorm, join_batch_norms

    detector = create_detector("retinanet_dmf_nano")
    count = sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in detector.modules())
    join_batch_norms(detector, torch.device("cpu"))
    assert sum(isinstance(m, JointBatchNorm) for m in detector.modules()) == count > 10
