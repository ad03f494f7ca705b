"""Mask R-CNN against loops over single proposals, stage by stage, from its own raw heads on; and bad input."""

from math import exp, log, log1p

import pytest
import slow_detection as slow
import torch
from torch import Tensor, nn

import dmf
from dmf.detection import MaskRCNN, Target, create_detector
from dmf.detection import mask_rcnn as module
from dmf.detection.mask_rcnn import STRIDES

HEIGHT, WIDTH = 64, 96
SCALE = (0.1, 0.2)


def make(seed: int = 0, **changes: object) -> MaskRCNN:
    """Random everywhere, and often sure of something."""
    torch.manual_seed(seed)
    small = {"num_classes": 3, "fpn_channels": 8, "box_hidden": 16, "mask_convs": 1, "proposals": 40}
    model = create_detector("mask_rcnn_dmf_nano", **{**small, **changes})
    assert isinstance(model, MaskRCNN)
    dmf.seed_weights(model.backbone, seed)
    for part in (model.fpn, model.rpn, model.box_head, model.mask_head):
        for parameter in part.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.5 / parameter[0].numel() ** 0.5)
            else:
                nn.init.normal_(parameter, std=0.2)
    nn.init.normal_(model.mask_head.masks.weight, std=2)
    return model.double()


@pytest.fixture(scope="module")
def model():
    return make()


@pytest.fixture
def batch(images):
    return 0.5 * images(2, HEIGHT, WIDTH)


def nothing() -> Target:
    return Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, HEIGHT, WIDTH, dtype=torch.bool))


def with_masks(boxes: list[list[float]], labels: list[int]) -> Target:
    """Each object is the upper left triangle of its box."""
    y, x = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    masks = [
        (x > x1) & (y > y1) & ((x - x1) / max(x2 - x1, 1e-9) + (y - y1) / max(y2 - y1, 1e-9) < 1)
        for x1, y1, x2, y2 in boxes
    ]
    return Target(torch.tensor(boxes), torch.tensor(labels), torch.stack(masks))


@pytest.fixture
def targets():
    boxes = [[4.0, 6, 30, 28], [40, 20, 90, 60], [41, 22, 88, 61], [70, 2, 78, 12]]
    return [with_masks(boxes, [1, 0, 2, 2]), nothing()]


def level_anchors() -> list[list[list[float]]]:
    return [slow.anchors(HEIGHT, WIDTH, stride, 4, (1.0,)) for stride in STRIDES]


@pytest.mark.parametrize("size", [(32, 32), (32, 160), (224, 192)])
def test_any_multiple_of_the_stride(model, size):
    pictures = torch.zeros(1, 3, *size).double()
    with torch.no_grad():
        _, logits, deltas = model(pictures)
        assert logits.shape[1] == deltas.shape[1] == sum(len(level) for level in model.anchors(*size))
        (found,) = model.detect(pictures)
    assert (found.boxes >= 0).all() and (found.boxes <= torch.tensor([size[1], size[0]] * 2)).all() and len(found) > 0
    assert found.masks is not None and found.masks.shape[1:] == size


def clipped(box: list[float]) -> list[float]:
    return [min(max(v, 0.0), limit) for v, limit in zip(box, (WIDTH, HEIGHT) * 2, strict=True)]


def slow_proposals(model: MaskRCNN, logits: Tensor, deltas: Tensor, threshold: float = 0.7) -> list[list[float]]:
    """Of one image."""
    boxes, scores, levels, start = [], [], [], 0
    for level, places in enumerate(level_anchors()):
        order = sorted(range(len(places)), key=lambda n: (-float(logits[start + n]), n))
        for n in order[: model.config.candidates]:
            box = clipped(slow.decode(deltas[start + n].tolist(), places[n]))
            if box[2] > box[0] and box[3] > box[1]:
                boxes.append(box)
                scores.append(float(logits[start + n]))
                levels.append(level)
        start += len(places)
    return [boxes[i] for i in slow.nms(boxes, scores, levels, threshold)[: model.config.proposals]]


@pytest.mark.parametrize("changes", [{}, {"candidates": 20, "proposals": 1000}])
def test_proposals(batch, changes):
    model = make(**changes)
    with torch.no_grad():
        _, logits, deltas = model(batch)
    for i, found in enumerate(model.propose(logits, deltas, HEIGHT, WIDTH)):
        expected = torch.tensor(slow_proposals(model, logits[i], deltas[i]), dtype=torch.float64)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
        assert len(expected) > 20
        wrong = torch.tensor(slow_proposals(model, logits[i], deltas[i], threshold=0.5), dtype=torch.float64)
        assert wrong.shape != found.shape or (wrong - found).abs().max() > 1


def regions(levels: list[Tensor], image: int, box: list[float], size: int) -> Tensor:
    level = slow.level(box)
    return slow.roi_align(levels[level][image], STRIDES[level], box, size, 2)[None]


def slow_detect(
    model: MaskRCNN, levels: list[Tensor], image: int, proposals: list[list[float]]
) -> list[tuple[float, int, list[float], Tensor]]:
    """Of one image: score, label, box, pasted mask."""
    found = []
    for proposal in proposals:
        logits, deltas = model.box_head(regions(levels, image, proposal, 7))
        scores = logits[0].softmax(0).tolist()
        for label in range(model.config.num_classes):
            if scores[label] > model.config.score_threshold:
                found.append((scores[label], label, clipped(slow.decode(deltas[0, label].tolist(), proposal, SCALE))))
    kept = slow.nms([f[2] for f in found], [f[0] for f in found], [f[1] for f in found], model.config.nms_iou)
    out = []
    for score, label, box in [found[i] for i in kept[: model.config.max_detections]]:
        mask = model.mask_head(regions(levels, image, box, 14))[0, label].sigmoid()
        out.append((score, label, box, slow.paste(mask, box, HEIGHT, WIDTH)))
    return out


def test_detect(batch):
    model = make(proposals=15, max_detections=8)
    with torch.no_grad():
        levels, logits, deltas = model(batch)
        boxes = model.propose(logits, deltas, HEIGHT, WIDTH)[0]
        masks = model.mask_outputs(levels, boxes, torch.zeros(len(boxes), dtype=torch.int64))
        model.mask_head.masks.bias -= masks.mean((0, 2, 3))  # else a mask may be empty, or full
        for i, found in enumerate(model.detect(batch)):
            proposals = slow_proposals(model, logits[i], deltas[i])
            expected = slow_detect(model, levels, i, proposals)
            assert len(expected) == 8
            assert found.labels.tolist() == [label for _, label, _, _ in expected]
            torch.testing.assert_close(found.scores, torch.tensor([score for score, *_ in expected]).double())
            boxes = torch.tensor([box for _, _, box, _ in expected], dtype=torch.float64)
            torch.testing.assert_close(found.boxes, boxes, rtol=0, atol=1e-9)
            pasted = torch.stack([mask for *_, mask in expected])
            assert found.masks is not None and found.masks.shape == (8, HEIGHT, WIDTH)
            sure = (pasted - 0.5).abs() > 1e-9
            assert torch.equal(found.masks[sure], pasted[sure] >= 0.5)
            assert found.masks.any() and not found.masks.all()
            other = slow_detect(model, levels, 1 - i, proposals)  # read from the other image
            assert [score for score, *_ in other] != pytest.approx(found.scores.tolist(), rel=1e-3)


def test_detect_nothing(batch):
    found = make(score_threshold=1.0).detect(batch)
    assert [len(f) for f in found] == [0, 0]
    assert found[0].masks is not None and found[0].masks.shape == (0, HEIGHT, WIDTH)


@pytest.fixture
def everything(monkeypatch):
    """No choice at random: every anchor and proposal is learned from."""
    monkeypatch.setattr(module, "RPN_SAMPLES", 10**6)
    monkeypatch.setattr(module, "RPN_POSITIVE", 1.0)
    monkeypatch.setattr(module, "BOX_POSITIVE", 1.0)


def slow_first_stage(
    logits: Tensor, deltas: Tensor, targets: list[Target], positive: float = 0.7
) -> tuple[float, float]:
    places = [box for level in level_anchors() for box in level]
    entropy, boxes, count = 0.0, 0.0, 0
    for image, target in enumerate(targets):
        for n, owner in enumerate(slow.assign(places, target.boxes.tolist(), positive, 0.3, 0.3)):
            if owner == -2:
                continue
            count += 1
            sign = 1 if owner >= 0 else -1
            entropy += log1p(exp(-sign * float(logits[image, n])))
            if owner >= 0:
                goal = slow.encode(target.boxes[owner].tolist(), places[n])
                boxes += sum(abs(a - b) for a, b in zip(deltas[image, n].tolist(), goal, strict=True))
    return entropy / count, boxes / count


def slow_second_stage(
    model: MaskRCNN,
    levels: list[Tensor],
    proposals: list[list[list[float]]],
    targets: list[Target],
    positive: float = 0.5,
) -> tuple[float, float, float]:
    entropy, boxes, masks, count, places = 0.0, 0.0, 0.0, 0, 0
    for image, target in enumerate(targets):
        objects = target.boxes.double().tolist()
        candidates = [box for box in objects if box[2] > box[0] and box[3] > box[1]] + proposals[image]
        for candidate, owner in zip(
            candidates, slow.assign(candidates, objects, positive, positive, None), strict=True
        ):
            logits, deltas = model.box_head(regions(levels, image, candidate, 7))
            label = int(target.labels[owner]) if owner >= 0 else model.config.num_classes
            entropy -= log(logits[0].softmax(0)[label])
            count += 1
            if owner >= 0:
                goal = slow.encode(objects[owner], candidate, SCALE)
                boxes += sum(abs(a - b) for a, b in zip(deltas[0, label].tolist(), goal, strict=True))
                assert target.masks is not None
                wanted = slow.roi_align(target.masks[owner][None].double(), 1, candidate, 28, 2)[0] >= 0.5
                said = model.mask_head(regions(levels, image, candidate, 14))[0, label]
                masks -= float(torch.where(wanted, said, -said).sigmoid().log().sum())
                places += 28 * 28
    return entropy / count, boxes / count, masks / max(places, 1)


def test_loss(batch, targets, everything):
    model = make(proposals=25)
    targets = [targets[0], with_masks([[20.0, 10, 60, 50]], [1])]
    with torch.no_grad():
        found = {name: float(value) for name, value in model.loss(batch, targets).items()}
        levels, logits, deltas = model(batch)
        proposals = [slow_proposals(model, logits[i], deltas[i]) for i in range(2)]
        first = slow_first_stage(logits, deltas, targets)
        second = slow_second_stage(model, levels, proposals, targets)
        wrong_first = slow_first_stage(logits, deltas, targets, positive=0.5)
        wrong_second = slow_second_stage(model, levels, proposals, targets, positive=0.3)
    assert list(found) == ["proposal_objectness", "proposal_boxes", "classes", "boxes", "masks"]
    assert list(found.values()) == pytest.approx([*first, *second], rel=1e-9)
    for value, wrong in zip(found.values(), [*wrong_first, *wrong_second], strict=True):
        assert wrong != pytest.approx(value, rel=1e-4)


def test_samples_are_bounded(model, batch, targets):
    """A quarter of the box head's samples at most is on objects; a batch without any has only background."""
    sizes = []
    hook = model.box_head.register_forward_hook(lambda _m, inputs, _o: sizes.append(len(inputs[0])))
    mask_hook = model.mask_head.register_forward_hook(lambda _m, inputs, _o: sizes.append(len(inputs[0])))
    with torch.no_grad():
        small = make(box_samples=8)
        small.box_head, small.mask_head = model.box_head, model.mask_head
        small.loss(batch, targets)
        small.loss(batch, [nothing(), nothing()])
    hook.remove()
    mask_hook.remove()
    assert sizes == [16, 2, 16, 0]


def total_of(model: MaskRCNN, batch: Tensor, targets: list[Target]) -> Tensor:
    total = sum(model.loss(batch, targets).values())
    assert isinstance(total, Tensor)
    return total


def test_loss_without_objects(batch):
    model = make()
    losses = model.loss(batch, [nothing(), nothing()])
    assert losses["proposal_boxes"] == losses["boxes"] == losses["masks"] == 0
    assert losses["proposal_objectness"] > 0 and losses["classes"] > 0
    total_of(model, batch, [nothing(), nothing()]).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_loss_of_objects_without_area(model, batch, targets, everything):
    """They are as if they weren't there."""
    boxes, labels = targets[0].boxes.tolist(), targets[0].labels.tolist()
    more = with_masks([*boxes, [5.0, 5, 5, 5], [9, 3, 9, 40]], [*labels, 0, 1])
    with torch.no_grad():
        found = model.loss(batch, [more, nothing()])
        expected = model.loss(batch, targets)
    assert found == {name: pytest.approx(float(value)) for name, value in expected.items()}
    assert float(expected["masks"]) > 0


def test_loss_of_thousands_of_objects(batch):
    boxes = slow.random_boxes(1500, HEIGHT, torch.Generator().manual_seed(0)).float()
    masks = torch.ones(1500, HEIGHT, WIDTH, dtype=torch.bool)
    target = Target(boxes, torch.arange(1500) % 3, masks)
    total = total_of(make(), batch, [target, target])
    assert total.isfinite()
    total.backward()


def test_every_parameter_learns(batch, targets):
    model = make()
    total_of(model, batch, [targets[0], targets[0]]).backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []
    box_only = make()
    sum(v for k, v in box_only.loss(batch, [targets[0]] * 2).items() if k != "masks").backward()
    assert {n.split(".")[0] for n, p in box_only.named_parameters() if p.grad is None} == {"mask_head"}


def test_stages_export(batch):
    """Each stage up to its raw heads, with its decoding, in one graph, not square."""
    model = make(candidates=50)

    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: Tensor) -> tuple[Tensor, ...]:
            levels, logits, deltas = self.model(images)
            return (*levels, *self.model.decode_proposals(logits, deltas, HEIGHT, WIDTH))

    class Second(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, levels: list[Tensor], boxes: Tensor) -> tuple[Tensor, ...]:
            images = torch.zeros(len(boxes), dtype=torch.int64)
            outputs = self.model.box_outputs(levels, boxes, images)
            found = self.model.decode_boxes(*outputs, boxes, HEIGHT, WIDTH)
            return (*found, self.model.mask_outputs(levels, found[0], images[:1].expand(len(found[0]))))

    with torch.no_grad():
        first = torch.export.export(First(), (batch[:1],)).module()
        expected = First()(batch[1:])
        for x, y in zip(first(batch[1:]), expected, strict=True):
            torch.testing.assert_close(x, y, rtol=0, atol=1e-9)
        levels, boxes = list(expected[:5]), expected[5][0, :20]
        second = torch.export.export(Second(), (levels, boxes)).module()
        other = [x.flip(3) for x in levels], boxes.flip(0)
        found, expected = second(*other), Second()(*other)
        for x, y in zip(found, expected, strict=True):
            torch.testing.assert_close(x, y, rtol=0, atol=1e-9)
        assert not torch.allclose(expected[1], Second()(levels, boxes)[1])


@pytest.mark.parametrize("size", [(64, 80), (16, 64)])
def test_sizes_off_the_stride(model, size):
    pictures = torch.zeros(2, 3, *size).double()
    with pytest.raises(ValueError, match=f"images are {size[0]} x {size[1]}; both sides must be multiples of 32"):
        model.detect(pictures)


def test_targets_of_other_images(model, batch, targets):
    bare = Target(targets[0].boxes, targets[0].labels)
    with pytest.raises(ValueError, match="target 0 has no masks; mask_rcnn learns from masks"):
        model.loss(batch, [bare, nothing()])
    with pytest.raises(ValueError, match=r"target 0 has masks of \(64, 96\) for an image of \(64, 64\)"):
        model.loss(batch[:, :, :, :64], targets)
    with pytest.raises(ValueError, match="1 targets for 2 images"):
        model.loss(batch, targets[:1])


def test_learns():
    """Two pictures, a triangle in each: its class, its box and its shape, in a few steps."""
    torch.manual_seed(0)
    model = create_detector("mask_rcnn_dmf_nano", num_classes=2, fpn_channels=32, proposals=32, box_samples=16).train()
    pictures = 0.3 * torch.randn(2, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    targets = [with_masks([[10.0, 8, 50, 48]], [0]), with_masks([[30.0, 16, 80, 56]], [1])]
    for picture, target in zip(pictures, targets, strict=True):
        assert target.masks is not None
        picture[int(target.labels[0])] += 3 * target.masks[0]
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    for _ in range(40):
        optimizer.zero_grad()
        total_of(model, pictures, targets).backward()
        optimizer.step()
    for norm in model.modules():  # statistics of a few steps say little: the batch's own, as in training
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            norm.track_running_stats, norm.running_mean, norm.running_var = False, None, None
    for found, target in zip(model.eval().detect(pictures), targets, strict=True):
        assert found.masks is not None and target.masks is not None
        assert found.labels[0] == target.labels[0] and found.scores[0] > 0.3
        assert slow.iou(found.boxes[0].tolist(), target.boxes[0].tolist()) > 0.6
        both, either = found.masks[0] & target.masks[0], found.masks[0] | target.masks[0]
        assert both.sum() / either.sum() > 0.6  # of a triangle and its whole box it is 0.5
