package org.dmf.classifier

import org.junit.Assert.assertEquals
import org.junit.Assert.assertSame
import org.junit.Assert.assertThrows
import org.junit.Test

class EngineTest {
    @Test
    fun acceleratorsAreNamedInLowerCase() {
        for (accelerator in Accelerator.entries) {
            assertEquals(accelerator.name.lowercase(), accelerator.id)
            assertEquals(accelerator, Accelerator.of(accelerator.id))
        }
        assertEngineError("accelerator \"npu\" is not one of cpu, gpu, nnapi") { Accelerator.of("npu") }
    }

    @Test
    fun eachFormatHasItsAccelerators() {
        assertEquals(listOf("cpu", "gpu", "nnapi"), accelerators(Format.TFLITE).map { it.id })
        assertEquals(listOf("cpu", "nnapi"), accelerators(Format.ONNX).map { it.id })
    }

    @Test
    fun outputsWithoutNamesOfTheirOwnAreNumbered() {
        assertNamed("output_0", listOf("output_0", "output_1", "output_10", "output_2"), "logits")
        assertNamed("output_2", listOf("output_10", "output_2"), "logits")
        assertNamed("output_2, output_10", listOf("output_10", "output_2"), "scores, boxes")
    }

    @Test
    fun outputsOfTheManifestsNamesAreThose() {
        val sorted = listOf("boxes", "count", "labels", "scores") // as a signature has them
        assertNamed("boxes, labels, scores, count", sorted, "boxes, labels, scores, count")
        assertNamed("features", listOf("embedding", "features"), "features")
    }

    @Test
    fun otherOutputsAreInTheirOrder() {
        assertNamed("logits", listOf("logits", "features"), "answer")
        assertNamed("features", listOf("features", "output_0"), "answer")
        assertNamed("a, b", listOf("a", "b", "c"), "scores, boxes")
    }

    private fun assertNamed(
        expected: String,
        names: List<String>,
        manifest: String,
    ) = assertEquals(expected, outputNames(names, manifest.split(", ")).joinToString())

    @Test
    fun whatARuntimeThrowsIsOneLine() {
        val lines = IllegalArgumentException("Internal error:\n  no such\t op\n")
        val error = assertThrows(EngineError::class.java) { orEngineError<Unit>("open it on gpu") { throw lines } }
        assertEquals("cannot open it on gpu: Internal error: no such op", error.message)
        assertSame(lines, error.cause)
        assertEngineError("cannot open it on gpu: libx.so") {
            orEngineError<Unit>("open it on gpu") { throw UnsatisfiedLinkError("libx.so") }
        }
        assertEngineError("as it was") { orEngineError<Unit>("open it on gpu") { throw EngineError("as it was") } }
        assertEquals(3, orEngineError("open it on gpu") { 3 })
    }
}
