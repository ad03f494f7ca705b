package org.dmf.classifier

import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertTrue
import org.junit.Test
import kotlin.math.abs

class SelfTestTest {
    private val opened = Fixtures.openPackage()
    private val golden = opened.golden as GoldenLogits

    @Test
    fun theLayerItselfPasses() {
        val result = run(DenseEngine())
        assertTrue("$result", result.passed)
        assertFalse(result.frozenRouting)
        assertEquals(golden.names, result.images.map { it.image })
        assertEquals(golden.budgets.toList(), result.images.map { it.budgetAbsError })
        assertTrue("$result", result.worst.maxAbsError in 1e-8..1e-4) // float32 sums
    }

    @Test
    fun everyImageIsJudgedByItsOwnBudget() {
        for (i in golden.names.indices) {
            for (share in listOf(0.5f, 1.5f)) {
                val off = share * golden.budgets[i].toFloat()
                val result = run(changedLogits { run, _, logits -> if (run == i) moved(logits, 3, off) else logits })
                assertEquals(List(3) { share < 1 || it != i }, result.images.map { it.passed })
                assertEquals(share < 1, result.passed)
                assertEquals(golden.names[i], result.worst.image)
                assertEquals(off.toDouble(), result.worst.maxAbsError, 1e-4)
            }
        }
    }

    @Test
    fun aScaledAnswerFails() = assertFails(changedLogits { _, _, logits -> logits.map { it * 1.01f }.toFloatArray() })

    @Test
    fun aZeroedAnswerFails() = assertFails(changedLogits { _, _, logits -> FloatArray(logits.size) })

    @Test
    fun aPermutedAnswerFails() = assertFails(changedLogits { _, _, logits -> logits.reversedArray() })

    @Test
    fun aPermutedInputFails() =
        assertFails(changedLogits { _, input, _ -> DenseEngine().run(input.reversedArray())[0] })

    @Test
    fun frozenRoutingFailsAndIsNamed() {
        val result = run(frozenEngine())
        assertTrue(result.frozenRouting)
        assertFalse(result.passed)
        assertTrue(result.images[0].passed) // it is what the others are routed like
        assertFalse(result.images[1].passed || result.images[2].passed)
    }

    /** Halfway between the two, within a budget of both: right by its errors, and still frozen. */
    @Test
    fun frozenRoutingFailsWithinTheBudgetsToo() {
        val frozenLogits = checkNotNull(golden.frozenLogits)
        val budgets =
            DoubleArray(3) { i ->
                maxOf(1e-3, 0.75 * golden.logits[i].indices.maxOf { abs(golden.logits[i][it] - frozenLogits[i][it]) })
            }
        val wide = GoldenLogits(golden.images, golden.names, golden.logits, budgets, frozenLogits)
        val halfway =
            changedLogits { run, _, _ ->
                FloatArray(5) { ((golden.logits[run][it] + frozenLogits[run][it]) / 2).toFloat() }
            }
        val result = SelfTest.run(halfway, wide, opened.manifest)
        assertTrue(result.images.all { it.passed })
        assertTrue(result.frozenRouting)
        assertFalse(result.passed)
        assertTrue(SelfTest.run(DenseEngine(), wide, opened.manifest).passed)
    }

    @Test
    fun whereFrozenRoutingWouldAnswerTheSameItIsNotSuspected() {
        for (frozenLogits in listOf(golden.logits, null)) {
            val other = GoldenLogits(golden.images, golden.names, golden.logits, golden.budgets, frozenLogits)
            val result = SelfTest.run(DenseEngine(), other, opened.manifest)
            assertFalse(result.frozenRouting)
            assertTrue(result.passed)
        }
    }

    @Test
    fun whatIsNoNumberFailsAsTheWorst() {
        for (value in listOf(Float.NaN, Float.POSITIVE_INFINITY, Float.NEGATIVE_INFINITY)) {
            val engine =
                changedLogits { run, _, logits ->
                    logits.also { if (run == 1) it[4] = value else it[0] += 10f }
                }
            val result = run(engine)
            assertFalse(result.passed)
            assertEquals("photograph: café", result.worst.image)
            assertEquals(Double.POSITIVE_INFINITY, result.worst.maxAbsError, 0.0)
        }
    }

    @Test
    fun anotherNumberOfLogitsIsAnError() {
        assertEngineError("the artifact answers 4 logits, the golden vectors have 5") {
            run(changedLogits { _, _, logits -> logits.copyOf(4) })
        }
    }

    @Test
    fun theWorstImageOfExactAnswersHasNoError() {
        val exact =
            SelfTestResult(listOf(ImageError("a", 0.0, 0.0), ImageError("b", 1e-9, 1e-3)), frozenRouting = false)
        assertTrue(exact.passed)
        assertEquals("b", exact.worst.image)
        val spent = SelfTestResult(exact.images + ImageError("c", 1e-12, 0.0), frozenRouting = false)
        assertFalse(spent.passed)
        assertEquals("c", spent.worst.image)
    }

    private fun assertFails(engine: Engine) {
        val result = run(engine)
        assertFalse(result.passed)
        assertFalse(result.frozenRouting)
        assertTrue(result.images.none { it.passed })
    }

    private fun run(engine: Engine) = SelfTest.run(engine, golden, opened.manifest)

    private fun moved(
        logits: FloatArray,
        index: Int,
        by: Float,
    ) = logits.also { it[index] += by }
}
