package org.dmf.classifier

import org.json.JSONArray
import org.json.JSONObject
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNotEquals
import org.junit.Assert.assertTrue
import org.junit.Test

/** Against what `runtime/detections.py` makes of the same numbers, which are exact in float32, too. */
class DetectionsTest {
    private class Case(
        val detection: Detection,
        val outputs: List<FloatArray>,
        val objects: List<DetectedObject>,
    )

    private val cases =
        objects(Fixtures.detections().getJSONArray("read"))
            .filter { it.getJSONObject("detection").getString("form") != "coreml_nms" }
            .map(::case)

    @Test
    fun everyFormIsReadAsPythonReadsIt() {
        assertEquals(Form.entries.toSet(), cases.map { it.detection.form }.toSet())
        assertEquals(8, cases.size)
        for ((index, case) in cases.withIndex()) {
            assertEquals("case $index", case.objects, case.detection.objects(case.outputs))
        }
        assertTrue(cases.any { it.objects.isEmpty() } && cases.any { it.objects.size == it.detection.maxDetections })
    }

    @Test
    fun otherSettingsFindOtherObjects() {
        for ((case, other) in listOf<Pair<Case, Detection.() -> Detection>>(
            cases[1] to { copy(scoreThreshold = 0.97) },
            cases[1] to { copy(nmsIou = 0.1) },
            cases[1] to { copy(maxDetections = 9) },
            cases[1] to { copy(candidates = 9) },
            cases[4] to { copy(nmsIou = 0.49) },
            cases[4] to { copy(nmsIou = 1.0) },
        )) {
            val settings = case.detection.other()
            assertNotEquals("$settings", case.objects, settings.objects(case.outputs))
        }
    }

    @Test
    fun scoresAtTheThresholdAreNotFound() {
        val detection = Detection(Form.DENSE, 0.5, 0.5, 10, 10)
        val boxes = floatArrayOf(0f, 0f, 1f, 1f, 2f, 2f, 3f, 3f)
        val found = detection.objects(listOf(floatArrayOf(0.5f, Math.nextUp(0.5f)), boxes))
        assertEquals(listOf(Box(2.0, 2.0, 3.0, 3.0)), found.map { it.box })
    }

    @Test
    fun classesDoNotHideOneAnother() {
        val detection = Detection(Form.DENSE, 0.25, 0.5, 10, 10)
        val box = floatArrayOf(1f, 1f, 3f, 3f)
        val found = detection.objects(listOf(floatArrayOf(0.5f, 0.75f, 0.5f, 0.25f, 0.5f, 0.125f), box + box + box))
        assertEquals(listOf(1 to 0.75, 0 to 0.5), found.map { it.classIndex to it.score })
    }

    @Test
    fun onlyAsManyAsAreCountedAreMeant() {
        val case = cases.single { it.detection.form == Form.TFLITE_DETECTION_POSTPROCESS }
        assertEquals(3, case.objects.size)
        for ((count, expected) in listOf(0f to 0, 2f to 2, 9f to 5, -1f to 0)) {
            val outputs = case.outputs.dropLast(1).plusElement(floatArrayOf(count))
            assertEquals(expected, case.detection.objects(outputs).size)
        }
    }

    @Test
    fun sizesThatDoNotFitAreAnError() {
        val dense = Detection(Form.DENSE, 0.25, 0.5, 4, 12)
        assertEngineError("the artifact's answers do not fit to one another: 5 of scores, 8 of boxes") {
            dense.objects(listOf(FloatArray(5), FloatArray(8)))
        }
        val suppressed = dense.copy(form = Form.ONNX_NMS, candidates = null)
        assertEngineError("the artifact's answers do not fit to one another: 8 of boxes, 3 of scores, 2 of labels") {
            suppressed.objects(listOf(FloatArray(8), FloatArray(3), FloatArray(2)))
        }
    }

    @Test
    fun objectsMatchAsInPython() {
        val compared = objects(Fixtures.detections().getJSONArray("match"))
        assertEquals(8, compared.size)
        for ((index, case) in compared.withIndex()) {
            val expected = case.getJSONObject("expected")
            val decided = expected.getJSONArray("decided")
            val result =
                match(
                    detected(case.getJSONObject("found")),
                    detected(expected).mapIndexed { i, each -> ExpectedObject(each, decided.getBoolean(i)) },
                    case.getDouble("iou"),
                )
            assertEquals("case $index", case.getInt("missed"), result.missed)
            assertEquals("case $index", numbers(case.getJSONArray("ious")), result.ious)
            assertEquals("case $index", case.getDouble("score_error"), result.scoreError, 0.0)
            assertEquals("case $index", case.getBoolean("is_complete"), result.isComplete)
        }
        assertEquals(setOf(true, false), compared.map { it.getBoolean("is_complete") }.toSet())
    }

    @Test
    fun boxesMatchFromTheIouOn() {
        val expected = listOf(ExpectedObject(DetectedObject(0, 0.5, Box(0.0, 0.0, 4.0, 4.0)), decided = true))
        val found = listOf(DetectedObject(0, 0.5, Box(0.0, 0.0, 4.0, 3.0)))
        val overlap = 30.0 / 36 // 6 x 5 of 6 x 6 px
        assertTrue(match(found, expected, overlap).isComplete)
        assertEquals(1.0, match(found, expected, Math.nextUp(overlap)).scoreError, 0.0)
    }

    @Test
    fun overlapsAreOfTheClosedForm() {
        val box = Box(0.0, 0.0, 2.0, 2.0)
        assertEquals(1.0, box.overlap(box), 0.0)
        assertEquals(1.0 / 7, box.overlap(Box(1.0, 1.0, 3.0, 3.0)), 0.0)
        assertEquals(0.0, box.overlap(Box(2.0, 0.0, 4.0, 2.0)), 0.0)
        assertEquals(0.0, box.overlap(Box(3.0, 3.0, 4.0, 4.0)), 0.0)
        val point = Box(1.0, 1.0, 1.0, 1.0)
        assertEquals(0.0, point.overlap(point), 0.0)
    }

    private fun case(json: JSONObject): Case {
        val settings = json.getJSONObject("detection")
        val form = Form.entries.single { it.id == settings.getString("form") }
        val detection =
            Detection(
                form,
                settings.getDouble("score_threshold"),
                settings.getDouble("nms_iou"),
                settings.getInt("max_detections"),
                if (settings.isNull("candidates")) null else settings.getInt("candidates"),
            )
        val tensors = json.getJSONObject("outputs")
        val outputs =
            form.outputs.map { output ->
                val values = numbers(tensors.getJSONObject(output.name).getJSONArray("values"))
                FloatArray(values.size) { values[it].toFloat() }
            }
        return Case(detection, outputs, detected(json.getJSONObject("objects")))
    }

    private fun detected(json: JSONObject): List<DetectedObject> {
        val boxes = json.getJSONArray("boxes")
        val scores = numbers(json.getJSONArray("scores"))
        return scores.mapIndexed { index, score ->
            val (left, top, right, bottom) = numbers(boxes.getJSONArray(index))
            DetectedObject(json.getJSONArray("labels").getInt(index), score, Box(left, top, right, bottom))
        }
    }

    private fun objects(array: JSONArray) = List(array.length()) { array.getJSONObject(it) }

    private fun numbers(array: JSONArray) = List(array.length()) { array.getDouble(it) }
}
