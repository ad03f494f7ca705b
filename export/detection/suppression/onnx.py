"""Suppression in ONNX, by NonMaxSuppression: class by class over all anchors, so one anchor can be two objects.

Its limit is for each class; TopK chooses the surest of all classes, of equal scores the lower class, then the anchor.
"""

from pathlib import Path

from export.detection.suppression import count_anchors
from runtime.manifest import Detection

PREFIX = "dense_"  # of what were outputs

# NonMaxSuppression answers rows of image, class and anchor, and takes either order of x and y
SUPPRESSION = """
suppression (float[1, {anchors}, {classes}] dense_scores, float[1, {anchors}, 4] dense_boxes)
    => (float[N, 4] boxes, float[N] scores, int64[N] labels)
    <
        int64[1] nms_most = {{{most}}},
        float nms_iou = {{{iou!r}}},
        float nms_threshold = {{{threshold!r}}},
        int64 nms_class = {{1}},
        int64[2] nms_place = {{0, 2}}
    >
{{
    nms_scores = Transpose <perm = [0, 2, 1]> (dense_scores)
    nms_found = NonMaxSuppression (dense_boxes, nms_scores, nms_most, nms_iou, nms_threshold)
    nms_found_scores = GatherND (nms_scores, nms_found)
    nms_found_count = Shape (nms_found_scores)
    nms_count = Min (nms_found_count, nms_most)
    scores, nms_order = TopK (nms_found_scores, nms_count)
    nms_kept = Gather (nms_found, nms_order)
    labels = Gather <axis = 1> (nms_kept, nms_class)
    nms_places = Gather <axis = 1> (nms_kept, nms_place)
    boxes = GatherND (dense_boxes, nms_places)
}}
"""


def append(artifact: Path, detection: Detection, num_classes: int) -> None:
    """Rewrite the .onnx file. `ConverterError`: its outputs can't be suppressed."""
    import onnx

    model = onnx.load(artifact)
    shapes = {each.name: [d.dim_value for d in each.type.tensor_type.shape.dim] for each in model.graph.output}
    anchors = count_anchors(artifact, shapes, num_classes)
    onnx.compose.add_prefix_graph(
        model.graph,
        PREFIX,
        rename_nodes=False,
        rename_edges=False,
        rename_inputs=False,
        rename_initializers=False,
        rename_value_infos=False,
        inplace=True,
    )
    text = SUPPRESSION.format(
        anchors=anchors,
        classes=num_classes,
        most=detection.max_detections,
        iou=float(detection.nms_iou),
        threshold=float(detection.score_threshold),
    )
    suppression = onnx.parser.parse_graph(text)
    model.graph.value_info.extend(model.graph.output)
    model.graph.node.extend(suppression.node)
    model.graph.initializer.extend(suppression.initializer)
    del model.graph.output[:]
    model.graph.output.extend(suppression.output)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, artifact)
