package org.dmf.demo

import org.dmf.classifier.Accelerator
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

class BenchmarkIntentTest {
    @get:Rule val folder = TemporaryFolder()

    private val extras: Map<String, Any> by lazy {
        mapOf(
            "run" to "2026-a1",
            "package" to folder.root.path,
            "accelerators" to "cpu,gpu",
            "threads" to 2,
            "warmup" to 0,
            "repeats" to 100,
        )
    }

    @Test
    fun `a complete intent is a plan`() {
        val asked = BenchmarkIntent(extras::get)
        assertTrue(asked.asksForRun)
        assertEquals("2026-a1", asked.run())
        val plan = BenchmarkPlan(folder.root, listOf(Accelerator.CPU, Accelerator.GPU), 2, 0, 100)
        assertEquals(plan, asked.plan())
    }

    @Test
    fun `post-processing is counted if it is asked for`() {
        for ((extra, expected) in listOf(true to true, false to false)) {
            val asked = BenchmarkIntent((extras + ("post_processing" to extra))::get)
            assertEquals(expected, asked.plan().postProcessing)
        }
        assertFalse(BenchmarkIntent(extras::get).plan().postProcessing)
    }

    @Test
    fun `without a run nothing is asked for`() = assertFalse(BenchmarkIntent { null }.asksForRun)

    @Test
    fun `the name of a run cannot leave the folder`() {
        for (run in listOf("", "../a", "a/b", "a b", "a.json", "ä", "a".repeat(65), "a\n", 5)) {
            assertTrue("$run", refused { BenchmarkIntent((extras + ("run" to run))::get).run() } != null)
        }
        assertEquals("a".repeat(64), BenchmarkIntent((extras + ("run" to "a".repeat(64)))::get).run())
    }

    @Test
    fun `each wrong extra is named`() {
        val wrong =
            listOf(
                "package" to "/nowhere/at/all",
                "package" to 7,
                "accelerators" to "",
                "accelerators" to "cpu,cpu",
                "accelerators" to "cpu, gpu",
                "accelerators" to "tpu",
                "threads" to 0,
                "threads" to 65,
                "threads" to "1",
                "threads" to 1L,
                "warmup" to -1,
                "warmup" to 10_001,
                "repeats" to 0,
                "repeats" to 10_001,
                "post_processing" to "true",
                "post_processing" to 1,
            )
        for (extra in wrong) {
            val problem = refused { BenchmarkIntent((extras + extra)::get).plan() }
            assertTrue("$extra: $problem", problem != null && extra.first.removeSuffix("s") in problem)
            assertFalse("$extra: $problem", "\n" in problem!!)
        }
        for (name in extras.keys - "run") {
            val problem = refused { BenchmarkIntent((extras - name)::get).plan() }
            assertTrue("$name: $problem", problem != null && name in problem)
        }
    }

    private fun refused(work: () -> Any): String? = attempt(work).exceptionOrNull()?.inWords()
}
