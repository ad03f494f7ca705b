"""RetinaNet against loops over single anchors, from its own raw heads on; and what it does with bad input."""

from math import exp, log1p

import pytest
import slow_detection as slow
import torch
from torch import Tensor, nn

import dmf
from dmf.detection import RetinaNet, Target, create_detector
from dmf.detection.retinanet import STRIDES

HEIGHT, WIDTH = 64, 96
SIZES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
NOTHING = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))


def make(seed: int = 0, **changes: object) -> RetinaNet:
    """Random everywhere, and often sure of something."""
    torch.manual_seed(seed)
    model = create_detector("retinanet_dmf_nano", **{"num_classes": 4, "fpn_channels": 16, **changes})
    assert isinstance(model, RetinaNet)
    dmf.seed_weights(model.backbone, seed)
    for part in (model.class_tower, model.box_tower):
        for parameter in part.parameters():
            nn.init.normal_(parameter, std=0.08)
    nn.init.normal_(model.class_output.weight, std=0.2)
    nn.init.normal_(model.box_output.weight, std=0.05)
    nn.init.constant_(model.class_output.bias, -3.0)
    return model.double()


@pytest.fixture(scope="module")
def model():
    return make()


@pytest.fixture
def targets():
    boxes = torch.tensor([[4.0, 6, 30, 28], [40, 20, 90, 60], [41, 22, 88, 61], [70, 2, 75, 7]])
    return [Target(boxes, torch.tensor([1, 0, 3, 2])), NOTHING]


@pytest.fixture
def batch(images):
    return images(2, HEIGHT, WIDTH)


def all_anchors(scale: float = 2) -> list[list[float]]:
    return [box for stride in STRIDES for box in slow.anchors(HEIGHT, WIDTH, stride, scale, SIZES)]


def test_heads_are_in_the_anchors_order(model, batch):
    """Level by level, row by row, then the place's anchors: as the convolutions' outputs, read one by one."""
    with torch.no_grad():
        logits, deltas = model(batch)
        levels = model.fpn(model.backbone(batch)[1:])
        classes = [model.class_output(model.class_tower(x)) for x in levels]
        boxes = [model.box_output(model.box_tower(x)) for x in levels]
    places = [
        (i, y, x, a)
        for i, f in enumerate(levels)
        for y in range(f.shape[2])
        for x in range(f.shape[3])
        for a in range(9)
    ]
    assert logits.shape == (2, len(places), 4) and deltas.shape == (2, len(places), 4)
    assert len(places) == len(all_anchors())
    for n in range(0, len(places), 37):
        i, y, x, a = places[n]
        assert torch.equal(logits[1, n], classes[i][1, 4 * a : 4 * a + 4, y, x])
        assert torch.equal(deltas[1, n], boxes[i][1, 4 * a : 4 * a + 4, y, x])
        assert not torch.equal(logits[1, n], classes[i][1, a : 4 * 9 : 9, y, x])


@pytest.mark.parametrize("size", [(32, 32), (32, 160), (96, 64), (224, 192)])
def test_any_multiple_of_the_stride(model, size):
    with torch.no_grad():
        logits, deltas = model(torch.zeros(1, 3, *size).double())
        assert logits.shape[1] == deltas.shape[1] == sum(len(level) for level in model.anchors(*size))
        (found,) = model.detect(torch.zeros(1, 3, *size).double())
    assert (found.boxes >= 0).all() and (found.boxes <= torch.tensor([size[1], size[0]] * 2)).all() and len(found) > 0


def slow_detect(model: RetinaNet, logits: Tensor, deltas: Tensor) -> list[tuple[float, int, list[float]]]:
    """Of one image: score, label, box."""
    config, found, start = model.config, [], 0
    for stride in STRIDES:
        places = slow.anchors(HEIGHT, WIDTH, stride, config.anchor_scale, SIZES)
        rows = logits[start : start + len(places)].tolist()
        scored = sorted((-v, n, k) for n, row in enumerate(rows) for k, v in enumerate(row))
        for value, n, k in scored[: config.candidates]:
            x1, y1, x2, y2 = slow.decode(deltas[start + n].tolist(), places[n])
            box = [min(max(x1, 0), WIDTH), min(max(y1, 0), HEIGHT), min(max(x2, 0), WIDTH), min(max(y2, 0), HEIGHT)]
            if 1 / (1 + exp(value)) > config.score_threshold:
                found.append((1 / (1 + exp(value)), k, box))
        start += len(places)
    kept = slow.nms([f[2] for f in found], [f[0] for f in found], [f[1] for f in found], config.nms_iou)
    return [found[i] for i in kept[: config.max_detections]]


@pytest.mark.parametrize("changes", [{}, {"candidates": 30, "nms_iou": 0.3}, {"score_threshold": 0.4}])
def test_detect(batch, changes):
    model = make(**changes)
    with torch.no_grad():
        logits, deltas = model(batch)
    for found, image_logits, image_deltas in zip(model.detect(batch), logits, deltas, strict=True):
        expected = slow_detect(model, image_logits, image_deltas)
        assert 5 < len(expected) <= 100
        assert found.labels.tolist() == [label for _, label, _ in expected]
        torch.testing.assert_close(found.scores, torch.tensor([score for score, _, _ in expected]).double())
        boxes = torch.tensor([box for _, _, box in expected], dtype=torch.float64)
        torch.testing.assert_close(found.boxes, boxes, rtol=0, atol=1e-9)
        assert found.masks is None
        wrong = slow_detect(model, image_logits.flip(0), image_deltas)
        assert [label for _, label, _ in wrong] != found.labels.tolist()


def test_detect_nothing(batch):
    assert [len(found) for found in make(score_threshold=1.0).detect(batch)] == [0, 0]


def slow_loss(logits: Tensor, deltas: Tensor, targets: list[Target], positive: float = 0.5) -> tuple[float, float]:
    places, focal, boxes, count = all_anchors(), 0.0, 0.0, 0
    for image, target in enumerate(targets):
        owners = slow.assign(places, target.boxes.tolist(), positive, 0.4, 0.0)
        for n, owner in enumerate(owners):
            label = int(target.labels[owner]) if owner >= 0 else None
            for k, logit in enumerate(logits[image, n].tolist()) if owner != -2 else ():
                sign, alpha = (1, 0.25) if k == label else (-1, 0.75)
                p_t = 1 / (1 + exp(-sign * logit))
                focal += alpha * (1 - p_t) ** 2 * log1p(exp(-sign * logit))
            if owner >= 0:
                goal = slow.encode(target.boxes[owner].tolist(), places[n])
                boxes += sum(abs(a - b) for a, b in zip(deltas[image, n].tolist(), goal, strict=True))
                count += 1
    return focal / max(count, 1), boxes / max(count, 1)


def test_loss(model, batch, targets):
    with torch.no_grad():
        logits, deltas = model(batch)
        found = model.loss(batch, targets)
    focal, boxes = slow_loss(logits, deltas, targets)
    assert list(found) == ["classes", "boxes"]
    assert float(found["classes"]) == pytest.approx(focal, rel=1e-9)
    assert float(found["boxes"]) == pytest.approx(boxes, rel=1e-9)
    wrong = slow_loss(logits, deltas, targets, positive=0.6)
    assert wrong[0] != pytest.approx(focal, rel=1e-3) and wrong[1] != pytest.approx(boxes, rel=1e-3)
    exchanged = slow_loss(logits, deltas, targets[::-1])
    assert exchanged[0] != pytest.approx(focal, rel=1e-3)


def test_loss_without_objects(model, batch):
    with torch.no_grad():
        logits, deltas = model(batch)
    found = make().loss(batch, [NOTHING, NOTHING])
    assert float(found["classes"].detach()) == pytest.approx(slow_loss(logits, deltas, [NOTHING] * 2)[0])
    assert float(found["boxes"].detach()) == 0


def test_loss_of_objects_without_area(model, batch, targets):
    """They are as if they weren't there."""
    flat = torch.tensor([[5.0, 5, 5, 5], [9, 3, 9, 40]])
    more = Target(torch.cat([targets[0].boxes, flat]), torch.cat([targets[0].labels, torch.tensor([0, 1])]))
    with torch.no_grad():
        assert model.loss(batch, [more, NOTHING]) == model.loss(batch, targets)
        assert model.loss(batch, [NOTHING, NOTHING]) != model.loss(batch, targets)


def test_loss_of_thousands_of_objects(model, batch):
    boxes = slow.random_boxes(3000, HEIGHT, torch.Generator().manual_seed(0)).float()
    target = Target(boxes, torch.arange(3000) % 4)
    losses = make().loss(batch, [target, target])
    total = sum(losses.values())
    assert isinstance(total, Tensor) and total.isfinite()
    total.backward()


def test_a_fresh_one_expects_little(batch):
    """Every class is thought to be there at 1 %."""
    torch.manual_seed(0)
    fresh = create_detector("retinanet_dmf_nano").double()
    with torch.no_grad():
        scores = fresh(batch)[0].sigmoid()
    assert float(scores.mean()) == pytest.approx(0.01, rel=0.2)


def test_exports(batch):
    """Raw heads and decoding in one graph, not square."""
    model = make(candidates=50)

    class Decoded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return self.model.decode(*self.model(images), HEIGHT, WIDTH)

    program = torch.export.export(Decoded(), (batch[:1],))
    other = batch[1:]
    with torch.no_grad():
        found, expected = program.module()(other), Decoded()(other)
        assert not torch.allclose(expected[0], Decoded()(batch[:1])[0])
    assert expected[0].shape == (1, 4 * 50 + 9 * 4, 4)  # the last level has no more
    assert torch.equal(found[2], expected[2])
    torch.testing.assert_close(found[:2], expected[:2], rtol=0, atol=1e-9)


def test_learns():
    """Two pictures with three objects, in a few steps."""
    torch.manual_seed(0)
    model = create_detector("retinanet_dmf_nano", num_classes=2, fpn_channels=32).train()
    pictures = 0.3 * torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    boxes = [torch.tensor([[8.0, 8, 28, 28], [36, 30, 60, 54]]), torch.tensor([[20.0, 24, 44, 48]])]
    targets = [Target(boxes[0], torch.tensor([0, 1])), Target(boxes[1], torch.tensor([1]))]
    for picture, target in zip(pictures, targets, strict=True):
        for (x1, y1, x2, y2), label in zip(target.boxes.int().tolist(), target.labels.tolist(), strict=True):
            picture[label, y1:y2, x1:x2] += 3
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    for _ in range(45):
        total = sum(model.loss(pictures, targets).values())
        assert isinstance(total, Tensor)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    for module in model.modules():  # statistics of a few steps say little: the batch's own, as in training
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.track_running_stats, module.running_mean, module.running_var = False, None, None
    for found, target in zip(model.eval().detect(pictures), targets, strict=True):
        for label, box in zip(target.labels.tolist(), target.boxes.tolist(), strict=True):
            surest = int((found.labels == label).nonzero()[0])
            assert found.scores[surest] > 0.3
            assert slow.iou(found.boxes[surest].tolist(), box) > 0.6


BAD_SIZES = [(64, 80), (16, 64), (0, 64), (64, 31)]


@pytest.mark.parametrize("size", BAD_SIZES)
def test_sizes_off_the_stride(model, size):
    pictures = torch.zeros(2, 3, *size).double()
    for run in (lambda: model.detect(pictures), lambda: model.loss(pictures, [NOTHING] * 2), lambda: model(pictures)):
        with pytest.raises(ValueError, match=f"images are {size[0]} x {size[1]}; both sides must be multiples of 32"):
            run()


def test_targets_of_other_images(model, batch, targets):
    with pytest.raises(ValueError, match="1 targets for 2 images; each image needs one, maybe empty"):
        model.loss(batch, targets[:1])
    unknown = Target(torch.tensor([[1.0, 2, 3, 4]]), torch.tensor([4]))
    with pytest.raises(ValueError, match="target 1 has label 4; the detector has 4 classes"):
        model.loss(batch, [targets[0], unknown])
