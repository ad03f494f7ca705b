package org.dmf.classifier

/** An output of a [Form]: a side of [shape] is a number, or a letter, which is the same number in all of its outputs. */
class FormOutput(
    val name: String,
    shape: String,
    val dtype: String = "float32",
) {
    val shape: List<String> = shape.split(' ')
}

/** What a detector's outputs are, in this order, boxes in px of the input; [format] is null where it may be any. */
enum class Form(
    val id: String,
    val format: Format?,
    vararg val outputs: FormOutput,
) {
    /** Of each of A anchors the scores of K classes, 0..1, and the box as x1, y1, x2, y2; not suppressed yet. */
    DENSE("dense", null, FormOutput("scores", "1 A K"), FormOutput("boxes", "1 A 4")),

    /** The objects, as many as there are, boxes as x1, y1, x2, y2. */
    ONNX_NMS(
        "onnx_nms",
        Format.ONNX,
        FormOutput("boxes", "-1 4"),
        FormOutput("scores", "-1"),
        FormOutput("labels", "-1", dtype = "int64"),
    ),

    /** The objects, of M rows as many as `count` says, boxes as y1, x1, y2, x2. */
    TFLITE_DETECTION_POSTPROCESS(
        "tflite_detection_postprocess",
        Format.TFLITE,
        FormOutput("boxes", "1 M 4"),
        FormOutput("labels", "1 M"),
        FormOutput("scores", "1 M"),
        FormOutput("count", "1"),
    ),
}

/**
 * How a detector's outputs become the objects in a picture.
 *
 * Scores are above [scoreThreshold]; of two boxes of one class that overlap more than [nmsIou], the surer one stays; at
 * most [maxDetections]. [candidates] bounds what is suppressed, and is null where the graph does it.
 */
data class Detection(
    val form: Form,
    val scoreThreshold: Double,
    val nmsIou: Double,
    val maxDetections: Int,
    val candidates: Int?,
)

/** PackageError: not what an app can read of an artifact in [format]. */
internal fun detection(
    json: JsonFields,
    format: Format,
): Detection {
    val form = json.choice("form", Form.entries.filter { it.format == null || it.format == format }) { it.id }
    if (form != Form.DENSE) json.nothing("candidates")
    return Detection(
        form = form,
        scoreThreshold = json.share("score_threshold"),
        nmsIou = json.share("nms_iou"),
        maxDetections = json.int("max_detections", min = 1),
        candidates = if (form == Form.DENSE) json.int("candidates", min = 1) else null,
    )
}

/** The outputs of [form], which may be followed by others. PackageError: other ones. */
internal fun outputs(
    json: JsonFields,
    form: Form,
): List<OutputSpec> {
    val found = json.listOfFields("outputs")
    if (found.size < form.outputs.size) {
        val names = form.outputs.joinToString { it.name }
        throw json.error("outputs", "are ${found.size}, must be those of form ${form.id}: $names; $EXPORT_AGAIN")
    }
    val letters = mutableMapOf<String, Int>()
    return form.outputs.zip(found).map { (allowed, output) ->
        output.choice("name", listOf(allowed.name)) { it }
        output.choice("dtype", listOf(allowed.dtype)) { it }
        val sides = allowed.shape.map { letters[it]?.toString() ?: it }
        val shape = output.ints("shape", "[${sides.joinToString()}]") { fits(it, sides) }
        letters += allowed.shape.zip(shape)
        OutputSpec(allowed.name, shape)
    }
}

private fun fits(
    shape: List<Int>,
    sides: List<String>,
): Boolean =
    shape.size == sides.size &&
        shape.zip(sides).all { (found, side) -> side.toIntOrNull()?.let { found == it } ?: (found >= 1) }
