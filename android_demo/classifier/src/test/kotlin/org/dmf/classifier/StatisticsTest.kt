package org.dmf.classifier

import org.json.JSONArray
import org.json.JSONObject
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNotEquals
import org.junit.Test

class StatisticsTest {
    private val good =
        DeviceState(
            thermalStatus = 0,
            batteryTemperatureC = 31.5,
            batteryPercent = 80,
            charging = false,
            batterySaver = false,
            screenOn = true,
            frequenciesKhz = listOf(1_800_000, null),
        )
    private val steady = List(30) { 5.0 }

    @Test
    fun percentilesAreNumpys() {
        for (case in objects(Fixtures.statistics().getJSONArray("percentiles"))) {
            val samples = numbers(case.getJSONArray("samples"))
            val values = case.getJSONObject("values")
            for (percent in values.keys()) {
                assertEquals(values.getDouble(percent), percentile(samples, percent.toDouble()), 0.0)
            }
            val mean = case.getDouble("mean")
            assertEquals(mean, samples.average(), 1e-12 * mean)
        }
    }

    @Test
    fun theMedianIsNotTheNearestSample() {
        assertEquals(1.5, percentile(listOf(2.0, 1.0), 50.0), 0.0)
    }

    @Test
    fun probabilitiesAreExactTo15Digits() {
        for (case in objects(Fixtures.statistics().getJSONArray("softmax"))) {
            val expected = numbers(case.getJSONArray("probabilities"))
            val logits = numbers(case.getJSONArray("logits")).map { it.toFloat() }.toFloatArray()
            val probabilities = softmax(logits)
            assertEquals(1.0, probabilities.sum(), 1e-14)
            for (k in expected.indices) assertEquals(expected[k], probabilities[k], 1e-14 * expected[k])
        }
    }

    @Test
    fun theBestClassesComeFirstAndOfEqualOnesTheLower() {
        for (case in objects(Fixtures.statistics().getJSONArray("softmax"))) {
            val logits = numbers(case.getJSONArray("logits")).map { it.toFloat() }.toFloatArray()
            val top = topK(softmax(logits), 3)
            assertEquals(numbers(case.getJSONArray("top3")).map { it.toInt() }, top.map { it.classIndex })
            assertEquals(top.map { it.score }.sortedDescending(), top.map { it.score })
        }
    }

    @Test
    fun aSteadyCoolPhoneHasNoFlags() {
        assertEquals(emptyList<Flag>(), flags())
        assertEquals(emptyList<Flag>(), invalidBecause(steady, good, good, foreground = true, selfTestPassed = null))
    }

    @Test
    fun eachFlagHasItsReason() {
        for (hot in 1..6) assertEquals(listOf(Flag.THROTTLED), flags(before = good.copy(thermalStatus = hot)))
        assertEquals(listOf(Flag.THROTTLED), flags(after = good.copy(thermalStatus = 1)))
        assertEquals(listOf(Flag.BATTERY_SAVER), flags(before = good.copy(batterySaver = true)))
        assertEquals(listOf(Flag.BATTERY_SAVER), flags(after = good.copy(batterySaver = true)))
        assertEquals(listOf(Flag.SCREEN_OFF), flags(before = good.copy(screenOn = false)))
        assertEquals(listOf(Flag.SCREEN_OFF), flags(after = good.copy(screenOn = false)))
        assertEquals(listOf(Flag.TOO_FEW_SAMPLES), flags(samplesMs = List(29) { 5.0 }))
        assertEquals(listOf(Flag.NOT_FOREGROUND), flags(foreground = false))
        assertEquals(listOf(Flag.WRONG_ANSWERS), flags(selfTestPassed = false))
    }

    @Test
    fun whatThePhoneDoesNotTellIsNoFlag() {
        val silent = DeviceState(null, null, null, null, null, null, emptyList())
        assertEquals(emptyList<Flag>(), flags(before = silent, after = silent))
    }

    @Test
    fun aLastQuarterSlowerThanTheFirstByMoreThanAFifthIsThrottled() {
        fun rising(last: Double) = List(40) { if (it < 30) 10.0 else last }
        assertEquals(emptyList<Flag>(), flags(samplesMs = rising(12.0)))
        assertEquals(listOf(Flag.THROTTLED), flags(samplesMs = rising(12.001)))
        val outliers = List(40) { if (it in 36..39) 1000.0 else 10.0 } // fewer than half of the quarter
        assertEquals(emptyList<Flag>(), flags(samplesMs = outliers))
    }

    @Test
    fun fewerThanEightSamplesHaveNoQuarters() {
        assertEquals(listOf(Flag.TOO_FEW_SAMPLES), flags(samplesMs = List(7) { it + 1.0 }))
        assertEquals(listOf(Flag.THROTTLED, Flag.TOO_FEW_SAMPLES), flags(samplesMs = List(8) { it + 1.0 }))
    }

    @Test
    fun flagsAreNamedAsInTheSchema() {
        val ids =
            listOf("throttled", "battery_saver", "screen_off", "too_few_samples", "not_foreground", "wrong_answers")
        assertEquals(ids, Flag.entries.map { it.id })
        assertNotEquals(ids, Flag.entries.map { it.name })
    }

    private fun flags(
        samplesMs: List<Double> = steady,
        before: DeviceState = good,
        after: DeviceState = good,
        foreground: Boolean = true,
        selfTestPassed: Boolean? = true,
    ) = invalidBecause(samplesMs, before, after, foreground, selfTestPassed)

    private fun numbers(array: JSONArray) = List(array.length()) { array.getDouble(it) }

    private fun objects(array: JSONArray): List<JSONObject> = List(array.length()) { array.getJSONObject(it) }
}
