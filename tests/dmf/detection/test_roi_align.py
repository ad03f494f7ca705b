"""RoIAlign against loops over single readings, and against torchvision's where it is present."""

import onnxruntime
import pytest
import slow_detection as slow
import torch
from onnx import TensorProto, helper

from dmf.detection.roi_align import level_of, roi_align

STRIDES = (4, 8, 16)
LARGEST_ERROR = 1e-12


@pytest.fixture
def scene():
    """Three maps of two images of 64 x 96 px, and regions inside, across the border, outside, and without area."""
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 5, 64 // s, 96 // s, generator=generator, dtype=torch.float64) for s in STRIDES]
    odd = torch.tensor(
        [[-20, -9, 40, 30], [60, 40, 130, 90], [200, 10, 260, 40], [0, 0, 96, 64], [33, 20, 33, 20], [10, 5, 10, 60]]
    )
    boxes = torch.cat([slow.random_boxes(12, 64, generator), odd.double()])
    images = torch.randint(2, (len(boxes),), generator=generator)
    return maps, boxes, images, torch.arange(len(boxes)) % 3


def expected(maps, boxes, images, levels, size, samples, half=0.5):
    rows = [
        slow.roi_align(maps[level][image], STRIDES[level], box, size, samples, half)
        for box, image, level in zip(boxes.tolist(), images.tolist(), levels.tolist(), strict=True)
    ]
    return torch.stack(rows)


@pytest.mark.parametrize(("size", "samples"), [(7, 2), (3, 1), (2, 3)])
def test_roi_align(scene, size, samples):
    maps, boxes, images, levels = scene
    found = roi_align(maps, STRIDES, boxes, images, levels, size, samples)
    torch.testing.assert_close(found, expected(*scene, size, samples), rtol=0, atol=LARGEST_ERROR)
    assert (found - expected(*scene, size, samples, half=0.0)).abs().max() > 0.1  # the unaligned form
    assert (found - expected(maps, boxes, 1 - images, levels, size, samples)).abs().max() > 0.1
    assert (found[14] == 0).all() and (found[13] != 0).any()  # far outside; across the border


def test_of_a_plane_is_exact():
    """Bilinear readings of a linear function are its values: bin centres, in closed form."""
    y, x = torch.meshgrid(torch.arange(16.0) + 0.5, torch.arange(24.0) + 0.5, indexing="ij")
    plane = (3 * x - 2 * y)[None, None].double()
    box = torch.tensor([[8.0, 12, 64, 40]]).double()
    zero = torch.zeros(1, dtype=torch.int64)
    found = roi_align([plane], [4], box, zero, zero, 7)[0, 0]
    column, row = 2 + (torch.arange(7) + 0.5) * 2, 3 + (torch.arange(7) + 0.5)
    torch.testing.assert_close(found, (3 * column[None] - 2 * row[:, None]).double(), rtol=0, atol=LARGEST_ERROR)


def test_of_booleans(scene):
    maps, boxes, images, levels = scene
    masks = [x > 0 for x in maps]
    found = roi_align(masks, STRIDES, boxes, images, levels, 4)
    assert torch.equal(found, roi_align([m.double() for m in masks], STRIDES, boxes, images, levels, 4))
    assert ((found > 0) & (found < 1)).any()


def test_of_no_regions(scene):
    none = torch.zeros(0, dtype=torch.int64)
    assert roi_align(scene[0], STRIDES, torch.zeros(0, 4).double(), none, none, 7).shape == (0, 5, 7, 7)


def test_gradient(scene):
    maps, boxes, images, levels = scene
    leaves = [m[:, :1, :6, :6].clone().requires_grad_() for m in maps]
    assert torch.autograd.gradcheck(
        lambda *m: roi_align(m, STRIDES, boxes[8:] / 4, images[8:], levels[8:], 2), leaves, fast_mode=True
    )


def test_level_of():
    sides = [1, 30, 55.9, 56, 111.9, 112, 223.9, 224, 447, 448, 2000]
    boxes = torch.tensor([[10, 20, 10 + side * 2, 20 + side / 2] for side in sides])
    assert level_of(boxes, 4).tolist() == [0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 3]
    assert level_of(boxes, 4).tolist() == [slow.level(box) for box in boxes.tolist()]
    assert level_of(torch.tensor([[3.0, 3, 3, 9]]), 4).tolist() == [0]
    assert level_of(boxes, 2).max() == 1


def test_exports(scene):
    maps, boxes, images, levels = scene

    class Regions(torch.nn.Module):
        def forward(self, maps, boxes, images, levels):
            return roi_align(maps, STRIDES, boxes, images, levels, 7)

    program = torch.export.export(Regions(), (maps, boxes, images, levels))
    other = (boxes.flip(0), images.flip(0), levels.flip(0))
    torch.testing.assert_close(program.module()(maps, *other), Regions()(maps, *other), rtol=0, atol=LARGEST_ERROR)


def test_is_onnx_runtimes(scene):
    """Its own implementation of the ONNX operator, whose half_pixel mode is the aligned form."""
    maps, boxes, images, _ = scene
    inputs = {"x": maps[1].float(), "boxes": boxes.float(), "images": images}
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT64)
    values = [helper.make_tensor_value_info(n, k, t.shape) for (n, t), k in zip(inputs.items(), kinds, strict=True)]
    for mode in ("half_pixel", "output_half_pixel"):
        node = helper.make_node(
            "RoiAlign",
            list(inputs),
            ["y"],
            coordinate_transformation_mode=mode,
            output_height=7,
            output_width=7,
            sampling_ratio=2,
            spatial_scale=1 / STRIDES[1],
        )
        result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        graph = helper.make_graph([node], "regions", values, [result])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        wanted = torch.from_numpy(session.run(None, {k: v.numpy() for k, v in inputs.items()})[0])
        found = roi_align([m.float() for m in maps], STRIDES, boxes.float(), images, torch.ones_like(images), 7)
        assert torch.allclose(found, wanted, rtol=0, atol=1e-5) == (mode == "half_pixel")


def test_is_torchvisions(scene):
    ops = pytest.importorskip("torchvision.ops")
    maps, boxes, images, _ = scene
    numbered = torch.cat([images[:, None].double(), boxes], 1)
    wanted = ops.roi_align(maps[1], numbered, 7, 1 / 8, 2, aligned=True)
    torch.testing.assert_close(roi_align(maps, STRIDES, boxes, images, torch.ones_like(images), 7), wanted)
