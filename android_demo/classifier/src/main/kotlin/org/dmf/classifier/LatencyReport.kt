package org.dmf.classifier

import org.json.JSONArray
import org.json.JSONObject
import java.text.SimpleDateFormat
import java.util.Date
import java.util.Locale
import java.util.TimeZone

/** What chooses among a detector's boxes within a sample; [id] is its name in reports. */
enum class PostProcessing(
    val id: String,
) {
    /** The network alone is timed. */
    NONE("none"),
    GRAPH("graph"),
    RUNNER("runner"),
    ;

    companion object {
        /** Null: a classifier. A graph that suppresses does so whether it is [wanted] or not. */
        fun of(
            detection: Detection?,
            wanted: Boolean,
        ): PostProcessing? =
            when (detection?.form) {
                null -> null
                Form.DENSE -> if (wanted) RUNNER else NONE
                Form.ONNX_NMS, Form.TFLITE_DETECTION_POSTPROCESS -> GRAPH
            }
    }
}

/** One package measured on this phone; [toJson] is a report of schema latency-v3, which describes each field. */
data class LatencyReport(
    val manifest: Manifest,
    val artifactSha256: String,
    val runtime: RuntimeInfo,
    val threads: Int,
    val input: String,
    val postProcessing: PostProcessing?,
    val warmupCount: Int,
    val coldLoadMs: Double,
    val samplesMs: List<Double>,
    val baselineMemoryBytes: Long,
    val peakMemoryBytes: Long,
    val selfTest: SelfTestResult?,
    val invalidBecause: List<Flag>,
    val measuredAt: Date,
    val device: DeviceDescription,
    val before: DeviceState,
    val after: DeviceState,
) {
    val p50Ms: Double get() = percentile(samplesMs, 50.0)
    val p90Ms: Double get() = percentile(samplesMs, 90.0)
    val p99Ms: Double get() = percentile(samplesMs, 99.0)
    val meanMs: Double get() = samplesMs.average()
    val minMs: Double get() = samplesMs.min()

    fun toJson(): JSONObject =
        jsonObject(
            "package" to manifest.name,
            "artifact_sha256" to artifactSha256,
            "model" to manifest.model.variant,
            "format" to manifest.format.id,
            "precision" to manifest.precision,
            "target" to manifest.target,
            "on" to "android",
            "runtime" to runtime.toJson(),
            "accelerator" to runtime.accelerator.id,
            "threads" to threads,
            "input" to input,
            "post_processing" to postProcessing?.id,
            "warmup_count" to warmupCount,
            "cold_load_ms" to coldLoadMs,
            "samples_ms" to JSONArray(samplesMs),
            "p50_ms" to p50Ms,
            "p90_ms" to p90Ms,
            "p99_ms" to p99Ms,
            "mean_ms" to meanMs,
            "min_ms" to minMs,
            "baseline_memory_bytes" to baselineMemoryBytes,
            "peak_memory_bytes" to peakMemoryBytes,
            "golden" to selfTest?.toJson(),
            "compute_plan" to null, // Core ML's
            "invalid_because" to JSONArray(invalidBecause.map { it.id }),
            "conditions" to conditions(),
        )

    private fun conditions() =
        jsonObject(
            "measured_at" to utc(measuredAt),
            "machine" to device.machine,
            "cpu" to device.cpu,
            "logical_cores" to device.logicalCores,
            "os" to device.os,
            "python" to null,
            "governor" to device.governor,
            "load_average_before" to null, // Android keeps /proc/loadavg to itself
            "load_average_after" to null,
            "device" to
                jsonObject(
                    "manufacturer" to device.manufacturer,
                    "model" to device.model,
                    "soc" to device.soc,
                    "sdk" to device.sdk,
                    "app" to device.app,
                    "before" to before.toJson(),
                    "after" to after.toJson(),
                ),
        )
}

/** The document that holds [reports], of schema latency-v3. */
fun latencyResults(reports: List<LatencyReport>): JSONObject =
    jsonObject(
        "schema_version" to 3,
        "reports" to JSONArray(reports.map { it.toJson() }),
        "comparisons" to JSONArray(),
    )

private fun RuntimeInfo.toJson() =
    jsonObject(
        "name" to name,
        "version" to version,
        "delegate_partitions" to delegatePartitions,
    )

/** JSON has no infinity: an answer that is no number counts as the largest error there is. */
private fun SelfTestResult.toJson() =
    jsonObject(
        "passed" to passed,
        "max_abs_error" to worst.maxAbsError.coerceAtMost(Double.MAX_VALUE),
        "budget_abs_error" to worst.budgetAbsError,
        "image" to worst.image,
    )

private fun DeviceState.toJson() =
    jsonObject(
        "thermal_status" to thermalStatus,
        "battery_temperature_c" to batteryTemperatureC,
        "battery_percent" to batteryPercent,
        "charging" to charging,
        "battery_saver" to batterySaver,
        "screen_on" to screenOn,
        "frequencies_khz" to JSONArray(frequenciesKhz.map { it ?: JSONObject.NULL }),
    )

/** Every field is written, those without a value as null. */
private fun jsonObject(vararg fields: Pair<String, Any?>) =
    JSONObject().apply { for ((name, value) in fields) put(name, value ?: JSONObject.NULL) }

private fun utc(date: Date): String =
    SimpleDateFormat("yyyy-MM-dd'T'HH:mm:ss'+00:00'", Locale.ROOT)
        .apply { timeZone = TimeZone.getTimeZone("UTC") }
        .format(date)
