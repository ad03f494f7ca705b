package org.dmf.classifier

import org.json.JSONArray
import org.json.JSONObject
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

class ManifestTest {
    @Test
    fun everyFieldIsRead() {
        val manifest = Manifest.parse(Fixtures.manifest().toString())
        assertEquals("tiny-onnx-fp32", manifest.name)
        assertEquals(Format.ONNX, manifest.format)
        assertEquals("model.onnx", manifest.artifact)
        assertEquals("onnxruntime-cpu", manifest.target)
        assertEquals("fp32", manifest.precision)
        assertEquals(Model("tiny", 960), manifest.model)
        assertEquals(Checkpoint("seeded", null, 1), manifest.checkpoint)
        assertEquals(Source(null, null), manifest.source)
        assertEquals(listOf(OutputSpec("logits", listOf(-1, 5))), manifest.outputs)
        assertEquals(null, manifest.detection)
        assertEquals(5, manifest.classes)
        assertEquals("labels.txt", manifest.labels)
        val parity = Parity("numpy float64", true, listOf(OutputParity("logits", 1e-6, 4e-3)))
        assertEquals(parity, manifest.parity)
        assertEquals(listOf("Everything: the package is for tests"), manifest.unchecked)
        assertEquals(listOf(Role.GOLDEN, Role.LABELS, Role.ARTIFACT), manifest.files.map { it.role })
        assertEquals("golden.safetensors", manifest.files[0].path)
        val input =
            InputSpec(
                name = "images",
                shape = listOf(-1, 3, 8, 8),
                layout = Layout.NCHW,
                mean = listOf(0.485, 0.456, 0.406),
                std = listOf(0.229, 0.224, 0.225),
                normalisationInGraph = false,
                fit = Fit.Crop(10),
                cropHeight = 8,
                cropWidth = 8,
                interpolation = Interpolation.BICUBIC,
            )
        assertEquals(input, manifest.input)
    }

    @Test
    fun whatMayBeNullOrOtherwiseIsRead() {
        val json = Fixtures.manifest().put("labels", JSONObject.NULL).put("format", "tflite")
        json.getJSONObject("source").put("commit", "abc").put("dirty", true)
        json
            .getJSONObject("checkpoint")
            .put("source", "file")
            .put("path_name", "a.pt")
            .put("seed", JSONObject.NULL)
        val manifest = Manifest.parse(json.toString())
        assertEquals(null, manifest.labels)
        assertEquals(Format.TFLITE, manifest.format)
        assertEquals(Source("abc", true), manifest.source)
        assertEquals(Checkpoint("file", "a.pt", null), manifest.checkpoint)
    }

    @Test
    fun anotherVersionIsRefused() {
        for (version in listOf(2, 4)) {
            assertRefused("$.schema_version: is $version, must be 3; update the app, or export again") {
                put("schema_version", version)
            }
        }
        assertRefused("$.schema_version: is missing, must be an integer >= 0; export the package again") {
            remove("schema_version")
        }
    }

    @Test
    fun formatsOfOtherDevicesAreRefused() {
        assertRefused("$.format: is \"coreml\", which is for Apple devices; export with --format tflite or onnx") {
            put("format", "coreml")
        }
        assertRefused("$.format: is \"ptl\", must be one of onnx, tflite; export the package again") {
            put("format", "ptl")
        }
    }

    @Test
    fun missingFieldsAreNamed() {
        val fields =
            listOf("name", "format", "artifact", "target", "precision", "model", "checkpoint", "source") +
                listOf("inputs", "outputs", "detection", "labels", "parity", "functions", "unchecked", "files")
        for (field in fields) assertNames("$.$field: is missing, must be ") { remove(field) }
        val inputFields =
            listOf("name", "shape", "layout", "dtype", "colour_order", "mean", "std", "normalisation_in_graph") +
                listOf("fit", "resize", "crop", "interpolation", "function", "batches")
        for (field in inputFields) assertNames("$.inputs[0].$field: is missing, must be ") { input().remove(field) }
        for (field in listOf("path", "role", "sha256", "size_bytes")) {
            assertNames("$.files[1].$field: is missing, must be ") {
                getJSONArray("files").getJSONObject(1).remove(field)
            }
        }
        assertNames("$.model.variant: is missing, must be ") { getJSONObject("model").remove("variant") }
        assertNames("$.parity.outputs[0].max_abs_error: is missing, must be ") {
            getJSONObject("parity").getJSONArray("outputs").getJSONObject(0).remove("max_abs_error")
        }
    }

    @Test
    fun wrongInputsAreRefused() {
        assertInputRefused("crop: is [8], must be two integers >= 1") { put("crop", JSONArray("[8]")) }
        assertInputRefused("crop: is [0,8], must be two integers >= 1") { put("crop", JSONArray("[0, 8]")) }
        assertInputRefused("crop: is [8,8.5], must be two integers >= 1") { put("crop", JSONArray("[8, 8.5]")) }
        assertInputRefused("crop: is \"8x8\", must be two integers >= 1") { put("crop", "8x8") }
        assertInputRefused(
            "shape: is [-1,8,8,3], must be [1 or -1, 3, 8, 8], the crop in this layout, one image at a time",
        ) { put("shape", JSONArray("[-1, 8, 8, 3]")) }
        assertInputRefused(
            "shape: is [4,3,8,8], must be [1 or -1, 3, 8, 8], the crop in this layout, one image at a time",
        ) { put("shape", JSONArray("[4, 3, 8, 8]")) }
        assertInputRefused("function: is \"main\", must be null") { put("function", "main") }
        assertInputRefused("batches: is [2,4], must be null or a list with 1 in it, one image at a time") {
            put("batches", JSONArray("[2, 4]"))
        }
        assertInputRefused("layout: is \"CHWN\", must be one of NCHW, NHWC") { put("layout", "CHWN") }
        assertInputRefused("dtype: is \"image\", must be float32") { put("dtype", "image") }
        assertInputRefused("colour_order: is \"BGR\", must be RGB") { put("colour_order", "BGR") }
        assertInputRefused("mean: is [0.5,0.5], must be three numbers") { put("mean", JSONArray("[0.5, 0.5]")) }
        assertInputRefused("std: is [0.5,0.5,0], must be three numbers > 0") { put("std", JSONArray("[0.5, 0.5, 0]")) }
        assertInputRefused("normalisation_in_graph: is 0, must be true or false") { put("normalisation_in_graph", 0) }
        assertInputRefused("resize: is 0, must be an integer >= 1") { put("resize", 0) }
        assertInputRefused("resize: is \"256\", must be an integer >= 1") { put("resize", "256") }
        assertInputRefused("fit: is \"stretch\", must be one of crop, pad") { put("fit", "stretch") }
        assertInputRefused("resize: is null, must be an integer >= 1") { put("resize", JSONObject.NULL) }
        assertInputRefused("resize: is 10, must be null") { put("fit", "pad") }
        assertInputRefused("interpolation: is \"nearest\", must be one of bicubic, bilinear") {
            put("interpolation", "nearest")
        }
    }

    @Test
    fun oneImageMayBeOneOfSomeBatches() {
        val json = Fixtures.manifest().apply { input().put("batches", JSONArray("[1, 2, 4]")) }
        assertEquals(Manifest.parse(Fixtures.manifest().toString()), Manifest.parse(json.toString()))
    }

    @Test
    fun furtherFunctionsAreRefused() {
        val allowed = "must be an empty list, as artifacts for Android have but one function; export the package again"
        assertRefused("$.functions: is [{\"golden\":\"a\"}], $allowed") {
            put("functions", JSONArray("[{\"golden\": \"a\"}]"))
        }
        assertRefused("$.functions: is null, $allowed") { put("functions", JSONObject.NULL) }
    }

    @Test
    fun wrongOutputsAreRefused() {
        assertRefused("$.outputs[0].dtype: is \"float16\", must be float32; export the package again") {
            getJSONArray("outputs").getJSONObject(0).put("dtype", "float16")
        }
        assertRefused(
            "$.outputs[0].shape: is [-1,5,1], must be [1 or -1, classes], the logits of one image; " +
                "export the package again",
        ) { getJSONArray("outputs").getJSONObject(0).put("shape", JSONArray("[-1, 5, 1]")) }
        assertRefused("$.outputs: is [], must be a list of at least one object; export the package again") {
            put("outputs", JSONArray())
        }
    }

    @Test
    fun wrongFilesAreRefused() {
        for (path in listOf("/etc/passwd", "../model.onnx", "a/../../b", "a\\\\b", "")) {
            assertNames("$.files[2].path: is ") { getJSONArray("files").getJSONObject(2).put("path", path) }
        }
        assertRefused(
            "$.files[2].sha256: is \"ABC\", must be 64 lower-case hexadecimal digits; export the package again",
        ) { getJSONArray("files").getJSONObject(2).put("sha256", "ABC") }
        assertRefused("$.files[2].size_bytes: is -1, must be an integer >= 0; export the package again") {
            getJSONArray("files").getJSONObject(2).put("size_bytes", -1)
        }
        assertRefused(
            "$.artifact: is \"labels.txt\", must be a file with the role artifact: model.onnx; " +
                "export the package again",
        ) { put("artifact", "labels.txt") }
        assertRefused(
            "$.labels: is \"names.txt\", must be a file with the role labels: labels.txt; export the package again",
        ) { put("labels", "names.txt") }
    }

    @Test
    fun whatIsLongIsCut() {
        val message = refusal { put("precision", "x".repeat(1000)) }
        assertEquals(
            "manifest.json: $.precision: is \"${"x".repeat(79)}..., must be one of fp32, fp16, w8, w8a8; " +
                "export the package again",
            message,
        )
    }

    @Test
    fun whatIsNotAJsonObjectIsRefused() {
        assertPackageError("manifest.json: $: is [], must be an object; export the package again") {
            Manifest.parse("[]")
        }
        val whole = Fixtures.manifest().toString()
        for (text in listOf("", "{", whole.dropLast(1), "$whole {}", "{\n\n", "[".repeat(100_000))) {
            val message = assertThrows(PackageError::class.java) { Manifest.parse(text) }.message
            assertTrue(message, message.startsWith("manifest.json: not valid JSON: "))
            assertTrue(message, message.endsWith("; export the package again"))
            assertEquals(message, 1, message.lines().size)
        }
    }

    private fun JSONObject.input() = getJSONArray("inputs").getJSONObject(0)

    private fun refusal(change: JSONObject.() -> Unit): String {
        val changed = Fixtures.manifest().apply(change).toString()
        return assertThrows(PackageError::class.java) { Manifest.parse(changed) }.message
    }

    private fun assertRefused(
        message: String,
        change: JSONObject.() -> Unit,
    ) = assertEquals("manifest.json: $message", refusal(change))

    private fun assertInputRefused(
        message: String,
        change: JSONObject.() -> Unit,
    ) = assertRefused("$.inputs[0].$message; export the package again") { input().change() }

    private fun assertNames(
        start: String,
        change: JSONObject.() -> Unit,
    ) {
        val message = refusal(change)
        assertTrue(message, message.startsWith("manifest.json: $start"))
        assertTrue(message, message.endsWith("; export the package again"))
    }
}
