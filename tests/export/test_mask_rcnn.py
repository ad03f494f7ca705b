"""Mask R-CNN's static graph against the eager model, and what ONNX Runtime makes of it, stage by stage.

The ONNX is proven on its own choices: what it proposed must be what float64 proposes, what it found must be what
float64 finds in its proposals, and its masks must be those that float64 gives its boxes.
"""

import copy
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import dmf
from dmf.detection import create_detector
from dmf.detection.boxes import area, iou
from dmf.detection.detector import select
from dmf.detection.mask_rcnn import BOX_BINS, ROI_STRIDES
from dmf.detection.masks import paste_masks
from dmf.detection.roi_align import level_of, roi_align
from export.convert.onnx import convert
from export.convert.options import Options
from export.detection import mask_rcnn
from export.detection.mask_rcnn import Found, nms, regions, reparameterize_mask_rcnn
from export.layout import NCHW, NHWC
from export.lowering import Lowering, lower
from export.lowering.bc1s import BC1S
from runtime.runners import open_runner

SIZES = [(64, 96), (96, 64)]
LAYOUTS = {"NCHW": NCHW(), "NHWC": NHWC(), "BC1S": BC1S()}


def make(**changes):
    """In float64, random everywhere, and unsure: about half of the scores of its choice are above the threshold."""
    torch.manual_seed(5)
    model = create_detector("mask_rcnn_dmf_nano", **{"score_threshold": 0.2, "proposals": 60, **changes})
    dmf.seed_weights(model.backbone, 5)
    for part in (model.fpn, model.rpn, model.box_head, model.mask_head):
        for value in part.parameters():
            nn.init.normal_(value, std=0.5 / value[0].numel() ** 0.5 if value.ndim > 1 else 0.2)
    nn.init.normal_(model.box_head.classes.weight, std=1.5)  # of several classes
    nn.init.normal_(model.mask_head.masks.weight, std=2)
    with torch.no_grad():
        model.rpn.deltas.bias[0] += 4  # to the right: of one ratio many are outside the picture, without an area
    return model.double()


def pictures(size, seed=1):
    """Two, whose values are float32's."""
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(seed)).double()


@torch.no_grad()
def eager(model, image):
    """What the eager model finds in one image, its masks not pasted."""
    levels, logits, deltas = model(image)
    (proposals,) = model.propose(logits, deltas, *image.shape[2:])
    (found,) = model.detect(image)
    return Found(found.boxes, found.scores, found.labels, own_masks(model, levels, found), proposals)


def own_masks(model, levels, found, turn=0):
    """That of the label of each object, or of a later label."""
    logits = model.mask_outputs(levels, found.boxes, torch.zeros_like(found.labels))
    each = zip(logits.sigmoid(), found.labels, strict=True)
    return torch.stack([masks[(label + turn) % len(masks)] for masks, label in each])


@pytest.fixture(scope="module")
def model():
    return make()


def same(found, expected, within=1e-10):
    if any(a.shape != b.shape for a, b in zip(found, expected, strict=True)):
        return False
    return all(float((a - b).abs().max()) < within for a, b in zip(found, expected, strict=True))


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("changes", [{}, {"max_detections": 10}, {"candidates": 20}])
def test_the_graph_is_the_model(size, changes):
    model = make(**changes)
    graph = reparameterize_mask_rcnn(model, *size)
    first, second = (eager(model, image) for image in pictures(size).split(1))
    for image, expected in zip(pictures(size).split(1), (first, second), strict=True):
        assert same(graph(image), expected)
        assert 5 < len(expected.boxes) <= model.config.max_detections and len(expected.labels.unique()) > 1
        assert 20 < len(expected.proposals) <= model.config.proposals
    assert not same(first, second)


@torch.no_grad()
@pytest.mark.parametrize("lowering", ["conv/conv", "matmul/taps"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_form_is_the_model(model, layout, lowering):
    image = pictures(SIZES[0])[:1]
    graph = lower(reparameterize_mask_rcnn(model, *SIZES[0]), Lowering.parse(lowering), LAYOUTS[layout])
    assert same(graph(image), eager(model, image))


@torch.no_grad()
@pytest.mark.parametrize(
    "change",
    [
        {"nms_iou": 0.45},
        {"score_threshold": 0.21},
        {"max_detections": 20},
        {"candidates": 50},
        {"proposals": 59},
    ],
)
def test_another_setting_would_be_seen(model, change):
    image = pictures(SIZES[0])[:1]
    graph = reparameterize_mask_rcnn(model, *SIZES[0])
    graph.config = replace(graph.config, **change)
    assert not same(graph(image), eager(model, image))


@torch.no_grad()
def test_another_suppression_of_proposals_would_be_seen(model, monkeypatch):
    image = pictures(SIZES[0])[:1]
    expected = eager(model, image)
    monkeypatch.setattr(mask_rcnn, "RPN_NMS_IOU", 0.65)
    assert not same(reparameterize_mask_rcnn(model, *SIZES[0])(image), expected)


@torch.no_grad()
def test_masks_are_those_that_detect_pastes(model):
    image, (height, width) = pictures(SIZES[0])[:1], SIZES[0]
    found = reparameterize_mask_rcnn(model, height, width)(image)
    pasted = paste_masks(found.masks, found.boxes, height, width)
    sure = (pasted - 0.5).abs() > 1e-9
    (expected,) = model.detect(image)
    assert torch.equal(pasted[sure] >= 0.5, expected.masks[sure]) and sure.float().mean() > 0.99
    assert not torch.equal(pasted.flip(0)[sure] >= 0.5, expected.masks[sure])


@pytest.mark.parametrize("size", [(65, 96), (64, 100), (0, 64), (-32, 64)])
def test_sizes_off_the_stride_are_refused(model, size):
    with pytest.raises(ValueError, match=rf"images are {size[0]} x {size[1]}; both sides must be positive multiples"):
        reparameterize_mask_rcnn(model, *size)


def to_onnx(graph, example, path, outputs, dynamic=False):
    convert(graph, example, path, Options(path.with_suffix(".log"), outputs=outputs, dynamic_batch=dynamic))
    return open_runner("onnx", path)


def run(runner, x):
    """With floats in float64."""
    outputs = [torch.from_numpy(output) for output in runner.run(x.float().numpy())]
    return [output.double() if output.is_floating_point() else output for output in outputs]


@pytest.fixture(scope="module", params=SIZES, ids=str)
def artifact(request, model, tmp_path_factory):
    """The file, what ONNX Runtime finds in each of two pictures by it, and the pictures."""
    size, path = request.param, tmp_path_factory.mktemp("onnx") / "model.onnx"
    graph = lower(reparameterize_mask_rcnn(copy.deepcopy(model).float(), *size), Lowering.parse("matmul/conv"))
    runner = to_onnx(graph, torch.zeros(1, 3, *size), path, Found._fields)
    assert runner.output_names == Found._fields
    images = pictures(size)
    return path, [Found(*run(runner, image)) for image in images.split(1)], images


def gap(boxes, expected):
    """How far the furthest box is from its nearest expected one, of each way, in px."""
    distance = (boxes[:, None] - expected[None]).abs().amax(2)
    return float(torch.maximum(distance.amin(0).max(), distance.amin(1).max()))


@torch.no_grad()
def test_onnx_proposes_what_the_model_proposes(model, artifact):
    _, (first, second), images = artifact
    for found, image in zip((first, second), images.split(1), strict=True):
        _, logits, deltas = model(image)
        (expected,) = model.propose(logits, deltas, *image.shape[2:])
        assert len(found.proposals) == len(expected) == model.config.proposals
        assert gap(found.proposals, expected) < 1e-3
        candidates, _, _ = model.decode_proposals(logits, deltas, *image.shape[2:])
        assert (area(found.proposals) > 0).all() and (area(candidates) == 0).sum() > 10
        (unsure,) = model.propose(-logits, deltas, *image.shape[2:])
        assert gap(found.proposals, unsure) > 1
    assert gap(first.proposals, second.proposals) > 1
    assert gap(found.proposals[:-1], expected) > 0.1


def second_stage(model, image, proposals, threshold=None):
    """What float64 finds in these proposals: boxes, scores, labels."""
    config = model.config if threshold is None else replace(model.config, nms_iou=threshold)
    levels, _, _ = model(image)
    outputs = model.box_outputs(levels, proposals, torch.zeros(len(proposals), dtype=torch.int64))
    found = model.decode_boxes(*outputs, proposals, *image.shape[2:])
    kept = select(config, *found)
    return [each[kept] for each in found]


def partners(found: Found, boxes: Tensor, labels: Tensor) -> tuple[Tensor, float]:
    """Of each object found the expected one of its label that overlaps it most, and how well the worst does."""
    overlap = torch.where(found.labels[:, None] == labels[None], iou(found.boxes, boxes), 0)
    best, partner = overlap.max(1)
    return partner, float(best.min())


@torch.no_grad()
def test_onnx_finds_what_the_model_finds_in_its_proposals(model, artifact):
    _, (first, second), images = artifact
    for found, other, image in zip((first, second), (second, first), images.split(1), strict=True):
        boxes, scores, labels = second_stage(model, image, found.proposals)
        partner, worst = partners(found, boxes, labels)
        assert len(found.boxes) == len(boxes) > 20
        assert sorted(partner.tolist()) == list(range(len(boxes))) and worst > 0.9999
        assert (found.boxes - boxes[partner]).abs().max() < 1e-3
        assert (found.scores - scores[partner]).abs().max() < 1e-4
        assert (found.scores.diff() <= 0).all() and found.labels.dtype == torch.int64
        assert (found.scores - scores.flip(0)[partner]).abs().max() > 0.1

        boxes, _, labels = second_stage(model, image, other.proposals)
        assert partners(found, boxes, labels)[1] < 0.9
        boxes, _, labels = second_stage(model, image, found.proposals, threshold=0.4)
        assert partners(found, boxes, labels)[1] < 0.9
        boxes, _, labels = second_stage(model, image, found.proposals)
        assert partners(found, boxes, (labels + 1) % model.config.num_classes)[1] < 0.9


@torch.no_grad()
def test_onnx_masks_are_those_of_its_boxes(model, artifact):
    _, founds, images = artifact
    for found, image in zip(founds, images.split(1), strict=True):
        levels, other = model(image)[0], model(image.flip(3))[0]
        assert found.masks.shape == (len(found.boxes), 28, 28)
        assert (found.masks - own_masks(model, levels, found)).abs().max() < 1e-4
        assert (found.masks - own_masks(model, levels, found, turn=1)).abs().max() > 0.1
        assert (found.masks - own_masks(model, other, found)).abs().max() > 0.1
        assert found.masks.max() - found.masks.min() > 0.5


def test_nothing_found(model, artifact, tmp_path):
    """By the same artifact, were its threshold 1."""
    path, _, images = artifact
    edited = onnx.load(path)
    for tensor in edited.graph.initializer:
        value = onnx.numpy_helper.to_array(tensor)
        if value.dtype == np.float32 and value.size == 1 and value.item() == np.float32(model.config.score_threshold):
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.ones_like(value), tensor.name))
    onnx.save(edited, tmp_path / "model.onnx")
    for file, count in ((path, 50), (tmp_path / "model.onnx", 0)):
        found = Found(*open_runner("onnx", file).run(images[:1].float().numpy()))
        assert (len(found.boxes) > count) == (count > 0)
        n = len(found.boxes)
        assert [each.shape for each in found] == [(n, 4), (n,), (n,), (n, 28, 28), (60, 4)]


class Regions(nn.Module):
    """Of feature maps that are constants, so that boxes are the only input."""

    def __init__(self, levels):
        super().__init__()
        self.levels = levels

    def forward(self, boxes):
        return regions(self.levels, boxes, BOX_BINS)


@pytest.fixture(scope="module")
def scene():
    """Four maps of a picture of 512 x 640 px, and boxes of all levels: some on their limits, some at the border."""
    generator = torch.Generator().manual_seed(3)
    maps = [torch.randn(1, 3, 512 // stride, 640 // stride, generator=generator).double() for stride in ROI_STRIDES]
    corner = torch.rand(60, 2, generator=generator) * torch.tensor([560.0, 440])
    end = corner + torch.rand(60, 2, generator=generator) ** 2 * 600
    boxes = torch.cat([corner, end.minimum(torch.tensor([640.0, 512]))], 1)
    limits = [[x, x, x + side, x + side] for side in (56, 112, 224, 448) for x in (0, 30)]
    odd = [[0, 0, 640, 512], [5, 5, 5, 5], [3, 9, 3, 200], [639.5, 500, 640, 512]]
    return maps, torch.cat([boxes, torch.tensor(limits).float(), torch.tensor(odd)]).double()


@torch.no_grad()
def test_regions_are_read_from_their_levels(scene, tmp_path):
    maps, boxes = scene
    zeros, level = torch.zeros(len(boxes), dtype=torch.int64), level_of(boxes, 4)
    assert sorted(level.unique().tolist()) == [0, 1, 2, 3]
    expected = roi_align(maps, ROI_STRIDES, boxes, zeros, level, BOX_BINS)
    assert (regions(maps, boxes, BOX_BINS) - expected).abs().max() < 1e-12
    others = roi_align(maps, ROI_STRIDES, boxes, zeros, (level + 1) % 4, BOX_BINS)
    assert (others - expected).abs().amax((1, 2, 3)).min() > 0.1

    path = tmp_path / "regions.onnx"
    graph = Regions([each.float() for each in maps]).eval()
    runner = to_onnx(graph, boxes[:9].float(), path, ("regions",), dynamic=True)
    assert "RoiAlign" in {node.op_type for node in onnx.load(path).graph.node}
    for rows in (slice(None), level == 2, level < 0, slice(1)):
        (found,) = run(runner, boxes[rows])
        assert found.shape == expected[rows].shape
        assert torch.allclose(found, expected[rows], rtol=0, atol=1e-4)
    (found,) = run(runner, boxes + 0.5)  # half a pixel off
    assert (found - expected).abs().max() > 0.1


THRESHOLD, MOST = 0.5, 40


class Suppression(nn.Module):
    """Of rows of a box, a score and a group."""

    def forward(self, rows):
        return nms(rows[:, :4], rows[:, 4], rows[:, 5].long(), 3, THRESHOLD, MOST)


def slow_nms(rows, threshold=THRESHOLD, most=MOST, grouped=True, last=False):
    """One box after the other; of equal scores the first, or the last."""
    order = sorted(range(len(rows)), key=lambda n: (-float(rows[n, 4]), -n if last else n))
    overlap, kept = iou(rows[:, :4], rows[:, :4]), []
    for n in order:
        rivals = [k for k in kept if not grouped or rows[k, 5] == rows[n, 5]]
        if all(overlap[k, n] <= threshold for k in rivals):
            kept.append(n)
    return kept[:most]


def random_rows(count, scores, generator):
    """Whole numbers, so that overlaps are often just the threshold; few scores, so that many are equal."""
    corner = torch.randint(8, (count, 2), generator=generator)
    side = torch.randint(0, 9, (count, 2), generator=generator)
    score = torch.randint(scores, (count, 1), generator=generator) / scores - 0.5
    return torch.cat([corner, corner + side, score, torch.randint(3, (count, 1), generator=generator)], 1)


def test_suppression(tmp_path):
    generator = torch.Generator().manual_seed(7)
    graph = Suppression().eval()
    runner = to_onnx(graph, random_rows(9, 3, generator), tmp_path / "nms.onnx", ("kept",), dynamic=True)
    others = [{"threshold": THRESHOLD - 0.01}, {"grouped": False}, {"last": True}, {"most": MOST - 1}]
    differ = [0] * len(others)
    for count in (0, 1, 2, 60, 120, 300):
        for scores in (1, 3, 100):
            rows = random_rows(count, scores, generator)
            expected = slow_nms(rows)
            assert graph(rows).tolist() == run(runner, rows)[0].tolist() == expected
            differ = [n + (slow_nms(rows, **other) != expected) for n, other in zip(differ, others, strict=True)]
    assert min(differ) > 3
