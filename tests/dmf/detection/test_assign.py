"""Matching against loops; sampling by its counts."""

import pytest
import slow_detection as slow
import torch

from dmf.detection import assign as module
from dmf.detection.assign import BOX_HEAD, IGNORED, NOTHING, RETINANET, RPN, assign, sample

RULES = {"retinanet": RETINANET, "rpn": RPN, "box head": BOX_HEAD}


@pytest.fixture
def scene():
    """Anchors on a grid, some of them twice, and objects: tiny, large, one exactly an anchor, two of one place."""
    generator = torch.Generator().manual_seed(0)
    grid = torch.tensor(slow.anchors(64, 64, 16, 2, (1.0, 1.5)), dtype=torch.float64)
    boxes = torch.cat([slow.random_boxes(12, 64, generator), grid[20:21], grid[31:32] + 1])
    boxes = torch.cat([boxes, boxes[:2], boxes[12:14], torch.tensor([[0, 0, 0.5, 0.5]])])
    return torch.cat([grid, grid[:10]]), boxes


def expected(candidates, boxes, rule):
    return slow.assign(candidates.tolist(), boxes.tolist(), rule.positive, rule.negative, rule.forced)


@pytest.mark.parametrize("name", RULES)
def test_assign(scene, name):
    rule = RULES[name]
    found = assign(*scene, rule).tolist()
    assert found == expected(*scene, rule)
    assert NOTHING in found and max(found) >= 0
    assert (IGNORED in found) == (rule.positive > rule.negative)
    assert found != expected(scene[0], scene[1].flip(0), rule)


@pytest.mark.parametrize("name", RULES)
def test_in_pieces(scene, name, monkeypatch):
    """With memory for two objects at a time, the same."""
    whole = assign(*scene, RULES[name])
    monkeypatch.setattr(module, "OVERLAPS", 2 * len(scene[0]))
    assert torch.equal(assign(*scene, RULES[name]), whole)


def test_forcing_finds_small_objects(scene):
    tiny = scene[1][-1:]
    assert (assign(scene[0], tiny, RETINANET) >= 0).any()
    assert not (assign(scene[0], tiny, RPN) >= 0).any()  # overlapped by less than 0.3
    assert not (assign(scene[0], tiny, BOX_HEAD) >= 0).any()


@pytest.mark.parametrize("name", RULES)
def test_no_objects(scene, name):
    assert set(assign(scene[0], torch.zeros(0, 4).double(), RULES[name]).tolist()) == {NOTHING}
    assert assign(torch.zeros(0, 4).double(), scene[1], RULES[name]).tolist() == []


@pytest.mark.parametrize("name", RULES)
def test_objects_without_area_or_out_of_sight_are_nobodys(scene, name):
    flat = torch.tensor([[5.0, 5, 5, 5], [0, 9, 60, 9], [5000, 5000, 5050, 5050]]).double()
    assert set(assign(scene[0], flat, RULES[name]).tolist()) == {NOTHING}


def test_thousands_of_objects():
    generator = torch.Generator().manual_seed(0)
    grid = torch.tensor(slow.anchors(256, 256, 8, 2, (1.0,)), dtype=torch.float64)
    boxes = slow.random_boxes(6000, 256, generator)
    found = assign(grid, boxes, BOX_HEAD)
    some = torch.randperm(len(grid), generator=generator)[:20]
    assert found[some].tolist() == expected(grid[some], boxes, BOX_HEAD)
    assert 0 < (found[some] >= 0).sum() < 20


def test_sample():
    assigned = torch.tensor([3, NOTHING, IGNORED, 0, NOTHING, 1, NOTHING, IGNORED, NOTHING] * 10)
    torch.manual_seed(0)
    positive, negative = sample(assigned, 20, 0.25)
    assert len(positive) == 5 and len(negative) == 15
    assert (assigned[positive] >= 0).all() and (assigned[negative] == NOTHING).all()
    assert len(set(positive.tolist())) == 5 and len(set(negative.tolist())) == 15
    assert not torch.equal(sample(assigned, 20, 0.25)[0], positive)  # another choice


def test_sample_of_few():
    few = torch.tensor([NOTHING, 2, IGNORED, NOTHING])
    assert [x.tolist() for x in sample(few, 100, 0.5)] == [[1], [0, 3]]
    positive, negative = sample(few, 1, 0.5)  # half of one is none
    assert len(positive) == 0 and len(negative) == 1
