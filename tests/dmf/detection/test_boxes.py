"""Overlap, encoding and suppression against loops over single boxes."""

import onnxruntime
import pytest
import slow_detection as slow
import torch
from onnx import TensorProto, helper

from dmf.detection import boxes as module
from dmf.detection.boxes import area, clip, decode, encode, iou, nms


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def test_iou(generator):
    a, b = slow.random_boxes(20, 50, generator), slow.random_boxes(30, 50, generator)
    expected = torch.tensor([[slow.iou(x, y) for y in b.tolist()] for x in a.tolist()], dtype=torch.float64)
    torch.testing.assert_close(iou(a, b), expected, rtol=1e-12, atol=0)
    assert (expected > 0).any() and (expected == 0).any()
    assert (iou(a[:, [1, 0, 2, 3]], b) - expected).abs().max() > 0.01  # x and y exchanged


def test_iou_by_hand():
    a = torch.tensor([[0.0, 0, 2, 2], [0, 0, 1, 1], [5, 5, 6, 6]])
    assert iou(a, torch.tensor([[1.0, 1, 3, 3]])).flatten().tolist() == pytest.approx([1 / 7, 0, 0])
    assert iou(a, a).diagonal().tolist() == [1, 1, 1]


def test_iou_of_boxes_without_area_is_zero():
    boxes = torch.tensor([[3.0, 3, 3, 3], [0, 0, 10, 10], [2, 2, 2, 8]])
    assert iou(boxes, boxes).tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_area():
    assert area(torch.tensor([[[1.0, 2, 4, 8]]])).tolist() == [[18]]


@pytest.mark.parametrize("scale", [(1, 1), (0.1, 0.2)])
def test_encode_and_decode(generator, scale):
    boxes, places = (slow.random_boxes(50, 100, generator) for _ in range(2))
    deltas = encode(boxes, places, scale)
    expected = slow.each(lambda box, place: slow.encode(box, place, scale), boxes, places)
    torch.testing.assert_close(deltas, expected, rtol=1e-9, atol=1e-9)
    moved = deltas + 0.3
    expected = slow.each(lambda delta, place: slow.decode(delta, place, scale), moved, places)
    torch.testing.assert_close(decode(moved, places, scale), expected, rtol=1e-9, atol=1e-9)
    near = (deltas[:, 2:] * scale[1]).abs().max(1).values < 4  # else decode limits the growth
    assert near.sum() > 40
    torch.testing.assert_close(decode(deltas, places, scale)[near], boxes[near], rtol=0, atol=1e-9)
    assert (decode(moved, places, scale) - boxes).abs().max() > 0.1


def test_decode_limits_the_growth():
    huge = decode(torch.tensor([[0.0, 0, 100, -100]]), torch.tensor([[0.0, 0, 16, 16]]))
    torch.testing.assert_close(huge, torch.tensor([[8 - 500, 8 - 0.128, 8 + 500, 8 + 0.128]]))


def test_clip():
    boxes = torch.tensor([[-5.0, -6, 7, 8], [3, 4, 50, 60], [-9, -9, -1, -1], [41, 31, 45, 39]])
    assert clip(boxes, 30, 40).tolist() == [[0, 0, 7, 8], [3, 4, 40, 30], [0, 0, 0, 0], [40, 30, 40, 30]]


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7])
def test_nms(generator, threshold, monkeypatch):
    boxes = slow.random_boxes(200, 60, generator, smallest=15)
    scores = torch.randint(50, (200,), generator=generator) / 50  # with ties
    groups = torch.randint(3, (200,), generator=generator)
    kept = nms(boxes, scores, groups, threshold).tolist()
    assert kept == slow.nms(boxes.tolist(), scores.tolist(), groups.tolist(), threshold)
    monkeypatch.setattr(module, "BLOCK", 7)
    assert nms(boxes, scores, groups, threshold).tolist() == kept
    assert nms(boxes, scores, groups, threshold, most=10).tolist() == kept[:10]
    assert len(kept) < 180
    assert kept != slow.nms(boxes.tolist(), scores.tolist(), [0] * 200, threshold)  # one group
    assert kept != slow.nms(boxes.tolist(), scores.tolist(), groups.tolist(), threshold + 0.05)


def test_nms_spares_what_only_a_suppressed_box_covers():
    boxes = torch.tensor([[0.0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]])
    assert nms(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3), 0.4).tolist() == [0, 2]
    assert nms(boxes, torch.tensor([0.8, 0.9, 0.7]), torch.zeros(3), 0.4).tolist() == [1]


def test_nms_at_the_threshold_keeps():
    boxes = torch.tensor([[0.0, 0, 2, 1], [1, 0, 3, 1]])  # overlap of one third
    third = float(iou(boxes[:1], boxes[1:]))
    assert len(nms(boxes, torch.ones(2), torch.zeros(2), third)) == 2
    assert len(nms(boxes, torch.ones(2), torch.zeros(2), third - 1e-3)) == 1


def test_nms_of_nothing():
    assert nms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0), 0.5).tolist() == []


def test_nms_of_thousands(generator):
    """More than are compared at once, far from the origin: shifted boxes would lose their last digits."""
    corner = (torch.rand(3000, 2, generator=generator) * 1000).round() + 1e5
    boxes = torch.cat([corner, corner + 8], 1)
    scores, groups = torch.rand(3000, generator=generator), torch.arange(3000) % 2
    kept = nms(boxes, scores, groups, 0.5).sort().values
    assert 1000 < len(kept) < 3000
    overlaps = (iou(boxes, boxes) > 0.5) & (groups[:, None] == groups)
    higher = scores[:, None] > scores
    suppressed = (overlaps & higher)[kept].any(0)  # by one that stays
    assert torch.equal((~suppressed).nonzero()[:, 0], kept)


def test_nms_is_onnx_runtimes(generator):
    """The ONNX operator, one class at a time: each box's score is 0 for the classes that aren't its own."""
    boxes = slow.random_boxes(300, 60, generator, smallest=10).float()
    scores, groups = torch.rand(300, generator=generator) + 0.01, torch.randint(4, (300,), generator=generator)
    every = torch.where(groups == torch.arange(4)[:, None], scores, 0)[None]
    names = ["boxes", "scores", "most", "iou", "score"]
    node = helper.make_node("NonMaxSuppression", names, ["kept"])
    shapes = ([1, 300, 4], [1, 4, 300], [1], [1], [1])
    kinds = [TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT64, TensorProto.FLOAT, TensorProto.FLOAT]
    values = [helper.make_tensor_value_info(*v) for v in zip(names, kinds, shapes, strict=True)]
    kept = helper.make_tensor_value_info("kept", TensorProto.INT64, [None, 3])
    graph = helper.make_graph([node], "suppression", values, [kept])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for threshold in (0.3, 0.6):
        limits = [torch.tensor([300]), torch.tensor([threshold]), torch.tensor([0.005])]
        feeds = {n: t.numpy() for n, t in zip(names, (boxes[None], every, *limits), strict=True)}
        wanted = session.run(None, feeds)[0][:, 2]
        assert sorted(nms(boxes, scores, groups, threshold).tolist()) == sorted(wanted.tolist())
        assert sorted(nms(boxes, scores, groups, 0.45).tolist()) != sorted(wanted.tolist())


def test_nms_is_torchvisions(generator):
    ops = pytest.importorskip("torchvision.ops")
    boxes = slow.random_boxes(300, 60, generator).float()
    scores, groups = torch.rand(300, generator=generator), torch.randint(4, (300,), generator=generator)
    assert torch.equal(nms(boxes, scores, groups, 0.5), ops.batched_nms(boxes, scores, groups, 0.5))
