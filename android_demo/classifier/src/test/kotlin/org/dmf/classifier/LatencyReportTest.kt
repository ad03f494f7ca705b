package org.dmf.classifier

import org.json.JSONObject
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertTrue
import org.junit.Assume.assumeNotNull
import org.junit.Test
import java.io.File

class LatencyReportTest {
    private val phone = FakePhone()

    @Test
    fun everyFieldIsWritten() {
        val json = written(measured(DenseEngine(), repeats = 30))
        assertEquals(REPORT_FIELDS, json.keys().asSequence().toSet())
        assertEquals("tiny-onnx-fp32", json.get("package"))
        assertEquals(Fixtures.openPackage().artifactSha256, json.get("artifact_sha256"))
        assertEquals("tiny", json.get("model"))
        assertEquals("onnx", json.get("format"))
        assertEquals("fp32", json.get("precision"))
        assertEquals("onnxruntime-cpu", json.get("target"))
        assertEquals("android", json.get("on"))
        assertEquals("cpu", json.get("accelerator"))
        assertSame("""{"name": "onnxruntime", "version": "1.2.3", "delegate_partitions": null}""", json, "runtime")
        assertEquals(2, json.get("threads"))
        assertEquals("golden image 0: noise 0", json.get("input"))
        assertTrue(json.isNull("post_processing"))
        assertEquals(1, json.get("warmup_count"))
        assertEquals(0.0, json.getDouble("cold_load_ms"), 0.0)
        assertEquals(30, json.getJSONArray("samples_ms").length())
        for (name in listOf("p50_ms", "p90_ms", "p99_ms", "mean_ms", "min_ms")) {
            assertEquals(name, 2.25, json.getDouble(name), 1e-12)
        }
        assertEquals(123_456_512, json.get("baseline_memory_bytes"))
        assertEquals(123_456_512, json.get("peak_memory_bytes"))
        assertEquals(0, json.getJSONArray("invalid_because").length())
        val golden = json.getJSONObject("golden")
        assertEquals(setOf("passed", "max_abs_error", "budget_abs_error", "image"), golden.keys().asSequence().toSet())
        assertEquals(true, golden.get("passed"))
        assertTrue(golden.getDouble("max_abs_error") < golden.getDouble("budget_abs_error"))
    }

    @Test
    fun conditionsAreWritten() {
        val state =
            """{"thermal_status": 0, "battery_temperature_c": 31.5, "battery_percent": 80, "charging": false,
                "battery_saver": false, "screen_on": true, "frequencies_khz": [1800000, null]}"""
        val expected =
            """{"measured_at": "2025-11-23T08:00:05+00:00", "machine": "arm64-v8a", "cpu": "SM0000", "logical_cores": 2,
                "os": "Android 14 (API 34)", "python": null, "governor": "schedutil", "load_average_before": null,
                "load_average_after": null, "device": {"manufacturer": "Nobody", "model": "Phone 1", "soc": "SM0000",
                "sdk": 34, "app": "org.dmf.demo 0.1.0", "before": $state, "after": $state}}"""
        assertSame(expected, written(measured(DenseEngine(), repeats = 1)), "conditions")
    }

    @Test
    fun whatThePhoneDoesNotTellIsNull() {
        phone.state = DeviceState(null, null, null, null, null, null, listOf(null, null))
        val device = written(measured(DenseEngine(), repeats = 1)).getJSONObject("conditions").getJSONObject("device")
        assertSame(
            """{"thermal_status": null, "battery_temperature_c": null, "battery_percent": null, "charging": null,
                "battery_saver": null, "screen_on": null, "frequencies_khz": [null, null]}""",
            device,
            "before",
        )
    }

    @Test
    fun anAnswerThatIsNoNumberIsAFiniteErrorAndAFlag() {
        val engine = changedLogits { _, _, logits -> logits.also { it[0] = Float.NaN } }
        val text = latencyResults(listOf(measured(engine, repeats = 30))).toString()
        assertFalse(text, Regex("NaN|Infinity", RegexOption.IGNORE_CASE).containsMatchIn(text))
        val json = JSONObject(text).getJSONArray("reports").getJSONObject(0)
        assertEquals(Double.MAX_VALUE, json.getJSONObject("golden").getDouble("max_abs_error"), 0.0)
        assertEquals("[\"wrong_answers\"]", json.getJSONArray("invalid_because").toString())
    }

    @Test
    fun withoutGoldenVectorsThereIsNoVerdict() {
        val report = measured(DenseEngine(), repeats = 1).copy(selfTest = null)
        assertTrue(written(report).isNull("golden"))
    }

    @Test
    fun theDocumentHoldsTheReports() {
        val document = latencyResults(listOf(measured(DenseEngine(), repeats = 1)))
        assertEquals(setOf("schema_version", "reports", "comparisons"), document.keys().asSequence().toSet())
        assertEquals(3, document.get("schema_version"))
        assertEquals(0, document.getJSONArray("comparisons").length())
    }

    @Test
    fun aDetectorsReportSaysWhatChoosesItsObjects() {
        for ((wanted, id) in listOf(false to "none", true to "runner")) {
            val json = written(measuredDetector(wanted))
            assertEquals(id, json.get("post_processing"))
            val golden = json.getJSONObject("golden")
            assertEquals(true, golden.get("passed"))
            assertTrue(golden.getDouble("max_abs_error") in 0.0..1e-5)
        }
        val graph = measuredDetector(false).copy(postProcessing = PostProcessing.GRAPH)
        assertEquals("graph", written(graph).get("post_processing"))
    }

    @Test
    fun anObjectThatIsMissingIsAnErrorOfOne() {
        val report =
            measuredDetector(
                false,
                ChangedEngine(DetectorEngine()) { _, _, (scores, boxes) -> listOf(FloatArray(scores.size), boxes) },
            )
        val golden = written(report).getJSONObject("golden")
        assertEquals(false, golden.get("passed"))
        assertEquals(1.0, golden.getDouble("max_abs_error"), 0.0)
        assertEquals(1e-3, golden.getDouble("budget_abs_error"), 0.0)
        assertEquals("noise 0", golden.get("image"))
        assertEquals(listOf(Flag.WRONG_ANSWERS), report.invalidBecause)
    }

    /** For the Python tests, which validate it against the schema: a good report, and one as bad as can be. */
    @Test
    fun aCompleteDocumentIsWritten() {
        val path = System.getProperty("dmf.report")
        assumeNotNull(path)
        val good = measured(DenseEngine(), repeats = 32)
        phone.state = DeviceState(3, null, null, null, true, false, listOf(null, null))
        val wrong = changedLogits { _, _, logits -> logits.also { it[0] = Float.NaN } }
        val bad = measured(wrong, repeats = 3, isForeground = false)
        assertEquals(Flag.entries, bad.invalidBecause)
        val silent = bad.copy(device = bad.device.copy(soc = null, governor = null), selfTest = null)
        val chosen = measuredDetector(true)
        val detectors = arrayOf(chosen, measuredDetector(false), chosen.copy(postProcessing = PostProcessing.GRAPH))
        File(checkNotNull(path)).writeText(latencyResults(listOf(good, bad, silent, *detectors)).toString(2))
    }

    private fun measured(
        engine: Engine,
        repeats: Int,
        isForeground: Boolean = true,
    ): LatencyReport {
        val timed = changedLogits(engine) { _, _, logits -> logits.also { phone.passMs(2.25) } }
        val benchmark = Benchmark({ _, _, _ -> timed }, phone) { isForeground }
        return benchmark.measure(Fixtures.openPackage(), Accelerator.CPU, threads = 2, warmup = 1, repeats = repeats)
    }

    private fun measuredDetector(
        postProcessing: Boolean,
        engine: Engine = DetectorEngine(),
    ) = Benchmark({ _, _, _ -> engine }, phone) { true }
        .measure(Fixtures.openDetector(), Accelerator.CPU, 2, warmup = 1, repeats = 30, postProcessing)

    /** As it is read again from its text. */
    private fun written(report: LatencyReport) = JSONObject(report.toJson().toString())

    private fun assertSame(
        expected: String,
        json: JSONObject,
        name: String,
    ) = assertEquals(plain(JSONObject(expected)), plain(json.getJSONObject(name)))

    /** As maps, which are equal whatever their order. */
    private fun plain(json: JSONObject): Map<String, Any> =
        json.keys().asSequence().associateWith { name ->
            val value = json.get(name)
            if (value is JSONObject) plain(value) else value.toString()
        }

    private companion object {
        val REPORT_FIELDS =
            setOf("package", "artifact_sha256", "model", "format", "precision", "target", "on", "runtime") +
                setOf(
                    "accelerator",
                    "threads",
                    "input",
                    "post_processing",
                    "warmup_count",
                    "cold_load_ms",
                    "samples_ms",
                    "p50_ms",
                ) +
                setOf("p90_ms", "p99_ms", "mean_ms", "min_ms", "baseline_memory_bytes", "peak_memory_bytes") +
                setOf("golden", "compute_plan", "invalid_because", "conditions")
    }
}
