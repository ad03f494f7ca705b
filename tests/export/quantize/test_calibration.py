"""Calibration pictures are what an evaluation sees, and nothing else passes for one."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import dmf
from dmf.training.augment import eval_crop
from dmf.training.config import read
from dmf.training.data import load
from export.plan import input_spec, make_plan
from export.quantize.calibration import read_calibration
from runtime.errors import UsageError
from runtime.preprocess import load_image

CONFIG = dmf.VARIANTS["dmf_nano"]
SIZE = CONFIG.image_size


def picture(width=SIZE, height=SIZE, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def test_pictures_are_those_of_an_evaluation(tmp_path):
    sizes = {"b.png": (200, 90), "a.jpg": (64, 300), "d.webp": (65, 64), "c.BMP": (71, 71)}
    for seed, (name, size) in enumerate(sizes.items()):
        picture(*size, seed).save(tmp_path / name)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    picture(120, 80, 9).save(tmp_path / "e.jpeg", exif=exif)
    for name in (".hidden.png", "notes.txt", "f.gif"):
        (tmp_path / name).write_text("no picture")
    spec = input_spec(make_plan(dmf.create_model("dmf_nano"), "onnx"), (SIZE, SIZE))
    expected = [load_image(tmp_path / name, spec) for name in ("a.jpg", "b.png", "c.BMP", "d.webp", "e.jpeg")]
    calibration = read_calibration(tmp_path, CONFIG)
    assert np.array_equal(calibration.images, np.stack(expected))
    assert calibration.images.dtype == np.uint8
    uncropped = [np.asarray(Image.open(tmp_path / name).convert("RGB").resize((SIZE, SIZE))) for name in sizes]
    assert not any(np.array_equal(a, b) for a in uncropped for b in expected)
    assert calibration.source == f"folder {tmp_path.name}"


def test_the_hash_is_of_the_pixels(tmp_path):
    hashes = set()
    for seeds in ((0, 1), (0, 2), (1, 0)):
        for name, seed in zip("ab", seeds, strict=True):
            picture(seed=seed).save(tmp_path / f"{name}.png")
        calibration = read_calibration(tmp_path, CONFIG)
        assert calibration.sha256 == hashlib.sha256(calibration.images.tobytes()).hexdigest()
        hashes.add(calibration.sha256)
    assert len(hashes) == 3


@pytest.mark.parametrize(("count", "few"), [(1, True), (99, True), (100, False)])
def test_few_pictures_are_warned_of(count, few, tmp_path):
    for i in range(count):
        picture(seed=i).save(tmp_path / f"{i}.png")
    warning = read_calibration(tmp_path, CONFIG).warning
    assert (warning is not None) == few
    assert warning is None or (f"only {count} " in warning and "100 or more" in warning and "\n" not in warning)


def refused(folder, config=CONFIG):
    with pytest.raises(UsageError) as error:
        read_calibration(folder, config)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "LA", "I;16", "CMYK"])
def test_other_modes_are_refused(mode, tmp_path):
    path = tmp_path / ("odd.jpg" if mode == "CMYK" else "odd.png")
    grey = Image.fromarray(np.asarray(picture(200, 200).convert("L")).astype(np.uint16) * 257)
    (grey if mode == "I;16" else picture(200, 200).convert(mode)).save(path)
    picture().save(tmp_path / "sound.png")
    message = refused(tmp_path)
    assert message.startswith(f"{path}: ") and f"mode is {mode}" in message and "RGB" in message
    path.unlink()
    read_calibration(tmp_path, CONFIG)


@pytest.mark.parametrize("size", [(SIZE - 1, 200), (200, SIZE - 1), (8, 8)])
def test_small_pictures_are_refused(size, tmp_path):
    picture(*size).save(tmp_path / "small.png")
    message = refused(tmp_path)
    assert "small.png" in message and f"{size[0]} x {size[1]} px" in message and f"{SIZE} x {SIZE} or more" in message
    picture(max(size[0], SIZE), max(size[1], SIZE)).save(tmp_path / "small.png")
    read_calibration(tmp_path, CONFIG)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp"])
@pytest.mark.parametrize("share", [0, 0.01, 0.7])
def test_broken_files_are_refused(suffix, share, tmp_path):
    path = tmp_path / f"broken{suffix}"
    picture(200, 200).save(path)
    read_calibration(tmp_path, CONFIG)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    message = refused(tmp_path)
    assert message.startswith(f"{path}: not a whole picture") and "replace or remove" in message


def test_a_folder_without_pictures_is_refused(tmp_path):
    assert "no such folder" in refused(tmp_path / "nowhere")
    (tmp_path / "a.txt").write_text("")
    assert "no pictures" in refused(tmp_path)
    assert "no such folder" in refused(tmp_path / "a.txt")


def test_pictures_that_tell_no_ranges_are_refused(tmp_path):
    for name, colour in (("a", "black"), ("b", "black")):
        Image.new("RGB", (99, 99), colour).save(tmp_path / f"{name}.png")
    assert "one colour" in refused(tmp_path)
    Image.new("RGB", (99, 99), (9, 99, 200)).save(tmp_path / "b.png")
    assert "one colour" in refused(tmp_path)
    for name in "ab":
        picture().save(tmp_path / f"{name}.png")
    assert "all 2 pictures are the same" in refused(tmp_path)
    Image.new("RGB", (99, 99), "black").save(tmp_path / "b.png")  # one that says nothing does no harm
    assert len(read_calibration(tmp_path, CONFIG).images) == 2


def test_the_built_in_pictures_are_of_the_training_split():
    calibration = read_calibration(None, CONFIG)
    splits = load(read("dmf_nano_digits").data)
    train, heldout = (
        {np.asarray(eval_crop(part.picture(i), SIZE)).tobytes(): part.labels[i] for i in range(len(part))}
        for part in splits
    )
    found = [image.tobytes() for image in calibration.images]
    assert calibration.images.shape == (200, SIZE, SIZE, 3) and len(set(found)) == 200
    assert all(each in train and each not in heldout for each in found)
    assert {train[each] for each in found} == set(range(10))
    assert calibration.warning is None and calibration.source == "scikit-learn's digits, 200 of the training split"
    assert read_calibration(None, CONFIG).sha256 == calibration.sha256


@pytest.mark.parametrize(
    "config", [dmf.VARIANTS["dmf_xxs"], replace(CONFIG, num_classes=3), replace(CONFIG, image_size=128)]
)
def test_another_network_needs_a_folder(config):
    message = refused(None, config)
    assert "give a folder" in message and f"{config.image_size} px" in message


def test_the_shipped_network_has_the_config_that_is_known():
    assert dmf.load_checkpoint(dmf.pretrained("dmf_nano"), "dmf_nano").config == CONFIG
