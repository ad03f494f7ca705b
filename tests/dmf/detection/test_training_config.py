"""The detectors' run files: the paper's schedules, and what is refused."""

import pytest
import torch
from torch.optim.lr_scheduler import MultiStepLR

from dmf.detection import DETECTORS
from dmf.training.config import ScheduleConfig, differences, read
from dmf.training.detection_config import DetectionConfig
from dmf.training.schedule import learning_rate
from runtime.errors import UsageError

PAPER = {
    "retinanet_dmf_xxs_coco": ("retinanet_dmf_xxs", 12, (8, 11), (800,)),
    "retinanet_dmf_xs_coco": ("retinanet_dmf_xs", 12, (8, 11), (800,)),
    "retinanet_dmf_s_coco": ("retinanet_dmf_s", 12, (8, 11), (800,)),
    "mask_rcnn_dmf_s_coco_1x": ("mask_rcnn_dmf_s", 12, (8, 11), (800,)),
    "mask_rcnn_dmf_s_coco_3x": ("mask_rcnn_dmf_s", 36, (27, 33), tuple(range(480, 801, 32))),
}


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_schedules(name):
    config, (variant, epochs, milestones, sides) = read(name), PAPER[name]
    assert config.model.variant == variant
    assert config.model.network(80) == DETECTORS[variant]
    assert (config.schedule.epochs, config.schedule.milestones) == (epochs, milestones)
    assert (config.optimizer.lr, config.optimizer.weight_decay, config.sampler.batch_size) == (1e-4, 1e-4, 16)
    assert (config.augment.shorter_sides, config.augment.longer_side, config.augment.flip) == (sides, 1333, 0.5)
    assert config.ema.decay == 0 and config.schedule.temperature == 1
    assert config.schedule.warmup_epochs * 117266 / 16 == pytest.approx(500, rel=0.01)


def test_a_rate_that_falls_at_milestones():
    """As PyTorch's, which counts the epochs that are done before the step; and unlike a cosine."""
    schedule = ScheduleConfig(epochs=12, milestones=(8, 11))
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    theirs = MultiStepLR(optimizer, [8, 11], 0.1)
    for epoch in range(12):
        expected = theirs.get_last_lr()[0]
        for share in (0.01, 0.5, 1):
            assert learning_rate(schedule, 0.3, epoch + share) == pytest.approx(expected)
        optimizer.step()
        theirs.step()
    assert learning_rate(ScheduleConfig(epochs=12), 0.3, 4) != pytest.approx(0.3, rel=0.01)
    warm = ScheduleConfig(epochs=12, warmup_epochs=2.0, milestones=(8,))
    assert [learning_rate(warm, 0.3, t) for t in (1, 2, 8, 8.1)] == pytest.approx([0.15, 0.3, 0.3, 0.03])


def test_changes():
    config = read(
        "retinanet_dmf_nano_digits",
        ["model.image_size=[64, 96]", "model.fpn_channels=32", "augment.flip=0.5", "data.heldout_scenes=7"],
    )
    network = config.model.network(10)
    assert network.image_size == (64, 96) and network.fpn_channels == 32
    found = {line.partition(" ")[0] for line in differences(read("retinanet_dmf_nano_digits"), config)}
    assert found == {"model.image_size", "model.fpn_channels", "augment.flip", "data.heldout_scenes"}
    moved = read("retinanet_dmf_nano_digits", ["model.backbone_weights=elsewhere.pth"])
    assert moved.model.backbone_weights == "elsewhere.pth"
    assert differences(read("retinanet_dmf_nano_digits"), moved) == []
    fresh = read("retinanet_dmf_nano_digits").to_dict()
    del fresh["model"]["backbone_weights"]
    assert type(moved).from_dict(fresh).model.backbone_weights is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "model.variant=retinanet_dmf_nan",
            r"\[model\] variant is 'retinanet_dmf_nan'; known: .*; did you mean 'retinan",
        ),
        ("model.variant=3", r"\[model\] variant is 3; known: dmf_nano, .*mask_rcnn_dmf_s$"),
        ("model.num_classes=3", r"\[model\] num_classes is the data set's number of classes; leave it out"),
        ("model.head_conv=3", r"\[model\] has no field 'head_conv'; known: .*; did you mean 'head_convs'\?"),
        ("model.backbone=3", r"\[model\] has no field 'backbone'; known: "),
        ("model.backbone_weights=3", r"\[model\] backbone_weights is 3; it must be a checkpoint's path"),
        ("model.image_size=[64,100]", r"\[model\] image_size is 64 x 100; both must be multiples of 32"),
        ("data.name=digits", r"\[data\] name is 'digits'; it must be one of digit_scenes, coco"),
        ("data.name=coco", r"\[data\] name is 'coco', which needs path"),
        ("data.path=/x", r"\[data\] path is '/x', but name is 'digit_scenes'"),
        ("data.train_scenes=0", r"\[data\] train_scenes is 0; it must be a whole number, at least 1"),
        ("data.heldout_share=1", r"\[data\] heldout_share is 1.0; it must be above 0 and below 1"),
        ("augment.shorter_sides=[8,8]", r"\[augment\] shorter_sides is \[8, 8\]; it must be a list of different"),
        ("augment.erase=0.1", r"\[augment\] has no field 'erase'; known: shorter_sides"),
        ("sampler.sizes=[64]", r"\[sampler\] sizes are a classifier's; a detector's are \[augment\] shorter_sides"),
        ("sampler.accumulate=16", r"\[sampler\] batch_size 16 leaves fewer than 2 pictures in a batch"),
        ("optimizer.label_smoothing=0.1", r"\[optimizer\] label_smoothing is a classifier's; leave it out"),
        ("schedule.milestones=[4]", r"\[schedule\] milestones is \[4\]; each must be below epochs, .*final_lr"),
        ("schedule.milestones=[4,3]", r"\[schedule\] milestones is \[4, 3\]; it must be a list of increasing"),
        ("schedule.milestones=[0,3]", r"\[schedule\] milestones is \[0, 3\]; it must be a list of increasing"),
    ],
)
def test_refused(change, message):
    with pytest.raises(UsageError, match=f"^{message}") as caught:
        read("retinanet_dmf_nano_digits", [change])
    assert "\n" not in str(caught.value)


def test_stages_that_do_not_learn_need_weights():
    """Or random blocks would stay random."""
    table = read("retinanet_dmf_s_coco").to_dict()
    weights = table["model"].pop("backbone_weights")
    with pytest.raises(
        UsageError, match=r"does not train the first 2 stages .* give a checkpoint, or frozen_stages = 0"
    ):
        DetectionConfig.from_dict(table)
    table["model"]["frozen_stages"] = 0
    assert DetectionConfig.from_dict(table).model.backbone_weights is None
    assert weights


def test_milestones_beyond_the_end():
    with pytest.raises(UsageError, match=r"^\[schedule\] milestones is \[8, 12\]; each must be below epochs, 12"):
        read("retinanet_dmf_s_coco", ["schedule.milestones=[8, 12]"])
