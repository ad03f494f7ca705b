package org.dmf.classifier

import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test

class FindingsTest {
    @Test
    fun aClassifierFindsEveryClass() {
        val manifest = Fixtures.openPackage().manifest
        val findings = manifest.findings(listOf(floatArrayOf(0f, 2f, 1f, -1f, 2f)))
        assertEquals(listOf(1, 4, 2, 0, 3), findings.map { it.classIndex })
        assertEquals(1.0, findings.sumOf { it.score }, 1e-12)
        assertTrue(findings.all { it is Prediction })
    }

    @Test
    fun aDetectorFindsObjectsOrNothing() {
        val opened = Fixtures.openDetector()
        val golden = opened.golden as GoldenObjects
        val input = Preprocess.normalise(golden.images[0], opened.manifest.input)
        val (scores, boxes) = DetectorEngine().run(input)
        val findings = opened.manifest.findings(listOf(scores, boxes))
        assertEquals(golden.expected[0].map { it.expected.classIndex }, findings.map { it.classIndex })
        assertTrue(findings.all { it is DetectedObject })
        assertEquals(emptyList<Finding>(), opened.manifest.findings(listOf(FloatArray(scores.size), boxes)))
    }

    @Test
    fun whatIsNoNumberIsAnError() {
        val message = "the network's answer is no number; use another accelerator"
        val detector = Fixtures.openDetector().manifest
        val boxes = FloatArray(24).also { it[5] = Float.NaN }
        assertEngineError(message) { detector.findings(listOf(FloatArray(30), boxes)) }
        assertEngineError(message) {
            Fixtures.openPackage().manifest.findings(listOf(FloatArray(5) { Float.POSITIVE_INFINITY }))
        }
    }
}
