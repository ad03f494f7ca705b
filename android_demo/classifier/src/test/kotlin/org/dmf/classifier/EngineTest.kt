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
    fun theFirstOutputIsTheOneOfTheLowestNumber() {
        assertEquals("output_0", firstOutput(listOf("output_0", "output_1", "output_10", "output_2")))
        assertEquals("output_2", firstOutput(listOf("output_10", "output_2")))
        assertEquals("logits", firstOutput(listOf("logits", "features")))
        assertEquals("features", firstOutput(listOf("features", "output_0")))
    }

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
