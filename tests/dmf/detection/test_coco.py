"""COCO's format: what is read is what pycocotools reads, and what is said of files that won't do."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.mask import encode
from torch import Generator

from dmf.detection.coco import CocoPictures, coco, read_annotations
from dmf.detection.data import DetectionTransform
from dmf.training.data import UnreadableImage
from runtime.errors import UsageError

HEIGHT, WIDTH = 40, 60


def mask_of(seed):
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return (abs(x - 20 - seed) < 9) & (abs(y - 15) < 7 + seed % 3) & ~((abs(x - 20) < 2) & (abs(y - 15) < 2))


def counts_of(mask):
    """COCO's unpacked run lengths: down the columns, zeros first."""
    runs, value, length = [], False, 0
    for bit in mask.T.ravel():
        if bit == value:
            length += 1
        else:
            runs.append(length)
            value, length = bit, 1
    return [*runs, length]


def packed(mask):
    code = encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": code["size"], "counts": code["counts"].decode()}


def content():
    """Three pictures, one of them without objects; categories and pictures with gaps in their ids, out of order."""
    polygon = [[10.0, 5.0, 40.0, 5.0, 40.0, 30.0, 12.5, 33.0]]
    return {
        "images": [
            {"id": 9, "file_name": "b.png", "height": HEIGHT, "width": WIDTH},
            {"id": 4, "file_name": "a.png", "height": HEIGHT, "width": WIDTH},
            {"id": 12, "file_name": "deep/c.png", "height": HEIGHT, "width": WIDTH},
        ],
        "categories": [{"id": 31, "name": "seven"}, {"id": 2, "name": "one"}, {"id": 5, "name": "two"}],
        "annotations": [
            {"id": 1, "image_id": 4, "category_id": 31, "bbox": [10, 5, 30, 28], "segmentation": polygon, "area": 7e2},
            {
                "id": 7,
                "image_id": 4,
                "category_id": 2,
                "bbox": [12, 9, 17, 13],
                "segmentation": packed(mask_of(0)),
                "area": int(mask_of(0).sum()),
                "iscrowd": 0,
            },
            {
                "id": 3,
                "image_id": 9,
                "category_id": 5,
                "bbox": [14.5, 8, 17, 15],
                "segmentation": {"size": [HEIGHT, WIDTH], "counts": counts_of(mask_of(2))},
                "area": int(mask_of(2).sum()),
                "iscrowd": 1,
            },
            {"id": 5, "image_id": 9, "category_id": 5, "bbox": [50, 30, 30, 30], "area": 100},  # over the edge
            {"id": 6, "image_id": 9, "category_id": 5, "bbox": [20, 20, 0, 10], "area": 0},
            {"id": 8, "image_id": 9, "category_id": 5, "bbox": [70, 20, 5, 10], "area": 50},  # beyond the edge
        ],
    }


def write(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))
    return path


@pytest.fixture
def folder(tmp_path):
    for split in ("train2017", "val2017"):
        write(tmp_path / "annotations" / f"instances_{split}.json", content())
        for i, entry in enumerate(content()["images"]):
            path = tmp_path / split / entry["file_name"]
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(i).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
            Image.fromarray(pixels).save(path)
    return tmp_path


def load(folder, masks=True, skip=False):
    return coco(folder, "train2017", "val2017", masks, skip)


def test_as_pycocotools_reads_it(folder):
    theirs = COCO(folder / "annotations" / "instances_train2017.json")
    ours = load(folder).train
    labels = {category: i for i, category in enumerate(sorted(theirs.getCatIds()))}
    assert ours.classes == tuple(theirs.cats[i]["name"] for i in sorted(labels)) == ("one", "two", "seven")
    compared = 0
    for at, image_id in enumerate(sorted(theirs.getImgIds())):
        assert ours.annotations.photos[at].file_name == theirs.imgs[image_id]["file_name"]
        truth = ours.truth(at)
        entries = theirs.imgToAnns[image_id]
        assert truth.labels.tolist() == [labels[e["category_id"]] for e in entries]
        assert truth.areas.tolist() == [e["area"] for e in entries]
        assert truth.crowds.tolist() == [e.get("iscrowd", 0) for e in entries]
        learnt = [e for e in entries if e["id"] in (1, 7, 5)]
        picture, target = ours.example(at, Generator())
        assert picture.size == (WIDTH, HEIGHT)
        assert target.labels.tolist() == [labels[e["category_id"]] for e in learnt]
        for entry, box, mask in zip(learnt, target.boxes.tolist(), target.masks.numpy(), strict=True):
            x, y, w, h = entry["bbox"]
            assert box == [x, y, min(x + w, WIDTH), min(y + h, HEIGHT)]
            expected = theirs.annToMask(entry).astype(bool) if "segmentation" in entry else np.zeros_like(mask)
            np.testing.assert_array_equal(mask, expected)
            compared += expected.any() and (mask != np.roll(expected, 1, 1)).any()
    assert compared == 2


def test_crowds_and_boxes_without_area_are_not_learnt(folder):
    ours = load(folder, masks=False).train
    assert ours.annotations.degenerate == 2
    _, target = ours.example(1, Generator())
    assert target.masks is None and target.boxes.tolist() == [[50, 30, 60, 40]]
    truth = ours.truth(1)
    assert truth.crowds.tolist() == [True, False, False, False] and truth.masks is None
    assert len(truth.boxes) == 4  # the metrics see all of them


def test_a_picture_without_objects(folder):
    ours = load(folder).train
    _, target = ours.example(2, Generator())
    assert target.boxes.shape == (0, 4) and target.masks.shape == (0, HEIGHT, WIDTH)
    assert ours.truth(2).boxes.shape == (0, 4)
    bare = content() | {"annotations": []}
    write(folder / "annotations" / "instances_train2017.json", bare)
    images, known = load(folder).train.batch(
        [load(folder).train.sample(i, DetectionTransform((), 1333, 0.5), 0, Generator()) for i in range(3)]
    )
    assert images.shape == (3, 3, 64, 64) and all(len(one.target.boxes) == 0 for one in known)


def test_unpacked_run_lengths(folder):
    from pycocotools.mask import decode

    truth = load(folder).train.truth(1)
    np.testing.assert_array_equal(decode(truth.masks[0]), mask_of(2))
    assert not decode(truth.masks[1]).any()


def test_thousands_of_objects(folder):
    values = content()
    one = values["annotations"][1]
    values["annotations"] = [one | {"id": i, "bbox": [i % 50, i % 30, 5, 5]} for i in range(3000)]
    path = write(folder / "many.json", values)
    pictures = CocoPictures(read_annotations(path), folder / "train2017", False, False)
    assert len(pictures.example(0, Generator())[1].boxes) == 3000
    assert len(pictures.truth(0).boxes) == 3000


def changed(table, index, **fields):
    values = content()
    entry = values[table][index]
    entry |= fields
    values[table][index] = {k: v for k, v in entry.items() if v is not ...}
    return values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "holds a list; COCO's format is an object with images"),
        ({"images": []}, "has no list of categories, which COCO's format has"),
        (content() | {"images": [], "annotations": []}, "has no images, so there is nothing to learn"),
        (content() | {"categories": [], "annotations": []}, "has no categories, so there is nothing"),
        (content() | {"annotations": {}}, "has no list of annotations"),
        (changed("images", 0, id="9"), r"images\[0\] has no whole number as its id; correct the file or remove"),
        (changed("images", 0, id=4), "two images have the id 4"),
        (changed("categories", 0, id=2), "two categories have the id 2"),
        (changed("annotations", 0, id=7), "two annotations have the id 7"),
        (changed("images", 0, file_name=...), r'no file_name in {"id": 9'),
        (changed("images", 0, height=0), "height and width must be positive whole numbers in"),
        (changed("categories", 0, name=None), "a category's name is None; it must be a text"),
        (changed("annotations", 0, image_id=5), r'no such image_id as in {"id": 1, "image_id": 5'),
        (changed("annotations", 0, category_id=1), "no such category_id as in"),
        (changed("annotations", 0, bbox=[1, 2, 3]), r"bbox must be four finite numbers in {\"id\": 1"),
        (changed("annotations", 0, bbox=[1, 2, 3, float("nan")]), "bbox must be four finite numbers"),
        (changed("annotations", 0, bbox=[1, 2, 3, "4"]), "bbox must be four finite numbers"),
        (changed("annotations", 0, bbox=[1, 2, -3, 4]), "neither of the last two may be negative"),
        (changed("annotations", 0, area=-1), "area must be a finite number, at least 0"),
        (changed("annotations", 0, iscrowd=2), "iscrowd must be 0 or 1"),
        (changed("annotations", 0, segmentation=[[1, 2, 3, 4]]), "segmentation must be polygons or a run-length code"),
        (changed("annotations", 0, segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "segmentation must be polygons"),
        (changed("annotations", 0, segmentation=[[1, 2, 3, 4, 5, None]]), "segmentation must be polygons"),
        (changed("annotations", 0, segmentation={"size": [3, 3], "counts": "a"}), "a run-length code of 40 x 60"),
        (changed("annotations", 0, segmentation={"size": [40, 60], "counts": [5]}), "segmentation must be polygons"),
        (changed("annotations", 0, segmentation="all"), "segmentation must be polygons"),
    ],
)
def test_refused(tmp_path, values, message):
    path = write(tmp_path / "instances.json", values)
    with pytest.raises(UsageError, match=f"^{re.escape(str(path))}: .*{message}") as caught:
        read_annotations(path)
    assert "\n" not in str(caught.value)


def test_accepted_as_it_is(tmp_path):
    assert len(read_annotations(write(tmp_path / "instances.json", content())).photos) == 3


def test_files_and_folders(folder):
    def says(pattern, **options):
        with pytest.raises(UsageError, match=pattern) as caught:
            load(folder, **options)
        assert "\n" not in str(caught.value)

    annotations = folder / "annotations" / "instances_val2017.json"
    other = content()
    other["categories"][0]["name"] = "eight"
    write(annotations, other)
    says(r"must have the same categories, but 'eight' is in one only")
    other["categories"][0]["name"], other["categories"][1]["name"] = "one", "seven"
    write(annotations, other)
    says(r"must have the same categories, but their order differs")
    annotations.write_text("{")
    says(r"instances_val2017.json: not JSON: ")
    annotations.write_bytes(b"\xff\xfe\x00")
    says(r"instances_val2017.json: not JSON: ")
    annotations.unlink()
    says(r"instances_val2017.json: No such file or directory; give a folder with COCO's annotations/ in it")
    (folder / "val2017").rename(folder / "val")
    says(r"val2017: no such folder; COCO's layout has val2017/ and annotations/ in ")


def test_pictures_that_are_not_what_is_annotated(folder):
    Image.new("RGB", (WIDTH, HEIGHT + 1)).save(folder / "train2017" / "a.png")
    with pytest.raises(UnreadableImage, match=r"a.png: not a whole image: it is 60 x 41 px, but 60 x 40 px in its ann"):
        load(folder).train.example(0, Generator())
    (folder / "train2017" / "b.png").unlink()
    with pytest.raises(UnreadableImage, match=r"b.png"):
        load(folder).train.example(1, Generator())


def test_resized_and_mirrored(folder):
    """Boxes stay the boxes of their masks; what is in a picture moves with them."""
    ours = load(folder).train
    picture, target = ours.example(0, Generator())
    sizes, mirrored = set(), 0
    for seed in range(12):
        transform = DetectionTransform((20, 80), 90, 0.5)
        image, moved = transform(picture, target, Generator().manual_seed(seed))
        height, width = image.shape[1:]
        sizes.add((height, width))
        x, y = width / WIDTH, height / HEIGHT
        expected = target.boxes * torch.tensor([x, y, x, y])
        flipped = torch.stack([width - expected[:, 2], expected[:, 1], width - expected[:, 0], expected[:, 3]], 1)
        is_flipped = not torch.allclose(moved.boxes, expected, atol=1e-3)
        mirrored += is_flipped
        torch.testing.assert_close(moved.boxes, flipped if is_flipped else expected, atol=1e-3, rtol=0)
        assert moved.masks.shape == (2, height, width) and moved.labels.equal(target.labels)
        small = np.asarray(Image.fromarray(target.masks[1].numpy()).resize((width, height), Image.Resampling.NEAREST))
        small = small[:, ::-1] if is_flipped else small
        assert (small != moved.masks[1].numpy()).mean() < 0.02 < (small[:, ::-1] != moved.masks[1].numpy()).mean()
    assert sizes == {(20, 30), (60, 90)} and 0 < mirrored < 12
