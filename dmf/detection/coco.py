"""COCO's annotation format (cocodataset.org, "Data format"): one JSON file, and a folder of pictures.

Everything is checked when the file is read, so that a run does not end in its third hour. What is broken is an error
that names file, annotation and fault. What merely can't be learnt from is counted and left out of the targets: boxes
without an area within their picture (`degenerate`), and crowds, which the metrics know as such. A picture without
objects is a picture like any other.
"""

import json
from collections import defaultdict
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Generator

from dmf.detection.data import DetectionExamples, Truth
from dmf.detection.instances import Target
from dmf.training.data import Splits, UnreadableImage, read_picture
from runtime.errors import UsageError
from runtime.extras import require

ADVICE = "correct the file or remove the entry"


class Photo(NamedTuple):
    """An entry of `images`."""

    file_name: str
    height: int  # px
    width: int


class Instance(NamedTuple):
    """An entry of `annotations`; `label` counts the categories in the order of their ids."""

    box: tuple[float, float, float, float]  # x1, y1, x2, y2 in px, within the picture
    label: int
    area: float  # px, of the object
    crowd: bool
    segmentation: Any  # polygons or a run-length code, as in the file; None where there is none

    @property
    def degenerate(self) -> bool:
        x1, y1, x2, y2 = self.box
        return x2 <= x1 or y2 <= y1


class Annotations(NamedTuple):
    """A whole file: `instances[i]` are the objects of `photos[i]`."""

    classes: tuple[str, ...]
    photos: list[Photo]
    instances: list[list[Instance]]
    degenerate: int  # boxes without an area


def read_annotations(path: Path) -> Annotations:
    """The file at `path`; pictures and categories are in the order of their ids.

    UsageError: not JSON, a missing or mistyped field, an id that comes twice or belongs to nothing, a box of other
    than four finite numbers, a negative width, height or area, or a segmentation that is neither polygons nor a
    run-length code of the picture's size; and no picture or no category at all.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; give a folder with COCO's annotations/ in it") from error
    except ValueError as error:  # of JSON, and of bytes that are no text
        raise UsageError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: holds a {type(content).__name__}; COCO's format is an object with images")
    tables: dict[str, dict[int, dict[str, Any]]] = {}
    for name in ("images", "categories", "annotations"):
        entries = content.get(name)
        if not isinstance(entries, list):
            raise UsageError(f"{path}: has no list of {name}, which COCO's format has")
        tables[name] = table = {}
        for i, entry in enumerate(entries):
            if not isinstance(entry, dict) or type(entry.get("id")) is not int:
                raise UsageError(f"{path}: {name}[{i}] has no whole number as its id; {ADVICE}")
            if entry["id"] in table:
                raise UsageError(f"{path}: two {name} have the id {entry['id']}; {ADVICE}")
            table[entry["id"]] = entry
    for name in ("images", "categories"):
        if not tables[name]:
            raise UsageError(f"{path}: has no {name}, so there is nothing to learn or to find")

    def fault(entry: Any, what: str) -> UsageError:
        return UsageError(f"{path}: {what} in {plain(entry)}; {ADVICE}")

    photos = {i: photo_of(tables["images"][i], fault) for i in sorted(tables["images"])}
    labels = {i: label for label, i in enumerate(sorted(tables["categories"]))}
    classes: list[Any] = [tables["categories"][i].get("name") for i in labels]
    if bad := [name for name in classes if not isinstance(name, str) or not name]:
        raise UsageError(f"{path}: a category's name is {bad[0]!r}; it must be a text")
    found: dict[int, list[Instance]] = defaultdict(list)
    for entry in tables["annotations"].values():
        if entry.get("image_id") not in photos:
            raise fault(entry, "no such image_id as")
        if entry.get("category_id") not in labels:
            raise fault(entry, "no such category_id as")
        instance = instance_of(entry, photos[entry["image_id"]], labels[entry["category_id"]], fault)
        found[entry["image_id"]].append(instance)
    return Annotations(
        tuple(classes),
        list(photos.values()),
        [found[i] for i in photos],
        sum(instance.degenerate for instances in found.values() for instance in instances),
    )


Fault = Callable[[Any, str], UsageError]


def photo_of(entry: dict[str, Any], fault: Fault) -> Photo:
    name, height, width = (entry.get(field) for field in ("file_name", "height", "width"))
    if not isinstance(name, str) or not name:
        raise fault(entry, "no file_name")
    if type(height) is not int or type(width) is not int or min(height, width) < 1:
        raise fault(entry, "height and width must be positive whole numbers")
    return Photo(name, height, width)


def instance_of(entry: dict[str, Any], photo: Photo, label: int, fault: Fault) -> Instance:
    """COCO's x, y, width, height become corners, clipped to the picture."""
    box, segmentation, crowd = entry.get("bbox"), entry.get("segmentation"), entry.get("iscrowd", 0)
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        raise fault(entry, "bbox must be four finite numbers")
    x, y, width, height = map(float, box)
    if width < 0 or height < 0:
        raise fault(entry, "bbox is x, y, width, height, and neither of the last two may be negative")
    area = entry.get("area", width * height)
    if not is_number(area) or area < 0:
        raise fault(entry, "area must be a finite number, at least 0")
    if crowd not in (0, 1):
        raise fault(entry, "iscrowd must be 0 or 1")
    if not is_segmentation(segmentation, photo):
        raise fault(entry, f"segmentation must be polygons or a run-length code of {photo.height} x {photo.width}")
    x1, x2 = (min(max(v, 0.0), float(photo.width)) for v in (x, x + width))
    y1, y2 = (min(max(v, 0.0), float(photo.height)) for v in (y, y + height))
    return Instance((x1, y1, x2, y2), label, float(area), bool(crowd), segmentation or None)


def is_number(value: Any) -> bool:
    return type(value) in (int, float) and isfinite(value)


def is_segmentation(value: Any, photo: Photo) -> bool:
    """Polygons of at least three points each, a run-length code (packed or not), or none."""
    if isinstance(value, dict):
        counts = value.get("counts")
        if value.get("size") != [photo.height, photo.width]:
            return False
        if isinstance(counts, str):
            return bool(counts)
        return (
            isinstance(counts, list)
            and all(type(v) is int and v >= 0 for v in counts)
            and sum(counts) == photo.height * photo.width
        )
    return not value or (
        isinstance(value, list)
        and all(isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0 and all(map(is_number, p)) for p in value)
    )


def run_lengths(segmentation: Any, photo: Photo) -> dict[str, Any]:
    """The packed run-length code of a segmentation; of None, that of an empty mask. UsageError without pycocotools."""
    codec = require("pycocotools.mask", extra="train")
    if segmentation is None:
        return codec.encode(np.zeros((photo.height, photo.width), np.uint8, order="F"))
    if isinstance(segmentation, list):
        return codec.merge(codec.frPyObjects(segmentation, photo.height, photo.width))
    if isinstance(segmentation["counts"], list):
        return codec.frPyObjects(segmentation, photo.height, photo.width)
    return segmentation


class CocoPictures(DetectionExamples):
    """The pictures in `folder` that a file annotates; with `masks`, targets have them."""

    def __init__(self, annotations: Annotations, folder: Path, masks: bool, skip_unreadable: bool) -> None:
        super().__init__(annotations.classes, skip_unreadable)
        self.annotations, self.folder, self.masks = annotations, folder, masks
        self.degenerate = annotations.degenerate

    def __len__(self) -> int:
        return len(self.annotations.photos)

    def example(self, index: int, generator: Generator) -> tuple[Image.Image, Target]:
        """Nothing is random. Raises `UnreadableImage`, also for a picture of another size than annotated."""
        photo = self.annotations.photos[index]
        path = str(self.folder / photo.file_name)
        picture = read_picture(path)
        if picture.size != (photo.width, photo.height):
            annotated = f"{photo.width} x {photo.height} px in its annotations"
            raise UnreadableImage(path, f"it is {picture.width} x {picture.height} px, but {annotated}")
        learnt = [i for i in self.annotations.instances[index] if not (i.crowd or i.degenerate)]
        boxes = torch.tensor([i.box for i in learnt], dtype=torch.float32).reshape(-1, 4)
        labels = torch.tensor([i.label for i in learnt], dtype=torch.int64)
        return picture, Target(boxes, labels, self._decoded(learnt, photo) if self.masks else None)

    def _decoded(self, instances: list[Instance], photo: Photo) -> torch.Tensor:
        """(N, H, W) bool"""
        decode = require("pycocotools.mask", extra="train").decode
        masks = [decode(run_lengths(i.segmentation, photo)) for i in instances]
        return torch.from_numpy(np.stack(masks)).bool() if masks else torch.zeros(0, *photo[1:], dtype=torch.bool)

    def truth(self, index: int) -> Truth:
        """Crowds included, and boxes without an area, as COCO's evaluation has them."""
        photo, instances = self.annotations.photos[index], self.annotations.instances[index]
        return Truth(
            np.array([i.box for i in instances], np.float64).reshape(-1, 4),
            np.array([i.label for i in instances], np.int64),
            np.array([i.area for i in instances], np.float64),
            np.array([i.crowd for i in instances], np.bool_),
            [run_lengths(i.segmentation, photo) for i in instances] if self.masks else None,
        )


def coco(path: Path, train: str, heldout: str, masks: bool, skip_unreadable: bool) -> Splits[CocoPictures]:
    """COCO's layout: `path` has annotations/instances_NAME.json and the pictures NAME/*, for both names.

    UsageError: a file that `read_annotations` refuses, a missing folder, other categories in one than in the other.
    """
    parts = []
    for name in (train, heldout):
        if not (path / name).is_dir():
            raise UsageError(f"{path / name}: no such folder; COCO's layout has {name}/ and annotations/ in {path}")
        annotations = read_annotations(path / "annotations" / f"instances_{name}.json")
        parts.append(CocoPictures(annotations, path / name, masks, skip_unreadable))
    if odd := sorted(set(parts[0].classes) ^ set(parts[1].classes)) or (parts[0].classes != parts[1].classes):
        what = f"{odd[0]!r} is in one only" if isinstance(odd, list) else "their order differs"
        raise UsageError(f"{path}: {train} and {heldout} must have the same categories, but {what}")
    return Splits(*parts)


def plain(entry: Any) -> str:
    """Enough of an entry to find it."""
    shown = {k: v for k, v in entry.items() if k != "segmentation"}
    return json.dumps(shown)[:200]
