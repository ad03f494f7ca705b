"""The first stages of a pretrained backbone, which don't learn."""

from itertools import pairwise

import pytest
import torch

from dmf.detection import Target, create_detector, load_backbone, save_detector

TARGET = Target(torch.tensor([[4.0, 6, 40, 50]]), torch.tensor([1]))


def part(name: str) -> str:
    """`blocks.3` for a block's entry, else the first part of its name."""
    names = name.removeprefix("backbone.").split(".")
    return ".".join(names[: 1 + (names[0] == "blocks")])


@pytest.mark.parametrize(("stages", "frozen"), [(0, 0), (1, 1), (2, 2), (3, 4), (4, 5)])
def test_a_training_step(stages, frozen, images):
    """dmf_nano's stages end with its blocks 0, 1, 3 and 4: those alone keep gradients and statistics away."""
    torch.manual_seed(0)
    detector = create_detector("retinanet_dmf_nano", frozen_stages=stages).train()
    before = {k: v.clone() for k, v in detector.state_dict().items()}
    total = sum(detector.loss(images(2).float(), [TARGET, TARGET]).values())
    total.backward()
    torch.optim.SGD([p for p in detector.parameters() if p.requires_grad], 0.1).step()
    untouched = {f"blocks.{i}" for i in range(frozen)}
    assert {part(name) for name, p in detector.named_parameters() if p.grad is None} == untouched
    still = {part(k) for k, v in detector.state_dict().items() if torch.equal(v, before[k])}
    moved = {part(k) for k, v in detector.state_dict().items() if not torch.equal(v, before[k])}
    assert untouched <= still and not untouched & moved
    assert {"stem", "lite_bottleneck", "fpn", *(f"blocks.{i}" for i in range(frozen, 5))} <= moved


def test_they_stay_in_eval_mode():
    detector = create_detector("retinanet_dmf_nano", frozen_stages=2).train()
    assert [block.training for block in detector.backbone.blocks] == [False, False, True, True, True]
    assert not detector.eval().backbone.blocks[4].training


def test_a_loaded_backbone_is_frozen_too(scratch):
    detector = create_detector("retinanet_dmf_nano", frozen_stages=2)
    save_detector(create_detector("mask_rcnn_dmf_nano"), scratch / "weights.safetensors")
    load_backbone(detector, scratch / "weights.safetensors")
    assert [p.requires_grad for p in detector.backbone.blocks[1].parameters()].count(True) == 0
    assert all(p.requires_grad for p in detector.backbone.blocks[2].parameters())


def test_each_stage_is_more():
    counts = [
        sum(p.requires_grad for p in create_detector("retinanet_dmf_nano", frozen_stages=i).parameters())
        for i in range(5)
    ]
    assert all(a > b for a, b in pairwise(counts))
