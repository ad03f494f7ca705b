"""Annotations are checked where they are made."""

import pytest
import torch

from dmf.detection import Detections, Target

BOXES, LABELS = torch.tensor([[1.0, 2, 3, 4], [5, 5, 5, 9]]), torch.tensor([0, 3])
BAD = {
    "three numbers a box": (BOXES[:, :3], LABELS, None, r"boxes are \(2, 3\) of float32; they must be \(N, 4\)"),
    "whole numbers": (BOXES.long(), LABELS, None, r"boxes are \(2, 4\) of int64; they must be .* floating type"),
    "labels missing": (BOXES, LABELS[:1], None, r"labels are \(1,\) of int64; they must be \(2,\) of int64"),
    "float labels": (BOXES, LABELS.float(), None, r"labels are \(2,\) of float32"),
    "negative label": (BOXES, -LABELS, None, "a label is -3; labels count from 0"),
    "corners swapped": (BOXES[:, [2, 1, 0, 3]], LABELS, None, r"box 0 is \[3.0, 2.0, 1.0, 4.0\]; it must be finite"),
    "not finite": (BOXES / torch.tensor([[1.0], [0]]), LABELS, None, r"box 1 is \[inf"),
    "float masks": (BOXES, LABELS, torch.zeros(2, 8, 8), r"masks are \(2, 8, 8\) of float32; they must be \(2, H, W\)"),
    "masks missing": (BOXES, LABELS, torch.zeros(1, 8, 8, dtype=torch.bool), r"masks are \(1, 8, 8\) of bool"),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_targets(fault):
    boxes, labels, masks, message = BAD[fault]
    with pytest.raises(ValueError, match=message):
        Target(boxes, labels, masks)


def test_good_targets():
    """A box without area is one too, and so is no box."""
    Target(BOXES, LABELS)
    Target(BOXES, LABELS, torch.zeros(2, 8, 8, dtype=torch.bool))
    Target(BOXES[:0], LABELS[:0], torch.zeros(0, 8, 8, dtype=torch.bool))


def test_to():
    target = Target(BOXES, LABELS, torch.eye(8).expand(2, 8, 8).bool()).to("cpu")
    assert torch.equal(target.boxes, BOXES) and torch.equal(target.labels, LABELS)
    assert target.masks is not None and int(target.masks.sum()) == 16
    assert Target(BOXES, LABELS).to("cpu").masks is None


def test_number_of_detections():
    assert len(Detections(BOXES, torch.ones(2), LABELS)) == 2
