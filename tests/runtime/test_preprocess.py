"""Preprocessing against closed forms in float64 that share none of its code."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from runtime.errors import UsageError
from runtime.preprocess import INTERPOLATION, load_image, resized_size, to_input


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


@pytest.fixture
def padded_spec(input_spec):
    """By height and width that a picture is padded to."""
    return lambda *size, **changes: dataclasses.replace(input_spec(), fit="pad", resize=None, crop=size, **changes)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(
    ("picture", "inside"),
    [((20, 60), (16, 48)), ((60, 20), (32, 10)), ((32, 48), (32, 48)), ((5, 6), (32, 38)), ((1, 500), (1, 48))],
)
def test_a_picture_is_padded_at_the_right_or_below(tmp_path, padded_spec, interpolation, picture, inside):
    """The whole of it, as Pillow scales it by hand, in the upper left corner; the rest is the mean colour."""
    pixels = np.random.default_rng(0).integers(0, 256, (*picture, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    spec = padded_spec(32, 48, interpolation=interpolation)
    image = load_image(tmp_path / "picture.png", spec)
    assert (image.shape, image.dtype) == ((32, 48, 3), np.uint8)
    height, width = inside
    by_hand = np.asarray(Image.fromarray(pixels).resize((width, height), INTERPOLATION[interpolation]))
    np.testing.assert_array_equal(image[:height, :width], by_hand)
    rest = np.concatenate([image[height:].reshape(-1, 3), image[:height, width:].reshape(-1, 3)])
    assert len(rest) == 32 * 48 - height * width
    assert (rest == [124, 116, 104]).all()  # 0.485, 0.456 and 0.406 of 255 are 123.675, 116.28 and 103.53


def test_the_padding_is_nearly_nothing_once_normalised(tmp_path, padded_spec):
    Image.new("RGB", (8, 4), "white").save(tmp_path / "white.png")
    spec = padded_spec(8, 8)
    x = to_input(load_image(tmp_path / "white.png", spec)[None], spec)
    assert np.abs(x[:, :, 4:]).max() <= 0.5 / 255 / min(spec.std)
    assert x[:, :, :4].min() > 2
    other = padded_spec(8, 8, mean=(0.5, 0.0, 1.0), std=(1.0, 1.0, 1.0))
    assert load_image(tmp_path / "white.png", other)[7, 7].tolist() == [128, 0, 255]


@pytest.mark.parametrize(
    ("height", "width", "crop", "expected"),
    [
        (480, 640, (128, 128), (96, 128)),
        (640, 480, (128, 128), (128, 96)),
        (128, 128, (128, 128), (128, 128)),
        (100, 300, (64, 96), (32, 96)),
        (300, 100, (64, 96), (64, 21)),  # 21.3
        (64, 95, (128, 192), (128, 190)),
        (10, 11, (32, 32), (29, 32)),  # 29.09
        (1, 1000, (32, 64), (1, 64)),  # 0.064
        (1000, 1, (32, 64), (32, 1)),  # 0.032
        (1, 1, (32, 64), (32, 32)),
        (2, 3, (64, 96), (64, 96)),
        (1333, 1999, (64, 96), (64, 95)),  # 95.98
    ],
)
def test_the_size_within_the_padding(padded_spec, height, width, crop, expected):
    """The same scale for both sides, the largest that fits; rounded down, but to one pixel at least."""
    found = resized_size(height, width, padded_spec(*crop))
    assert found == expected
    scale = min(crop[0] / height, crop[1] / width)
    for side, exact, most in zip(found, (height * scale, width * scale), crop, strict=True):
        assert max(1.0, exact) - 1 < side + 1e-9 and side <= max(1.0, exact) + 1e-9 and side <= most


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(480, 640, (24, 32)), (640, 480, (32, 24)), (100, 333, (24, 79)), (1, 7, (24, 168)), (7, 1, (168, 24))],
)
def test_the_size_before_a_crop(input_spec, height, width, expected):
    """The shorter side is the one given."""
    assert resized_size(height, width, dataclasses.replace(input_spec(), resize=24)) == expected


def test_exif_orientation_is_applied_before_padding(tmp_path, padded_spec):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    image = load_image(tmp_path / "turned.png", padded_spec(8, 8))
    np.testing.assert_array_equal(image[:, :4], np.rot90(pixels, -1))
    assert (image[:, 4:] == image[0, 7]).all()
