package org.dmf.classifier

/** What holds the network, and so which runtime opens it. */
enum class Format(
    val id: String,
) {
    ONNX("onnx"),
    TFLITE("tflite"),
}

enum class Layout { NCHW, NHWC }

enum class Interpolation { BICUBIC, BILINEAR }

/** How a picture gets the input's size. */
sealed interface Fit {
    /** Its shorter side becomes [resize] px, and its middle is cut out. */
    data class Crop(
        val resize: Int,
    ) : Fit

    /** All of it is resized to fit in, and lies in the upper left corner; the rest has the mean colour. */
    object Pad : Fit
}

/**
 * How a picture becomes the model's input of [cropWidth] x [cropHeight] px.
 *
 * [shape] has -1 for a dynamic batch, [mean] and [std] are of 0..1.
 */
data class InputSpec(
    val name: String,
    val shape: List<Int>,
    val layout: Layout,
    val mean: List<Double>,
    val std: List<Double>,
    val normalisationInGraph: Boolean,
    val fit: Fit,
    val cropHeight: Int,
    val cropWidth: Int,
    val interpolation: Interpolation,
) {
    /** What a picture's shorter side is resized to, in px; at most, where it is padded. */
    val shorterSide: Int
        get() =
            when (fit) {
                is Fit.Crop -> fit.resize
                Fit.Pad -> minOf(cropHeight, cropWidth)
            }
}

/** One output of the model; [shape] has -1 for a dynamic batch. */
data class OutputSpec(
    val name: String,
    val shape: List<Int>,
)

/** The network and its number of parameters. */
data class Model(
    val variant: String,
    val parameters: Long,
)

/** Where the weights came from: [source] is file, seeded or memory. */
data class Checkpoint(
    val source: String,
    val pathName: String?,
    val seed: Long?,
)

/** The toolkit's git commit and whether its working tree was dirty; null where there was no repository. */
data class Source(
    val commit: String?,
    val dirty: Boolean?,
)

/** How near an output came to the oracle when the package was made, and how near it had to. */
data class OutputParity(
    val name: String,
    val maxAbsError: Double,
    val budgetMaxAbsError: Double,
)

/** The proof that the exporter made. */
data class Parity(
    val oracle: String,
    val passed: Boolean,
    val outputs: List<OutputParity>,
)

enum class Role { ARTIFACT, GOLDEN, LABELS }

/** One file of the package; [path] is relative to it, with forward slashes. */
data class PackageFile(
    val path: String,
    val role: Role,
    val sha256: String,
    val sizeBytes: Long,
)

/**
 * `manifest.json`, as far as an app needs it.
 *
 * [outputs] are those that an answer is read from: the logits, or those of [detection]'s form, which is null of a
 * classifier.
 */
data class Manifest(
    val name: String,
    val format: Format,
    val artifact: String,
    val target: String,
    val precision: String,
    val model: Model,
    val checkpoint: Checkpoint,
    val source: Source,
    val input: InputSpec,
    val outputs: List<OutputSpec>,
    val detection: Detection?,
    val labels: String?,
    val parity: Parity,
    val unchecked: List<String>,
    val files: List<PackageFile>,
) {
    /** Number of classes that are told apart; null where the graph suppresses, and its outputs do not show it. */
    val classes: Int?
        get() =
            when (detection?.form) {
                null, Form.DENSE -> outputs[0].shape.last()
                else -> null
            }

    companion object {
        const val FILE_NAME = "manifest.json"

        /** PackageError: not a manifest that this app knows; it names the JSON path, what is there and what may be. */
        fun parse(text: String): Manifest = manifest(JsonFields(parseObject(text, FILE_NAME), FILE_NAME))
    }
}

private const val SCHEMA_VERSION = 3L
private val PRECISIONS = listOf("fp32", "fp16", "w8", "w8a8")
private val CHECKPOINT_SOURCES = listOf("file", "seeded", "memory")
private val ANY_TEXT = Regex(".+")
private val RELATIVE_PATH = Regex("""(?!/)(?!(.*/)?\.\.(/|$))[^\\]+""")
private val SHA256 = Regex("[0-9a-f]{64}")

private fun manifest(json: JsonFields): Manifest {
    val version = json.long("schema_version")
    if (version != SCHEMA_VERSION) {
        throw json.error("schema_version", "is $version, must be $SCHEMA_VERSION; update the app, or export again")
    }
    val format = format(json)
    json.emptyList("functions", "an empty list, as artifacts for Android have but one function")
    val files = json.listOfFields("files").map(::packageFile)
    val detection = json.fieldsOrNull("detection")?.let { detection(it, format) }
    return Manifest(
        name = json.name("name"),
        format = format,
        artifact = json.listed("artifact", Role.ARTIFACT, files),
        target = json.name("target"),
        precision = json.choice("precision", PRECISIONS) { it },
        model = model(json.fields("model")),
        checkpoint = checkpoint(json.fields("checkpoint")),
        source = source(json.fields("source")),
        input = inputSpec(json.listOfFields("inputs").first()),
        outputs = if (detection == null) listOf(logits(json)) else outputs(json, detection.form),
        detection = detection,
        labels = json.textOrNull("labels")?.let { json.listed("labels", Role.LABELS, files) },
        parity = parity(json.fields("parity")),
        unchecked = json.texts("unchecked"),
        files = files,
    )
}

private fun format(json: JsonFields): Format {
    if (json.text("format") == "coreml") {
        throw json.error("format", "is \"coreml\", which is for Apple devices; export with --format tflite or onnx")
    }
    return json.choice("format", Format.entries) { it.id }
}

private fun model(json: JsonFields) = Model(json.name("variant"), json.long("parameters"))

private fun checkpoint(json: JsonFields) =
    Checkpoint(
        json.choice("source", CHECKPOINT_SOURCES) { it },
        json.textOrNull("path_name"),
        json.longOrNull("seed"),
    )

private fun source(json: JsonFields) = Source(json.textOrNull("commit"), json.flagOrNull("dirty"))

private fun inputSpec(json: JsonFields): InputSpec {
    val layout = json.choice("layout", Layout.entries) { it.name }
    json.choice("dtype", listOf("float32")) { it }
    json.choice("colour_order", listOf("RGB")) { it }
    json.nothing("function")
    json.intsOrNull("batches", "null or a list with 1 in it, one image at a time") { 1 in it }
    val (cropHeight, cropWidth) = json.ints("crop", "two integers >= 1") { it.size == 2 && it.min() >= 1 }
    val sides =
        when (layout) {
            Layout.NCHW -> listOf(Pixels.CHANNELS, cropHeight, cropWidth)
            Layout.NHWC -> listOf(cropHeight, cropWidth, Pixels.CHANNELS)
        }
    return InputSpec(
        name = json.name("name"),
        shape =
            json.ints("shape", "[1 or -1, ${sides.joinToString()}], the crop in this layout, one image at a time") {
                it == listOf(1) + sides || it == listOf(-1) + sides
            },
        layout = layout,
        mean = json.numbers("mean", "three numbers") { it.size == Pixels.CHANNELS },
        std = json.numbers("std", "three numbers > 0") { it.size == Pixels.CHANNELS && it.min() > 0 },
        normalisationInGraph = json.flag("normalisation_in_graph"),
        fit = fit(json),
        cropHeight = cropHeight,
        cropWidth = cropWidth,
        interpolation = json.choice("interpolation", Interpolation.entries) { it.name.lowercase() },
    )
}

private fun fit(json: JsonFields): Fit =
    when (json.choice("fit", listOf("crop", "pad")) { it }) {
        "crop" -> Fit.Crop(json.int("resize", min = 1))
        else -> Fit.Pad.also { json.nothing("resize") }
    }

private fun logits(json: JsonFields): OutputSpec {
    val output = json.listOfFields("outputs").first()
    output.choice("dtype", listOf("float32")) { it }
    val shape =
        output.ints("shape", "[1 or -1, classes], the logits of one image") {
            it.size == 2 && it[0] in listOf(1, -1) && it[1] >= 1
        }
    return OutputSpec(output.name("name"), shape)
}

private fun parity(json: JsonFields) =
    Parity(json.name("oracle"), json.flag("passed"), json.listOfFields("outputs").map(::outputParity))

private fun outputParity(json: JsonFields) =
    OutputParity(json.name("name"), json.number("max_abs_error"), json.number("budget_max_abs_error"))

private fun packageFile(json: JsonFields) =
    PackageFile(
        json.text("path", "a path inside the package, with forward slashes", RELATIVE_PATH),
        json.choice("role", Role.entries) { it.name.lowercase() },
        json.text("sha256", "64 lower-case hexadecimal digits", SHA256),
        json.long("size_bytes"),
    )

private fun JsonFields.name(name: String) = text(name, "text that is not empty", ANY_TEXT)

private fun JsonFields.listed(
    name: String,
    role: Role,
    files: List<PackageFile>,
): String {
    val allowed = files.filter { it.role == role }.map { it.path }
    return field(name, "a file with the role ${role.name.lowercase()}: ${allowed.joinToString()}") { found ->
        allowed.find { it == found }
    }
}
