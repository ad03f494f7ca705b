"""Pasting against loops over single pixels; cropping in closed form; there and back."""

import pytest
import slow_detection as slow
import torch

from dmf.detection import masks as module
from dmf.detection.masks import binary_masks, crop_masks, paste_masks

BOXES = torch.tensor([[3.2, 4.7, 20.1, 15.3], [-6, -5, 9, 8], [18, 10, 40, 33], [0, 0, 30, 24], [9, 9, 10, 10]])


@pytest.fixture
def grids():
    return torch.rand(5, 7, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_paste(grids):
    found = paste_masks(grids, BOXES.double(), 24, 30)
    expected = torch.stack([slow.paste(g, b, 24, 30) for g, b in zip(grids, BOXES.double().tolist(), strict=True)])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    turned = paste_masks(grids.transpose(1, 2), BOXES.double(), 24, 30)
    assert (turned - expected).abs().max() > 0.1


def test_paste_is_grid_samples(grids):
    """mmdetection's and torchvision's form of it."""
    y, x = torch.meshgrid(torch.arange(24) + 0.5, torch.arange(30) + 0.5, indexing="ij")
    at = torch.stack([x, y], -1).double()[None]
    corner, end = BOXES[:, None, None, :2].double(), BOXES[:, None, None, 2:].double()
    grid = (at - corner) / (end - corner) * 2 - 1
    expected = torch.nn.functional.grid_sample(grids[:, None], grid, align_corners=False)[:, 0]
    torch.testing.assert_close(paste_masks(grids, BOXES.double(), 24, 30), expected, rtol=0, atol=1e-10)


def test_a_full_grid_fills_its_box():
    boxes = torch.tensor([[4.0, 6, 20, 14]])
    found = binary_masks(torch.ones(1, 28, 28), boxes, 24, 30)
    expected = torch.zeros(1, 24, 30, dtype=torch.bool)
    expected[0, 6:14, 4:20] = True
    assert torch.equal(found, expected)
    assert not torch.equal(binary_masks(torch.ones(1, 28, 28), boxes + 1, 24, 30), expected)


def test_paste_of_boxes_without_area_or_out_of_sight(grids):
    flat = torch.tensor([[5.0, 5, 5, 5], [3, 4, 3, 9], [2, 6, 9, 6], [-50, -50, -40, -40], [500, 5, 510, 9]])
    found = paste_masks(grids, flat.double(), 24, 30)
    assert found.isfinite().all() and not (found >= 0.5).any()


def test_binary_masks_in_pieces(grids, monkeypatch):
    whole = binary_masks(grids, BOXES.double(), 24, 30)
    assert whole.dtype == torch.bool and whole.any() and not whole.all()
    monkeypatch.setattr(module, "PASTED_AT_ONCE", 2 * 24 * 30)
    assert torch.equal(binary_masks(grids, BOXES.double(), 24, 30), whole)
    assert binary_masks(grids[:0], BOXES[:0].double(), 24, 30).shape == (0, 24, 30)


def test_crop_of_a_rectangle():
    """A box twice as wide as the object to its left: the left half is set."""
    masks = torch.zeros(2, 40, 60, dtype=torch.bool)
    masks[1, 8:22, 10:24] = True
    boxes, owner = torch.tensor([[10.0, 8, 38, 22], [10, 8, 24, 22]]), torch.tensor([1, 1])
    found = crop_masks(masks, boxes, owner, 14)
    assert found.dtype == torch.float32
    assert (found[0, :, :7] == 1).all() and (found[0, :, 7:] == 0).all() and (found[1] == 1).all()
    assert (crop_masks(masks, boxes, torch.tensor([0, 0]), 14) == 0).all()


def test_there_and_back():
    """An ellipse cropped to 28 x 28 and pasted again is the ellipse, but for pixels of its edge."""
    y, x = torch.meshgrid(torch.arange(60) + 0.5, torch.arange(80) + 0.5, indexing="ij")
    ellipse = ((x - 40) / 25) ** 2 + ((y - 30) / 20) ** 2 < 1
    box, owner = torch.tensor([[15.0, 10, 65, 50]]), torch.zeros(1, dtype=torch.int64)
    back = binary_masks(crop_masks(ellipse[None], box, owner, 28), box, 60, 80)[0]
    assert (back & ellipse).sum() / (back | ellipse).sum() > 0.97
    shifted = binary_masks(crop_masks(ellipse[None], box, owner, 28), box + 3, 60, 80)[0]
    assert (shifted & ellipse).sum() / (shifted | ellipse).sum() < 0.9
