"""A detector's static graph, in every layout and lowering, and what each format makes of it."""

import copy

import numpy as np
import pytest
import torch

from dmf.detection import create_detector
from dmf.detection.boxes import clip, decode
from dmf.detection.seeded import seed_detector
from export.convert import CONVERTERS
from export.convert.options import Options
from export.detection.retinanet import reparameterize_retinanet
from export.layout import NCHW, NHWC
from export.lowering import Lowering, lower
from export.lowering.bc1s import BC1S
from export.static import Routing
from runtime.runners import open_runner

HEIGHT, WIDTH = 64, 96  # not square: rows and columns can be confused
LAYOUTS = {"NCHW": NCHW(), "NHWC": NHWC(), "untuned NHWC": NHWC(tuned=False), "BC1S": BC1S()}


@pytest.fixture(scope="module")
def model():
    return seed_detector(create_detector("retinanet_dmf_nano"), 5)


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, HEIGHT, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def expected(model, images):
    """Class logits (B, A, K), deltas (B, A, 4) of the eager model in float64, one image at a time."""
    oracle = copy.deepcopy(model).double()
    with torch.no_grad():
        return [torch.cat(each) for each in zip(*(oracle(image) for image in images.split(1)), strict=True)]


@pytest.fixture(scope="module")
def graph(model):
    return reparameterize_retinanet(copy.deepcopy(model).double(), HEIGHT, WIDTH).network


def errors(found, expected):
    """Of each output, relative to its largest value."""
    return [float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, expected, strict=True)]


@torch.no_grad()
@pytest.mark.parametrize("lowering", ["matmul/conv", "matmul/taps", "conv/conv", "matmul/bank"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_form_is_the_model(graph, images, expected, layout, lowering):
    lowered = lower(graph, Lowering.parse(lowering), LAYOUTS[layout], NCHW())
    assert max(errors(lowered(images), expected)) < 1e-12


@torch.no_grad()
def test_images_may_lie_as_the_runtime_has_them(graph, images, expected):
    lowered = lower(graph, Lowering.parse("matmul/conv"), NHWC(), NHWC())
    assert max(errors(lowered(images.permute(0, 2, 3, 1).contiguous()), expected)) < 1e-12


@torch.no_grad()
def test_another_routing_or_image_would_be_seen(graph, images, expected):
    frozen = copy.deepcopy(graph)
    for module in frozen.modules():
        if isinstance(module, Routing):
            module.register_forward_hook(lambda _, inputs, weights: weights[:1].expand_as(weights))
    assert max(errors(frozen(images), expected)) > 1e-3
    assert max(errors([each.flip(0) for each in graph(images)], expected)) > 1e-2


@torch.no_grad()
def test_decoded_boxes_are_those_of_every_anchor(model, images, expected):
    scores, boxes = reparameterize_retinanet(copy.deepcopy(model).double(), HEIGHT, WIDTH)(images)
    logits, deltas = expected
    assert torch.allclose(scores, 1 / (1 + (-logits).exp()), rtol=0, atol=1e-12)
    anchors = torch.cat(model.anchors(HEIGHT, WIDTH))
    row = int(torch.randint(len(anchors), (1,), generator=torch.Generator().manual_seed(2)))
    for index in (0, row, len(anchors) - 1):  # by hand, one anchor at a time
        x1, y1, x2, y2 = anchors[index].tolist()
        dx, dy, dw, dh = deltas[1, index].tolist()
        width, height = (x2 - x1) * np.exp(dw), (y2 - y1) * np.exp(dh)
        x, y = (x1 + x2) / 2 + dx * (x2 - x1), (y1 + y2) / 2 + dy * (y2 - y1)
        corners = np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
        limits = np.array([WIDTH, HEIGHT, WIDTH, HEIGHT])
        assert np.abs(boxes[1, index].numpy() - np.clip(corners, 0, limits)).max() < 1e-9
    swapped = clip(decode(deltas, anchors), WIDTH, HEIGHT)
    assert (boxes - swapped).abs().max() > 1  # height and width are not confused unnoticed


@pytest.mark.parametrize("size", [(65, 96), (64, 100), (0, 64), (-32, 64)])
def test_sizes_off_the_stride_are_refused(model, size):
    with pytest.raises(ValueError, match=rf"images are {size[0]} x {size[1]}; both sides must be positive multiples"):
        reparameterize_retinanet(model, *size)


@pytest.mark.parametrize(
    ("converter", "lowering", "layout"),
    [
        ("torch-onnx", "matmul/conv", "NCHW"),
        ("litert-torch", "matmul/conv", "NHWC"),
        ("coremltools", "matmul/taps", "BC1S"),
    ],
)
def test_every_format_is_the_model(model, images, expected, tmp_path, converter, lowering, layout):
    """In float32, at a size that is not square; outputs by their names."""
    network = reparameterize_retinanet(model, HEIGHT, WIDTH).network
    lowered = lower(network, Lowering.parse(lowering), LAYOUTS[layout], NCHW())
    by = CONVERTERS[converter]
    path = tmp_path / by.artifact
    options = Options(tmp_path / "log", outputs=("class_logits", "box_deltas"))
    by.load()(lowered, torch.zeros(1, 3, HEIGHT, WIDTH), path, options)
    for image, *answers in zip(images.float().split(1), *(each.split(1) for each in expected), strict=True):
        found = run(by.format, path, image.numpy())
        result = [torch.from_numpy(found[name]).double() for name in options.outputs]
        assert max(errors(result, answers)) < 1e-4
    assert max(errors(result, [each[:1] for each in expected])) > 1e-2  # the last image's are not the first one's


def run(format, path, image):
    if format == "coreml":
        from export.verify.mil_interpreter import MilInterpreter

        return MilInterpreter(path).run({"image": image})
    runner = open_runner(format, path)
    return dict(zip(runner.output_names, runner.run(image), strict=True))
