"""Data sets: what a picture is, how they are split, and what is said of folders and files that won't do."""

import numpy as np
import pytest
from PIL import Image

from dmf.training.config import DataConfig
from dmf.training.data import UnreadableImage, load, read_picture
from runtime.errors import UsageError

SIZE = (12, 8)


def noise(seed: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SIZE[1], SIZE[0], channels), np.uint8)


def tree(root, splits=("train", "val"), classes=("cat", "ant", "bee"), files=2):
    for split in splits:
        for k, name in enumerate(classes):
            (root / split / name).mkdir(parents=True)
            for i in range(files):
                Image.fromarray(noise(10 * k + i)).save(root / split / name / f"{i}.png")
    return root


def folder(path, **changes):
    return load(DataConfig(name="folder", path=str(path), **changes))


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    splits = load(DataConfig(name="digits"))
    assert splits.train.classes == splits.heldout.classes == tuple("0123456789")
    pictures = [np.asarray(images.picture(i)) for images in splits for i in range(len(images))]
    assert {(p.shape, p.dtype.name) for p in pictures} == {((64, 64, 3), "uint8")}
    assert all((p[..., 0] == p[..., 1]).all() and (p[..., 0] == p[..., 2]).all() for p in pictures[:50])
    # read back at the centre of each of the 8 x 8 cells within the margin of one
    at = np.round((np.arange(1, 9) + 0.5) * 6.4 - 0.5).astype(int)
    small = np.stack([p[np.ix_(at, at, [0])] for p in pictures])
    given, labels = bunch.images.reshape(-1, 64), [label for images in splits for label in images.labels]
    found = small.reshape(-1, 64) * (16 / 255)
    distances = (found**2).sum(1)[:, None] + (given**2).sum(1) - 2 * found @ given.T
    nearest = distances.argmin(1)
    assert sorted(nearest) == list(range(len(given)))  # each digit once
    np.testing.assert_array_equal(bunch.target[nearest], labels)
    assert (bunch.target[nearest] != np.roll(labels, 1)).any()
    assert np.abs(found - given[nearest]).mean() < 0.3 < np.abs(found - given[np.roll(nearest, 1)]).mean()


def test_digits_are_bright_on_a_dark_margin():
    images = load(DataConfig(name="digits")).train
    pictures = np.stack([np.asarray(images.picture(i)) for i in range(50)])
    assert pictures[:, :3].max() == pictures[:, :, -3:].max() == 0
    assert pictures[:, 24:40, 16:48].max((1, 2, 3)).min() > 200


def test_the_split_is_stratified_and_its_seed_decides():
    def heldout(**changes):
        images = load(DataConfig(name="digits", **changes)).heldout
        return [(label, images.picture(i).tobytes()) for i, label in enumerate(images.labels)]

    splits = load(DataConfig(name="digits", heldout_share=0.25))
    totals = np.bincount(splits.train.labels + splits.heldout.labels)
    assert np.abs(np.bincount(splits.heldout.labels) - totals / 4).max() <= 1
    assert np.abs(np.bincount(splits.heldout.labels) - totals / 5).max() > 1
    assert heldout() == heldout()
    assert len(set(heldout()) & set(heldout(split_seed=1))) < 150  # of 360
    with pytest.raises(UsageError, match=r"heldout_share is 0.001, which splits no digits"):
        load(DataConfig(name="digits", heldout_share=0.001))


def test_a_folder_tree_is_read_in_the_order_of_names(tmp_path):
    root = tree(tmp_path)
    (root / "train/ant/notes.txt").write_text("no image")
    (root / "train/ant/._0.png").write_text("what a Mac leaves behind")
    (root / "train/.cache").mkdir()
    (root / "train/bee/deeper").mkdir()
    Image.fromarray(noise(99)).save(root / "train/bee/deeper/x.PNG")
    splits = folder(root)
    assert splits.train.classes == ("ant", "bee", "cat")
    assert splits.train.labels == [0, 0, 1, 1, 1, 2, 2]
    assert splits.heldout.labels == [0, 0, 1, 1, 2, 2]
    seeds = [10, 11, 20, 21, 99, 0, 1]
    for i, seed in enumerate(seeds):
        np.testing.assert_array_equal(np.asarray(splits.train.picture(i)), noise(seed))
        assert (np.asarray(splits.train.picture(i)) != noise(seed + 1)).any()


def test_every_mode_becomes_upright_rgb(tmp_path):
    def reread(image, name="x.png", **options):
        image.save(tmp_path / name, **options)
        return np.asarray(read_picture(str(tmp_path / name))).astype(int)

    pixels, grey = noise(0), noise(1, 1)[..., 0]
    assert (reread(Image.fromarray(pixels)) == pixels).all()
    assert (reread(Image.fromarray(grey)) == grey[..., None]).all()
    palette = Image.fromarray(pixels).quantize(7)
    assert (reread(palette) == np.asarray(palette.convert("RGB"))).all()
    assert (reread(Image.fromarray(grey > 127)) == 255 * (grey > 127)[..., None]).all()
    alpha = np.dstack([pixels, grey])
    over = [pixels * (grey / 255)[..., None] + paper * (1 - grey / 255)[..., None] for paper in (255, 0)]
    white, black = (np.abs(reread(Image.fromarray(alpha)) - each).max() for each in over)
    assert white <= 1 < black
    deep = (grey.astype(np.uint16) << 8) + grey[::-1]
    assert np.abs(reread(Image.fromarray(deep)) - deep[..., None] / 257).max() <= 0.5
    ink = np.full((*grey.shape, 4), (255, 0, 0, 0), np.uint8)  # all cyan
    assert (reread(Image.fromarray(ink, "CMYK"), "x.tif") == (0, 255, 255)).all()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    turned = reread(Image.fromarray(pixels), exif=exif)
    np.testing.assert_array_equal(turned, np.rot90(pixels, -1))
    assert turned.shape != pixels.shape


def damaged(path, how):
    if how == "missing":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("no image")
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 9 // 10])


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "gif"])
@pytest.mark.parametrize("how", ["missing", "empty", "text", "cut"])
def test_what_is_not_a_whole_image_is_unreadable(tmp_path, suffix, how):
    path = tmp_path / f"x.{suffix}"
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    assert read_picture(str(path)).size == (64, 64)
    damaged(path, how)
    with pytest.raises(UnreadableImage, match=rf"x\.{suffix}: not a whole image: .*skip unreadable files") as caught:
        read_picture(str(path))
    assert caught.value.path == str(path)


def test_folders_that_are_no_data_set(tmp_path):
    def says(root, pattern):
        with pytest.raises(UsageError, match=pattern) as caught:
            folder(root)
        assert "\n" not in str(caught.value)

    says(tmp_path / "nowhere", r"nowhere/train: no such folder; the data set is a folder with train/ and val/")
    says(tree(tmp_path / "unsplit", splits=["train"]), r"unsplit/val: no such folder")
    (tmp_path / "empty/train").mkdir(parents=True)
    says(tmp_path / "empty", r"empty/train: no class folders in it; give at least two")
    says(tree(tmp_path / "single", classes=["cat"]), r"single/train: one class, 'cat', in it; give at least two")
    hollow = tree(tmp_path / "hollow")
    (hollow / "val/bee/0.png").unlink()
    assert len(folder(hollow).heldout) == 5
    (hollow / "val/bee/1.png").rename(hollow / "val/bee/1.txt")
    says(hollow, r"hollow/val/bee: no images in it \(\.bmp, .*\); add some or remove the class")
    odd = tree(tmp_path / "odd")
    (odd / "val/bee").rename(odd / "val/wasp")
    says(odd, r"must have the same classes, but 'bee' is in train/ only, and 1 more")
    more = tree(tree(tmp_path / "more"), splits=["val"], classes=["zebra"])
    says(more, r"must have the same classes, but 'zebra' is in val/ only$")
