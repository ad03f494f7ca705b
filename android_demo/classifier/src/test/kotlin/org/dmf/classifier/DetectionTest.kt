package org.dmf.classifier

import org.json.JSONArray
import org.json.JSONObject
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Test

class DetectionTest {
    @Test
    fun aDenseDetectorIsRead() {
        val manifest = Manifest.parse(Fixtures.detectorManifest().toString())
        assertEquals(Detection(Form.DENSE, 0.25, 0.5, 4, 12), manifest.detection)
        val outputs = listOf(OutputSpec("scores", listOf(1, 6, 5)), OutputSpec("boxes", listOf(1, 6, 4)))
        assertEquals(outputs, manifest.outputs)
        assertEquals(5, manifest.classes)
        assertEquals(Fit.Pad, manifest.input.fit)
    }

    @Test
    fun theGraphsOwnSuppressionIsRead() {
        val onnx = parse("onnx", "onnx_nms", "boxes -1 4", "scores -1", "labels -1 int64")
        assertEquals(Detection(Form.ONNX_NMS, 0.25, 0.5, 4, null), onnx.detection)
        assertEquals(listOf("boxes", "scores", "labels"), onnx.outputs.map { it.name })
        assertEquals(null, onnx.classes)
        val tflite =
            parse("tflite", POSTPROCESS, "boxes 1 7 4", "labels 1 7", "scores 1 7", "count 1")
        assertEquals(Detection(Form.TFLITE_DETECTION_POSTPROCESS, 0.25, 0.5, 4, null), tflite.detection)
        assertEquals(listOf(1, 7, 4), tflite.outputs[0].shape)
        assertEquals(null, tflite.classes)
    }

    @Test
    fun masksAndProposalsAreNotRead() {
        val masks = arrayOf("masks -1 28 28", "proposals -1 4")
        val manifest = parse("onnx", "onnx_nms", "boxes -1 4", "scores -1", "labels -1 int64", *masks)
        assertEquals(listOf("boxes", "scores", "labels"), manifest.outputs.map { it.name })
    }

    @Test
    fun formsOfOtherRuntimesAreRefused() {
        assertRefused("$.detection.form: is \"coreml_nms\", must be one of dense, onnx_nms; $EXPORT_AGAIN") {
            parse("onnx", "coreml_nms", "confidence -1 5", "coordinates -1 4")
        }
        assertRefused("$.detection.form: is \"onnx_nms\", must be one of dense, $POSTPROCESS; $EXPORT_AGAIN") {
            parse("tflite", "onnx_nms", "boxes -1 4", "scores -1", "labels -1 int64")
        }
        assertRefused("$.detection.form: is \"$POSTPROCESS\", must be one of dense, onnx_nms; $EXPORT_AGAIN") {
            parse("onnx", POSTPROCESS, "boxes 1 7 4", "labels 1 7", "scores 1 7", "count 1")
        }
    }

    @Test
    fun shapesThatDoNotFitAreRefused() {
        assertOutputRefused("[0].shape: is [2,6,5], must be [1, A, K]", "dense", "scores 2 6 5", "boxes 1 6 4")
        assertOutputRefused("[0].shape: is [1,0,5], must be [1, A, K]", "dense", "scores 1 0 5", "boxes 1 6 4")
        assertOutputRefused("[1].shape: is [1,7,4], must be [1, 6, 4]", "dense", "scores 1 6 5", "boxes 1 7 4")
        assertOutputRefused("[1].shape: is [1,4,6], must be [1, 6, 4]", "dense", "scores 1 6 5", "boxes 1 4 6")
        assertOutputRefused("[1].shape: is [6,4], must be [1, 6, 4]", "dense", "scores 1 6 5", "boxes 6 4")
        val fixed = arrayOf("boxes 9 4", "scores 9", "labels 9 int64")
        assertOutputRefused("[0].shape: is [9,4], must be [-1, 4]", "onnx_nms", *fixed)
        val rows = arrayOf("boxes 1 7 4", "labels 1 8", "scores 1 7", "count 1")
        assertOutputRefused("[1].shape: is [1,8], must be [1, 7]", POSTPROCESS, *rows)
        val scalar = arrayOf("boxes 1 7 4", "labels 1 7", "scores 1 7", "count")
        assertOutputRefused("[3].shape: is [], must be [1]", POSTPROCESS, *scalar)
    }

    @Test
    fun otherNamesAndTypesOfOutputsAreRefused() {
        assertOutputRefused("[0].name: is \"boxes\", must be scores", "dense", "boxes 1 6 4", "scores 1 6 5")
        val float = arrayOf("boxes -1 4", "scores -1", "labels -1")
        assertOutputRefused("[2].dtype: is \"float32\", must be int64", "onnx_nms", *float)
        val half = arrayOf("scores 1 6 5 float16", "boxes 1 6 4")
        assertOutputRefused("[0].dtype: is \"float16\", must be float32", "dense", *half)
        assertOutputRefused(": are 1, must be those of form dense: scores, boxes", "dense", "scores 1 6 5")
    }

    @Test
    fun wrongSettingsAreRefused() {
        for ((field, value, allowed) in listOf(
            Triple("score_threshold", -0.5, "a number from 0 to 1"),
            Triple("score_threshold", 1.5, "a number from 0 to 1"),
            Triple("nms_iou", "half", "a number from 0 to 1"),
            Triple("max_detections", 0, "an integer >= 1"),
            Triple("candidates", JSONObject.NULL, "an integer >= 1"),
        )) {
            val json = Fixtures.detectorManifest()
            json.getJSONObject("detection").put(field, value)
            val shown = if (value is String) "\"$value\"" else "$value"
            assertRefused("$.detection.$field: is $shown, must be $allowed; $EXPORT_AGAIN") {
                Manifest.parse(json.toString())
            }
        }
        val suppressed = manifest("onnx", "onnx_nms", "boxes -1 4", "scores -1", "labels -1 int64")
        suppressed.getJSONObject("detection").put("candidates", 12)
        assertRefused("$.detection.candidates: is 12, must be null; $EXPORT_AGAIN") {
            Manifest.parse(suppressed.toString())
        }
        val text = Fixtures.detectorManifest().put("detection", "dense").toString()
        assertRefused("$.detection: is \"dense\", must be an object or null; $EXPORT_AGAIN") { Manifest.parse(text) }
    }

    private fun assertOutputRefused(
        message: String,
        form: String,
        vararg outputs: String,
    ) {
        val format = if (form == POSTPROCESS) "tflite" else "onnx"
        assertRefused("$.outputs$message; $EXPORT_AGAIN") { parse(format, form, *outputs) }
    }

    private fun assertRefused(
        message: String,
        parse: () -> Manifest,
    ) = assertEquals("manifest.json: $message", assertThrows(PackageError::class.java) { parse() }.message)

    private fun parse(
        format: String,
        form: String,
        vararg outputs: String,
    ): Manifest = Manifest.parse(manifest(format, form, *outputs).toString())

    /** Each of [outputs] is a name, the sides of its shape, and a type if it is not float32. */
    private fun manifest(
        format: String,
        form: String,
        vararg outputs: String,
    ): JSONObject {
        val json = Fixtures.detectorManifest().put("format", format)
        json.getJSONObject("detection").put("form", form)
        if (form != "dense") json.getJSONObject("detection").put("candidates", JSONObject.NULL)
        val listed =
            outputs.map { output ->
                val words = output.split(' ')
                val sides = words.drop(1).mapNotNull { it.toIntOrNull() }
                val dtype = words.drop(1).find { it.toIntOrNull() == null } ?: "float32"
                JSONObject().put("name", words[0]).put("shape", JSONArray(sides)).put("dtype", dtype)
            }
        return json.put("outputs", JSONArray(listed))
    }

    private companion object {
        const val POSTPROCESS = "tflite_detection_postprocess"
    }
}
