"""Anchors against loops, and against mmdetection's published numbers."""

import pytest
import slow_detection as slow
import torch

from dmf.detection.anchors import OCTAVE, anchors, base_anchors, level_sizes

RETINANET = (8, 16, 32, 64, 128)
# what mmdetection's own test of its RetinaNet expects at stride 8
PUBLISHED = [
    [-22.6274, -11.3137, 22.6274, 11.3137],
    [-28.5088, -14.2544, 28.5088, 14.2544],
    [-35.9188, -17.9594, 35.9188, 17.9594],
    [-16.0000, -16.0000, 16.0000, 16.0000],
    [-20.1587, -20.1587, 20.1587, 20.1587],
    [-25.3984, -25.3984, 25.3984, 25.3984],
    [-11.3137, -22.6274, 11.3137, 22.6274],
    [-14.2544, -28.5088, 14.2544, 28.5088],
    [-17.9594, -35.9188, 17.9594, 35.9188],
]


def test_base_anchors_are_mmdetections():
    expected = torch.tensor(PUBLISHED, dtype=torch.float64)
    torch.testing.assert_close(base_anchors(8, 4, OCTAVE), expected, rtol=0, atol=5e-5)
    assert (base_anchors(8, 4, OCTAVE)[[0, 3, 6, 1, 4, 7, 2, 5, 8]] - expected).abs().max() > 1  # the other order
    torch.testing.assert_close(base_anchors(16, 4, OCTAVE), 2 * base_anchors(8, 4, OCTAVE))


@pytest.mark.parametrize("size", [(64, 96), (32, 32), (160, 32)])
def test_anchors(size):
    levels = anchors(*size, RETINANET, 4, OCTAVE)
    assert [level.dtype for level in levels] == [torch.float64] * 5
    for stride, level in zip(RETINANET, levels, strict=True):
        expected = torch.tensor(slow.anchors(*size, stride, 4, OCTAVE), dtype=torch.float64)
        torch.testing.assert_close(level, expected, rtol=0, atol=1e-11)
    if size[0] != size[1]:
        assert not torch.equal(levels[0], anchors(*size[::-1], RETINANET, 4, OCTAVE)[0])


def test_number_at_the_papers_size():
    assert level_sizes(800, 1344, RETINANET) == [(100, 168), (50, 84), (25, 42), (13, 21), (7, 11)]
    assert sum(len(level) for level in anchors(800, 1344, RETINANET, 4, OCTAVE)) == 9 * 22_400
