"""Preprocessing against closed forms in float64 that share none of its code."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from runtime.errors import UsageError
from runtime.preprocess import load_image, to_input


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_to_input_is_the_closed_form(golden_images, input_spec, layout):
    spec = input_spec(layout)
    x = to_input(golden_images, spec)
    assert x.dtype == np.float32
    assert x.flags.c_contiguous
    for channel in range(3):
        plane = x[:, channel] if layout == "NCHW" else x[..., channel]
        pixels = golden_images[..., channel].astype(np.float64)
        exact = (pixels / 255 - spec.mean[channel]) / spec.std[channel]
        np.testing.assert_allclose(plane, exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_raw_values_where_the_graph_normalises(golden_images, input_spec, layout):
    spec = dataclasses.replace(input_spec(layout), normalisation_in_graph=True)
    x = to_input(golden_images, spec)
    interleaved = x if layout == "NHWC" else np.moveaxis(x, 1, 3)
    np.testing.assert_array_equal(interleaved, golden_images)


def test_to_input_refuses_other_shapes_and_types(golden_images, input_spec):
    for images in (golden_images[:, 1:], golden_images[0], golden_images.astype(np.float32)):
        with pytest.raises(UsageError, match=r"takes uint8 \(N, 8, 8, 3\)"):
            to_input(images, input_spec())


def test_load_image_crops_the_centre(tmp_path, input_spec):
    """At the size the spec resizes to, no pixel is interpolated."""
    pixels = np.random.default_rng(0).integers(0, 256, (10, 14, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    np.testing.assert_array_equal(load_image(tmp_path / "wide.png", input_spec()), pixels[1:9, 3:11])
    Image.fromarray(pixels.transpose(1, 0, 2)).save(tmp_path / "tall.png")
    tall = load_image(tmp_path / "tall.png", input_spec())
    np.testing.assert_array_equal(tall, pixels.transpose(1, 0, 2)[3:11, 1:9])


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_a_ramp_stays_a_ramp(tmp_path, input_spec, interpolation):
    """Both interpolations reproduce a linear ramp: resized by 4, its slope is 4 times as steep."""
    ramp = np.broadcast_to(np.arange(40, dtype=np.uint8)[:, None] * 5, (40, 40))
    Image.fromarray(np.stack([ramp] * 3, axis=-1)).save(tmp_path / "ramp.png")
    spec = dataclasses.replace(input_spec(), interpolation=interpolation)
    image = load_image(tmp_path / "ramp.png", spec).astype(np.float64)
    centres = (np.arange(10) + 0.5) * 4 - 0.5
    exact = np.broadcast_to((centres * 5)[1:9, None, None], (8, 8, 3))
    np.testing.assert_allclose(image[1:-1], exact[1:-1], atol=1)


def test_interpolations_differ(tmp_path, input_spec):
    pixels = np.random.default_rng(0).integers(0, 256, (31, 37, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    bicubic, bilinear = (
        load_image(tmp_path / "noise.png", dataclasses.replace(input_spec(), interpolation=each))
        for each in ("bicubic", "bilinear")
    )
    assert (bicubic != bilinear).any()


def test_exif_orientation_is_applied(tmp_path, input_spec):
    pixels = np.random.default_rng(0).integers(0, 256, (10, 10, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    turned = load_image(tmp_path / "turned.png", input_spec())
    np.testing.assert_array_equal(turned, np.rot90(pixels, -1)[1:9, 1:9])


def test_grey_palette_and_alpha_become_rgb(tmp_path, input_spec):
    for mode in ("L", "P", "RGBA", "1"):
        Image.new(mode, (12, 12)).save(tmp_path / f"{mode}.png")
        assert load_image(tmp_path / f"{mode}.png", input_spec()).shape == (8, 8, 3)


def test_what_is_no_image_or_too_small_is_refused(tmp_path, input_spec):
    (tmp_path / "text.png").write_text("no image")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:2000])
    for name in ("text.png", "cut.png", "missing.png"):
        with pytest.raises(UsageError, match=f"{name}: not an image"):
            load_image(tmp_path / name, input_spec())
    Image.new("RGB", (12, 12)).save(tmp_path / "small.png")
    with pytest.raises(UsageError, match="smaller than the crop"):
        load_image(tmp_path / "small.png", dataclasses.replace(input_spec(), resize=7))
