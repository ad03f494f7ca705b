"""Suppression inside an artifact: each format's operator against a slow loop in float64."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import dmf
from dmf.detection import create_detector
from export.convert import CONVERTERS
from export.convert.options import Options
from export.detection.retinanet import reparameterize_retinanet
from export.detection.suppression import append_suppression, least_above
from export.layout import NCHW, NHWC
from export.lowering import Lowering, lower
from export.lowering.bc1s import BC1S
from export.verify.coreml_pipeline import CoreMLPipeline
from export.verify.intermediates import PROGRAM, read_tflite
from export.verify.mil_interpreter import MilInterpreter
from runtime.errors import ConverterError
from runtime.manifest import Detection
from runtime.runners import open_runner

HEIGHT, WIDTH = SIZE = 64, 96  # not square: rows and columns can be confused
FORMS = {"onnx": "onnx_nms", "tflite": "tflite_detection_postprocess", "coreml": "coreml_nms"}
ROUNDING = 4 * 2**-23 * WIDTH  # of corners that were a centre and a size in float32, px


class Fed(nn.Module):
    """Answers with what it is given: (1, 1, A, 4 + K) -> scores (1, A, K), boxes (1, A, 4)."""

    def forward(self, x):
        return x[:, 0, :, 4:] * 1.0, x[:, 0, :, :4] * 1.0


@pytest.fixture(scope="module", params=FORMS)
def format(request):
    return request.param


@pytest.fixture(scope="module")
def convert(format, tmp_path_factory):
    """Converts once: a detector of A anchors and K classes that is fed with what it answers."""
    made = {}

    def converted(anchors, classes):
        if (anchors, classes) not in made:
            made[anchors, classes] = tmp_path_factory.mktemp("dense") / converter(format).artifact
            to_artifact(format, Fed(), torch.zeros(1, 1, anchors, 4 + classes), made[anchors, classes])
        return made[anchors, classes]

    return converted


@pytest.fixture
def suppress(format, convert, tmp_path):
    """Boxes (A, 4), scores (A, K) -> what the artifact finds."""

    def suppressed(boxes, scores, threads=1, **settings):
        path = tmp_path / "suppressing" / converter(format).artifact
        copy(convert(*scores.shape), path)
        append_suppression(format, path, settled(format, **settings), SIZE, scores.shape[1])
        found = run(format, path, np.concatenate([boxes, scores], 1)[None, None], threads)
        if format != "coreml":
            return found
        order = np.argsort(-found[1], kind="stable")[: settings.get("max_detections", 50)]  # as a reader does
        return tuple(each[order] for each in found)

    return suppressed


def converter(format):
    (found,) = (each for each in CONVERTERS.values() if each.format == format and each.name != "onnx2tf")
    return found


def to_artifact(format, graph, example, path, outputs=("scores", "boxes"), **options):
    options = Options(path.parent / "log", {"description": "a detector", "colour": "blue"}, outputs, **options)
    converter(format).load()(graph.eval(), example, path, options)


def copy(artifact, path):
    path.parent.mkdir(exist_ok=True)
    if artifact.is_dir():
        shutil.copytree(artifact, path, dirs_exist_ok=True)
    else:
        shutil.copyfile(artifact, path)


def settled(format, score_threshold=0.25, nms_iou=0.5, max_detections=50):
    return Detection(FORMS[format], score_threshold, nms_iou, max_detections, None)


def run(format, path, image, threads=1):
    """(boxes x1, y1, x2, y2, scores, labels), checked for the contract's names, shapes and types."""
    image = image.astype(np.float32)
    if format == "coreml":
        pipeline = CoreMLPipeline(path)
        assert pipeline.outputs == ("confidence", "coordinates")
        found = pipeline.run({"image": image})
        confidence, coordinates = found["confidence"], found["coordinates"].astype(np.float64)
        assert confidence.dtype == found["coordinates"].dtype == np.float32
        centre, half = coordinates[:, :2], coordinates[:, 2:] / 2
        boxes = np.concatenate([centre - half, centre + half], 1) * [WIDTH, HEIGHT, WIDTH, HEIGHT]
        return boxes, confidence.max(1, initial=0), confidence.argmax(1)
    runner = open_runner(format, path, threads)
    found = dict(zip(runner.output_names, runner.run(image), strict=True))
    if format == "onnx":
        assert {name: (value.ndim, value.dtype) for name, value in found.items()} == {
            "boxes": (2, np.float32),
            "scores": (1, np.float32),
            "labels": (1, np.int64),
        }
        return found["boxes"], found["scores"], found["labels"]
    most = found["scores"].shape[1]
    assert {name: (value.shape, value.dtype) for name, value in found.items()} == {
        "boxes": ((1, most, 4), np.float32),
        "labels": ((1, most), np.float32),
        "scores": ((1, most), np.float32),
        "count": ((1,), np.float32),
    }
    count = int(found["count"][0])
    assert not any(found[name][0, count:].any() for name in ("boxes", "labels", "scores"))
    y1, x1, y2, x2 = found["boxes"][0, :count].T
    return np.stack([x1, y1, x2, y2], 1), found["scores"][0, :count], found["labels"][0, :count]


def slow(format, boxes, scores, score_threshold=0.25, nms_iou=0.5, max_detections=50, by_class=True):
    """What must be found, (boxes, scores, labels), box by box. Core ML's anchors have only their best class."""
    boxes, scores = boxes.astype(np.float32).tolist(), scores.astype(np.float32).tolist()
    candidates = []
    for anchor, of_anchor in enumerate(scores):
        for label, score in enumerate(of_anchor):
            if score > score_threshold and (format != "coreml" or label == of_anchor.index(max(of_anchor))):
                candidates.append((-score, label, anchor))
    kept = []
    for score, label, anchor in sorted(candidates):
        if len(kept) < max_detections and not any(
            iou(boxes[anchor], boxes[other]) > nms_iou for _, group, other in kept if group == label or not by_class
        ):
            kept.append((score, label, anchor))
    return (
        np.array([boxes[anchor] for _, _, anchor in kept]).reshape(-1, 4),
        np.array([-score for score, _, _ in kept]),
        np.array([label for _, label, _ in kept]),
    )


def iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    intersection = width * height
    return intersection / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - intersection)


def agree(found, expected, error=0.0):
    """Whether the same is found, in an order of falling scores; of equal ones of two classes, whichever is first."""
    (boxes, scores, labels), (true_boxes, true_scores, true_labels) = found, expected
    if len(scores) != len(true_scores) or (np.diff(scores) > 0).any():
        return False
    rows, true_rows = np.lexsort([labels, -scores]), np.lexsort([true_labels, -true_scores])
    return (
        (labels[rows] == true_labels[true_rows]).all()
        and (np.abs(scores[rows] - true_scores[true_rows]) <= error).all()
        and (np.abs(boxes[rows] - true_boxes[true_rows]) <= ROUNDING + error * WIDTH).all()
    )


def clusters(anchors, classes, seed=0):
    """Boxes around a few objects, so that many overlap, and scores of 0 to 1."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(0, 1, (20, 2))[rng.integers(20, size=anchors)] * [WIDTH, HEIGHT]
    centre, half = centre + rng.normal(0, 3, (anchors, 2)), rng.uniform(4, 16, (anchors, 2))
    boxes = np.concatenate([centre - half, centre + half], 1).clip(0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
    return boxes, rng.uniform(0, 1, (anchors, classes))


@pytest.mark.parametrize(("anchors", "classes"), [(300, 3), (300, 1), (3000, 3)])
def test_what_is_found_is_what_a_slow_loop_finds(format, suppress, anchors, classes):
    boxes, scores = clusters(anchors, classes)
    found = suppress(boxes, scores)
    assert len(found[1]) == 50  # as many as it may be
    assert agree(found, slow(format, boxes, scores))
    assert not agree(found, slow(format, boxes[:, [1, 0, 3, 2]], scores))
    assert not agree(found, slow(format, boxes, scores, nms_iou=0.45))
    assert not agree(found, slow(format, boxes, scores, max_detections=49))
    assert classes == 1 or not agree(found, slow(format, boxes, scores, by_class=False))


def test_every_one_is_found_where_there_is_room(format, suppress):
    """No class has a limit of its own."""
    boxes, scores = clusters(300, 3)
    settings = {"score_threshold": 0.5, "nms_iou": 0.7, "max_detections": 500}
    found, expected = suppress(boxes, scores, **settings), slow(format, boxes, scores, **settings)
    assert np.bincount(expected[2]).max() < len(expected[1]) < 500
    assert agree(found, expected)
    assert not agree(found, slow(format, boxes, scores, **settings | {"score_threshold": 0.52}))
    assert not agree(found, slow("onnx" if format == "coreml" else "coreml", boxes, scores, **settings))


def test_one_anchor_is_two_objects_but_in_core_ml(format, suppress):
    boxes, scores = clusters(300, 3)
    scores[:] = 0
    scores[7, :2] = 0.9, 0.8
    _, sure, labels = suppress(boxes, scores)
    assert labels.tolist() == ([0] if format == "coreml" else [0, 1])
    assert np.array_equal(sure, np.float32([0.9] if format == "coreml" else [0.9, 0.8]))


def test_nothing_is_found_where_nothing_is(format, suppress):
    boxes, scores = clusters(300, 3)
    found, sure, labels = suppress(boxes, np.zeros_like(scores))
    assert (found.shape, sure.shape, labels.shape) == ((0, 4), (0,), (0,))
    assert len(suppress(boxes, scores)[1]) > 0


def test_limits_are_exclusive(format, suppress):
    """A score at the threshold is none; a box that overlaps by the limit exactly stays."""
    boxes, scores = np.zeros((300, 4)), np.zeros((300, 3))
    boxes[:5] = [[0, 0, 8, 8], [0, 0, 8, 4], [32, 0, 40, 8], [32, 0, 40, 4.001], [48, 0, 56, 8]]
    scores[:5, 1] = [0.9, 0.8, 0.7, 0.6, 0.25]
    scores[5, 2] = np.nextafter(np.float32(0.25), np.float32(1))
    found = suppress(boxes, scores)
    assert np.array_equal(found[1], np.float32([0.9, 0.8, 0.7, scores[5, 2]]))
    assert agree(found, slow(format, boxes, scores))
    assert len(suppress(boxes, scores, score_threshold=0.2499)[1]) == 5
    assert len(suppress(boxes, scores, nms_iou=0.4999)[1]) == 3


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.0])
def test_the_threshold_is_the_one_in_float32(format, suppress, threshold):
    boxes, scores = np.zeros((300, 4)), np.zeros((300, 3))
    scores[0, 0], scores[1, 1] = np.float32(threshold), np.nextafter(np.float32(threshold), np.float32(1))
    assert suppress(boxes, scores, score_threshold=threshold)[2].tolist() == [1]
    assert np.float32(least_above(threshold)) == np.float32(scores[1, 1]) > np.float32(threshold)


def test_of_equal_scores_the_first_anchor_is_surer(format, suppress):
    boxes, scores = np.zeros((300, 4)), np.zeros((300, 3))
    boxes[:60] = [[x, y, x + 8, y + 8] for y in range(0, 60, 10) for x in range(0, 90, 9)]
    boxes[100:160] = boxes[:60] + np.array([1, 0, 1, 0])  # overlap those by 7/9
    scores[:60, 1] = scores[100:160, 1] = 0.5
    found = suppress(boxes, scores, max_detections=20)
    assert agree(found, slow(format, boxes, scores, max_detections=20))
    assert np.abs(found[0] - boxes[:20]).max() <= ROUNDING
    assert not agree(found, slow(format, boxes[::-1], scores[::-1], max_detections=20))


def test_equal_scores_of_two_classes(format, suppress):
    boxes, scores = clusters(300, 3)
    scores = np.round(scores * 8) / 8
    settings = {"score_threshold": 0.8, "nms_iou": 0.3, "max_detections": 400}  # room for all: else any may be the last
    assert agree(suppress(boxes, scores, **settings), slow(format, boxes, scores, **settings))


def test_boxes_of_no_area_suppress_nothing(format, suppress):
    boxes, scores = np.zeros((300, 4)), np.zeros((300, 3))
    boxes[:6] = [[5, 5, 5, 5], [5, 5, 5, 5], [8, 2, 8, 9], [8, 2, 8, 9], [0, 0, 20, 20], [0, 0, 20, 19]]
    scores[:6, 0] = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
    found = suppress(boxes, scores)
    assert np.array_equal(found[1], np.float32([0.9, 0.8, 0.7, 0.6, 0.5]))
    assert agree(found, slow(format, boxes, scores))


@pytest.mark.parametrize("format", ["onnx", "tflite"], indirect=True)
def test_threads_change_nothing(format, suppress):
    boxes, scores = clusters(300, 3)
    assert agree(suppress(boxes, scores, threads=3), slow(format, boxes, scores))


@pytest.fixture(scope="module")
def detector():
    """With random heads, too: fresh ones answer next to nothing but their biases."""
    torch.manual_seed(5)
    model = create_detector("retinanet_dmf_nano")
    dmf.seed_weights(model.backbone, 5)
    for head in (model.class_tower, model.box_tower, model.class_output, model.box_output):
        for value in head.parameters():
            torch.nn.init.normal_(value, std=0.05)
    return model.eval()


@pytest.fixture(scope="module")
def dense(format, detector, tmp_path_factory):
    """A detector as it is exported, decoded; to Core ML with an image input."""
    layout = {"onnx": NCHW(), "tflite": NHWC(), "coreml": BC1S()}[format]
    graph = reparameterize_retinanet(detector, HEIGHT, WIDTH)
    graph.decoded = True
    lowering = Lowering.parse("matmul/taps" if format == "coreml" else "matmul/conv")
    path = tmp_path_factory.mktemp("detector") / converter(format).artifact
    pixels = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.2)} if format == "coreml" else {}
    to_artifact(format, lower(graph, lowering, layout, NCHW()), torch.zeros(1, 3, HEIGHT, WIDTH), path, **pixels)
    return path


@pytest.fixture
def suppressing(format, dense, detector, tmp_path):
    path = tmp_path / converter(format).artifact
    copy(dense, path)
    append_suppression(format, path, settled(format), SIZE, detector.config.num_classes)
    return path


def test_a_detector_finds_what_its_dense_outputs_say(format, dense, suppressing):
    image = np.random.default_rng(3).normal(size=(1, 3, HEIGHT, WIDTH)).astype(np.float32)
    if format == "coreml":
        image = (image * 50 + 128).clip(0, 255).round()
        outputs = MilInterpreter(dense).run({"image": image})
    else:
        runner = open_runner(format, dense)
        outputs = dict(zip(runner.output_names, runner.run(image), strict=True))
    (scores,), (boxes,) = outputs["scores"], outputs["boxes"]
    found = run(format, suppressing, image)
    assert len(found[1]) > 10
    most = len(boxes) if format == "coreml" else 50  # which leaves the choice of the surest to the reader
    assert agree(found, slow(format, boxes, scores, max_detections=most), error=1e-6)
    assert not agree(found, slow(format, boxes, scores, max_detections=most, by_class=False), error=1e-6)
    assert not agree(found, slow(format, boxes, scores, max_detections=most, nms_iou=0.2), error=1e-6)


@pytest.mark.parametrize("format", ["tflite"], indirect=True)
def test_tflite_has_no_more_partitions_and_its_zeros_are_not_stored(format, dense, suppressing):
    before = open_runner(format, dense)
    assert open_runner(format, suppressing).delegate_partitions == before.delegate_partitions
    anchors = before.run(np.zeros((1, 3, HEIGHT, WIDTH), np.float32))[0].shape[1]
    added = sum(0 if each.data is None else len(each.data) for each in read_tflite(suppressing).buffers)
    added -= sum(0 if each.data is None else len(each.data) for each in read_tflite(dense).buffers)
    assert added == 4 * (3 + 1 + 16) < 16 * anchors


@pytest.mark.parametrize("format", ["tflite"], indirect=True)
def test_tflite_takes_weights_from_behind_the_flatbuffer(format, detector, dense, suppressing, tmp_path):
    import flatbuffers

    path = tmp_path / "outside.tflite"
    model = read_tflite(dense)
    largest = max((each for each in model.buffers if each.data is not None), key=lambda each: len(each.data))
    data, largest.data, largest.offset, largest.size = largest.data, None, 2**32, len(largest.data)
    for _ in range(2):  # the second time with the place that is known then
        builder = flatbuffers.Builder()
        builder.Finish(model.Pack(builder), b"TFL3")
        largest.offset = -(-len(builder.Output()) // 16) * 16
    path.write_bytes(bytes(builder.Output()).ljust(largest.offset, b"\0") + data.tobytes())
    append_suppression(format, path, settled(format), SIZE, detector.config.num_classes)
    image = np.random.default_rng(3).normal(size=(1, 3, HEIGHT, WIDTH))
    for a, b in zip(run(format, path, image), run(format, suppressing, image), strict=True):
        assert np.array_equal(a, b) and len(a)


@pytest.mark.parametrize("format", ["onnx"], indirect=True)
def test_onnx_stays_valid_and_what_it_is_described_as(format, dense, suppressing):
    import onnx

    before, after = onnx.load(dense), onnx.load(suppressing)
    onnx.checker.check_model(after, full_check=True)
    assert [entry.version for entry in after.opset_import if not entry.domain] == [20]
    assert before.metadata_props == after.metadata_props and before.graph.input == after.graph.input
    assert [each.name for each in after.graph.output] == ["boxes", "scores", "labels"]
    described = {each.name: each.type.tensor_type for each in after.graph.output}
    assert [described["boxes"].shape.dim[i].WhichOneof("value") for i in (0, 1)] == ["dim_param", "dim_value"]
    assert described["labels"].elem_type == onnx.TensorProto.INT64
    assert {"dense_scores", "dense_boxes"} <= {name for node in after.graph.node for name in node.output}


@pytest.mark.parametrize("format", ["coreml"], indirect=True)
def test_core_ml_stays_what_it_is_described_as(format, dense, suppressing):
    """Input, metadata, version and weights; and Apple's tools can open it."""
    import coremltools as ct

    before, after = (ct.utils.load_spec(str(path)) for path in (dense, suppressing))
    assert after.WhichOneof("Type") == "pipeline"
    assert after.specificationVersion == before.specificationVersion
    assert after.description.metadata == before.description.metadata
    assert list(after.description.input) == list(before.description.input)
    assert after.description.input[0].type.WhichOneof("Type") == "imageType"
    opened = ct.models.MLModel(str(suppressing), skip_model_load=True)
    assert opened.user_defined_metadata["colour"] == "blue" and opened.short_description == "a detector"
    assert contents(dense).keys() == contents(suppressing).keys()
    changed = {name for name, content in contents(dense).items() if contents(suppressing)[name] != content}
    assert changed == {Path(PROGRAM)}
    assert b"weight.bin" not in after.pipeline.models[1].SerializeToString()  # or it would read the detector's


def contents(package):
    return {path.relative_to(package): path.read_bytes() for path in package.rglob("*") if path.is_file()}


@pytest.mark.parametrize("format", ["coreml"], indirect=True)
def test_core_ml_keeps_the_rules_of_apple_s_validator(format, suppressing):
    """PipelineValidator.cpp, NonMaximumSuppressionValidator.cpp: it is not there to be run on this system."""
    import coremltools as ct
    from coremltools.proto.FeatureTypes_pb2 import ArrayFeatureType

    spec = ct.utils.load_spec(str(suppressing))
    known = {each.name: each.type for each in spec.description.input}
    for model in spec.pipeline.models:
        for each in model.description.input:
            assert known[each.name] == each.type
        known |= {each.name: each.type for each in model.description.output}
    for each in spec.description.output:
        assert known[each.name] == each.type
    names = list(spec.pipeline.names)
    assert len(names) == len(set(names)) == len(spec.pipeline.models)

    model = spec.pipeline.models[-1]
    nms, inputs, outputs = model.nonMaximumSuppression, model.description.input, model.description.output
    assert {each.name for each in inputs} == {nms.confidenceInputFeatureName, nms.coordinatesInputFeatureName}
    assert {each.name for each in outputs} == {nms.confidenceOutputFeatureName, nms.coordinatesOutputFeatureName}
    assert {each.type.multiArrayType.dataType for each in (*inputs, *outputs)} == {ArrayFeatureType.FLOAT32}
    assert model.specificationVersion >= ct.target.iOS14
    ranges = {each.name: each.type.multiArrayType.shapeRange.sizeRanges for each in outputs}
    assert not any(each.type.multiArrayType.shape for each in outputs)
    assert {(each[0].lowerBound, each[0].upperBound) for each in ranges.values()} == {(0, -1)}
    classes = len(nms.int64ClassLabels.vector)
    assert (ranges["confidence"][1].lowerBound, ranges["confidence"][1].upperBound) == (classes, classes)
    assert (ranges["coordinates"][1].lowerBound, ranges["coordinates"][1].upperBound) == (4, 4)


@pytest.mark.parametrize("format", ["coreml"], indirect=True)
def test_core_ml_names_its_classes(format, convert, suppressing, tmp_path):
    import coremltools as ct

    path = tmp_path / "named" / "model.mlpackage"
    copy(convert(300, 3), path)
    append_suppression(format, path, settled(format), SIZE, 3, ["cat", "dog", "fox"])
    nms = ct.utils.load_spec(str(path)).pipeline.models[-1].nonMaximumSuppression
    assert list(nms.stringClassLabels.vector) == ["cat", "dog", "fox"]
    nms = ct.utils.load_spec(str(suppressing)).pipeline.models[-1].nonMaximumSuppression
    assert list(nms.int64ClassLabels.vector) == list(range(nms.int64ClassLabels.vector[-1] + 1))


@pytest.mark.parametrize("format", ["coreml"], indirect=True)
def test_only_a_pipeline_is_run_as_one(format, convert, suppressing):
    with pytest.raises(ValueError, match="is not a pipeline"):
        CoreMLPipeline(convert(300, 3))
    with pytest.raises(ValueError, match="is not an ML program"):
        MilInterpreter(suppressing)


def test_what_can_t_be_suppressed_is_refused(format, convert, tmp_path):
    path = convert(300, 3)
    before = contents(path.parent)
    with pytest.raises(ConverterError, match=r"scores \(1, 300, 3\).* needs scores \(1, A, 4\) and boxes \(1, A, 4\)"):
        append_suppression(format, path, settled(format), SIZE, 4)
    assert contents(path.parent) == before
    other = tmp_path / path.name
    to_artifact(format, Fed(), torch.zeros(1, 1, 20, 7), other, ("class_logits", "box_deltas"))
    with pytest.raises(ConverterError, match=r"its outputs are .*class_logits \(1, 20, 3\)"):
        append_suppression(format, other, settled(format), SIZE, 3)
