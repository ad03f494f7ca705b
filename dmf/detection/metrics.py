"""COCO's average precision (cocodataset.org, "Detection evaluation"), computed by pycocotools."""

import contextlib
import io
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dmf.detection.data import Annotated, Truth
from dmf.detection.instances import Detections
from runtime.extras import require

MOST_DETECTIONS = 100  # of a picture, that COCO looks at


class AveragePrecision(NamedTuple):
    """Means over the classes that occur, 0 to 1; NaN where no object is of that size, or none is there at all."""

    ap: float  # mean over the overlaps 0.50, 0.55, ..., 0.95
    ap50: float
    ap75: float
    small: float  # objects below 32 x 32 px
    medium: float
    large: float  # from 96 x 96 px


class Found(NamedTuple):
    """Detections in one picture, in its px; `masks` are COCO's run-length codes."""

    boxes: NDArray[np.float64]  # (N, 4) x1, y1, x2, y2
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    masks: list[dict[str, Any]] | None


def found(detections: Detections, image: Annotated) -> Found:
    """Detections in an image as those in the picture that it was scaled from.

    Boxes are clipped to the picture, so that none lies in what a batch was padded with; a mask's pixel is the one of
    the image that its centre lies in.
    """
    width, height = round(image.width / image.scale_x), round(image.height / image.scale_y)
    limits = np.array([width, height, width, height], np.float64)
    scales = np.array([image.scale_x, image.scale_y, image.scale_x, image.scale_y])
    boxes = detections.boxes.double().cpu().numpy() / scales
    masks = None
    if detections.masks is not None:
        encode = require("pycocotools.mask", extra="train").encode
        rows = ((np.arange(height) + 0.5) * image.scale_y).astype(int)
        columns = ((np.arange(width) + 0.5) * image.scale_x).astype(int)
        pixels = detections.masks.cpu().numpy()[:, rows][:, :, columns].astype(np.uint8)
        masks = [encode(np.asfortranarray(mask)) for mask in pixels]
    return Found(
        np.clip(boxes, 0, limits),
        detections.scores.double().cpu().numpy(),
        detections.labels.cpu().numpy(),
        masks,
    )


def average_precision(
    detections: Mapping[int, Found], truths: Mapping[int, Truth], classes: int, of: Literal["bbox", "segm"] = "bbox"
) -> AveragePrecision:
    """Detections and annotated objects by picture, of labels below `classes`; a picture without detections may be left
    out of `detections`, not out of `truths`.

    Raises `ValueError`: detections in a picture without truth, or masks are asked for and missing. `UsageError`
    without pycocotools.
    """
    if strange := sorted(detections.keys() - truths.keys()):
        raise ValueError(f"detections in picture {strange[0]}, of which no truth is given")
    if of == "segm" and None in [one.masks for many in (detections, truths) for one in many.values()]:
        raise ValueError("masks are to be measured, but detections or annotations have none")
    coco, evaluation = (require(f"pycocotools.{name}", extra="train") for name in ("coco", "cocoeval"))
    images = [{"id": i, "height": 0, "width": 0} for i in truths]  # a run-length code knows its size
    categories = [{"id": label} for label in range(classes)]
    known = [
        {
            "image_id": picture,
            "category_id": int(truth.labels[i]),
            "bbox": as_coco(truth.boxes[i]),
            "area": float(truth.areas[i]),
            "iscrowd": int(truth.crowds[i]),
            **({"segmentation": truth.masks[i]} if of == "segm" and truth.masks is not None else {}),
        }
        for picture, truth in truths.items()
        for i in range(len(truth.labels))
    ]
    guessed = [
        {
            "image_id": picture,
            "category_id": int(one.labels[i]),
            "bbox": as_coco(one.boxes[i]),
            "score": float(one.scores[i]),
            "area": area(one, i, of),
            "iscrowd": 0,
            **({"segmentation": one.masks[i]} if of == "segm" and one.masks is not None else {}),
        }
        for picture, one in detections.items()
        for i in range(len(one.labels))
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress
        evaluator = evaluation.COCOeval(
            index(coco, images, categories, known), index(coco, images, categories, guessed), of
        )
        evaluator.params.maxDets = [1, 10, MOST_DETECTIONS]
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return AveragePrecision(*(float(v) if v >= 0 else float("nan") for v in evaluator.stats[:6]))


def index(
    coco: Any, images: list[dict[str, Any]], categories: list[dict[str, Any]], annotations: list[dict[str, Any]]
) -> Any:
    """pycocotools' table of annotations. Ids count from 1: its evaluation takes a match with id 0 for no match."""
    table = coco.COCO()
    numbered = [annotation | {"id": i} for i, annotation in enumerate(annotations, 1)]
    table.dataset = {"images": images, "categories": categories, "annotations": numbered}
    table.createIndex()
    return table


def area(one: Found, i: int, of: str) -> float:
    """By which a detection counts as small, medium or large."""
    if of == "segm" and one.masks is not None:
        return float(require("pycocotools.mask", extra="train").area(one.masks[i]))
    x1, y1, x2, y2 = one.boxes[i]
    return float((x2 - x1) * (y2 - y1))


def as_coco(box: NDArray[np.float64]) -> list[float]:
    """x1, y1, x2, y2 -> x, y, width, height"""
    x1, y1, x2, y2 = box.tolist()
    return [x1, y1, x2 - x1, y2 - y1]
