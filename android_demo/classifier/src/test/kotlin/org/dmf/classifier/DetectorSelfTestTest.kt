package org.dmf.classifier

import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertTrue
import org.junit.Test
import kotlin.math.abs

class DetectorSelfTestTest {
    private val opened = Fixtures.openDetector()
    private val golden = opened.golden as GoldenObjects
    private val classes = checkNotNull(opened.manifest.classes)

    @Test
    fun theLayersThemselvesPass() {
        val result = run(DetectorEngine())
        assertTrue("$result", result.passed)
        assertFalse(result.frozenRouting)
        assertEquals(golden.names, result.images.map { it.image })
        assertEquals(golden.scoreBudgets.toList(), result.images.map { it.budgetAbsError })
        assertTrue("$result", result.worst.maxAbsError in 1e-9..1e-5) // float32 sums
    }

    @Test
    fun everyScoreIsJudgedByItsImagesBudget() {
        for (image in golden.names.indices) {
            for (share in listOf(0.5f, 1.5f)) {
                val off = share * golden.scoreBudgets[image].toFloat()
                val result = run(changed(image) { scores, _ -> scores[surest(scores)] += off })
                assertEquals(List(3) { share < 1 || it != image }, result.images.map { it.passed })
                assertEquals(share < 1, result.passed)
                assertEquals(golden.names[image], result.worst.image)
                assertEquals(off.toDouble(), result.worst.maxAbsError, 1e-5)
            }
        }
    }

    @Test
    fun aBoxThatMovedIsAnotherObject() {
        for (image in golden.names.indices) {
            for ((px, passes) in listOf(0.01f to true, 2f to false, -3f to false)) {
                val result =
                    run(
                        changed(image) { scores, boxes ->
                            val first = 4 * (surest(scores) / classes)
                            for (side in 0 until 4) boxes[first + side] += px
                        },
                    )
                assertEquals("$image, $px px", List(3) { passes || it != image }, result.images.map { it.passed })
                if (!passes) assertEquals(1.0, result.worst.maxAbsError, 0.0)
            }
        }
    }

    @Test
    fun aMissingObjectFails() =
        assertOnlyFails(2) { scores, _ ->
            val pair = surest(scores)
            for (index in scores.indices) if (index % classes == pair % classes) scores[index] = 0f
        }

    @Test
    fun anObjectThatIsNotExpectedFails() =
        assertOnlyFails(0) { scores, boxes ->
            scores[scores.size - 1] = 0.9f
            floatArrayOf(30f, 30f, 34f, 34f).copyInto(boxes, boxes.size - 4)
        }

    @Test
    fun anotherClassFails() = assertOnlyFails(1) { scores, _ -> scores.reverse(0, classes * 6) }

    @Test
    fun swappedSidesFail() {
        val result =
            run(
                ChangedEngine(DetectorEngine()) { _, _, (scores, boxes) ->
                    listOf(scores, FloatArray(boxes.size) { boxes[it xor 1] })
                },
            )
        assertTrue("$result", result.images.none { it.passed })
    }

    @Test
    fun anUndecidedObjectMayVanishAndAnotherMayCome() {
        val undecided = golden.expected[1].filter { !it.decided }.map { it.expected }
        assertEquals(2, undecided.size)
        val (there, notThere) = undecided

        /** With whatever is less sure, which would take its place. */
        fun vanish(scores: FloatArray) {
            assertTrue(scores.any { abs(it - there.score) < 1e-5 })
            for (index in scores.indices) if (scores[index] < there.score + 1e-5) scores[index] = 0f
        }
        assertTrue(run(changed(1) { scores, _ -> vanish(scores) }).passed)
        for ((classIndex, passes) in listOf(notThere.classIndex to true, notThere.classIndex + 1 to false)) {
            val coming =
                changed(1) { scores, boxes ->
                    vanish(scores)
                    val anchor = scores.toList().chunked(classes).indexOfFirst { of -> of.all { it == 0f } }
                    scores[anchor * classes + classIndex] = notThere.score.toFloat() + 1e-4f
                    notThere.box.toFloats().copyInto(boxes, 4 * anchor)
                }
            assertEquals(passes, run(coming).passed)
        }
    }

    /** However large the budget is. */
    @Test
    fun aMissingObjectIsNoMatterOfTheBudget() {
        val generous =
            GoldenObjects(golden.images, golden.names, golden.expected, golden.iou, DoubleArray(3) { 2.0 })
        assertTrue(SelfTest.run(DetectorEngine(), generous, opened.manifest).passed)
        val blind = ChangedEngine(DetectorEngine()) { _, _, (scores, boxes) -> listOf(FloatArray(scores.size), boxes) }
        val result = SelfTest.run(blind, generous, opened.manifest)
        assertTrue(result.images.none { it.passed })
        assertEquals(listOf(1.0, 1.0, 1.0), result.images.map { it.maxAbsError })
    }

    @Test
    fun whatIsNoNumberFailsAsTheWorst() {
        for (value in listOf(Float.NaN, Float.POSITIVE_INFINITY, Float.NEGATIVE_INFINITY)) {
            for (output in 0..1) {
                val engine =
                    ChangedEngine(DetectorEngine()) { run, _, outputs ->
                        outputs.also { if (run == 1) it[output][3] = value else it[0].fill(0f) }
                    }
                val result = run(engine)
                assertEquals("photograph: café", result.worst.image)
                assertEquals(Double.POSITIVE_INFINITY, result.worst.maxAbsError, 0.0)
                assertFalse(result.passed)
            }
        }
    }

    private fun assertOnlyFails(
        image: Int,
        change: (scores: FloatArray, boxes: FloatArray) -> Unit,
    ) {
        val result = run(changed(image, change))
        assertEquals(List(3) { it != image }, result.images.map { it.passed })
        assertEquals(golden.names[image], result.worst.image)
        assertEquals(1.0, result.worst.maxAbsError, 0.0)
    }

    private fun Box.toFloats() = floatArrayOf(left.toFloat(), top.toFloat(), right.toFloat(), bottom.toFloat())

    private fun surest(scores: FloatArray): Int = scores.indices.maxBy { scores[it] }

    /** The detector with its answer for one golden image changed. */
    private fun changed(
        image: Int,
        change: (scores: FloatArray, boxes: FloatArray) -> Unit,
    ) = ChangedEngine(DetectorEngine()) { run, _, outputs -> outputs.also { if (run == image) change(it[0], it[1]) } }

    private fun run(engine: Engine) = SelfTest.run(engine, golden, opened.manifest)
}
