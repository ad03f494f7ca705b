package org.dmf.demo

import org.dmf.classifier.Accelerator
import java.io.File

/**
 * What is to be measured; with [postProcessing], choosing among a detector's boxes counts, too.
 *
 * IllegalArgumentException: a number is out of range, or there is nothing to measure.
 */
data class BenchmarkPlan(
    val folder: File,
    val accelerators: List<Accelerator>,
    val threads: Int,
    val warmup: Int,
    val repeats: Int,
    val postProcessing: Boolean = false,
) {
    init {
        require(accelerators.isNotEmpty()) { "no accelerator is given; give at least one" }
        require(accelerators.distinct().size == accelerators.size) { "an accelerator is given twice; give it once" }
        requireIn("threads", threads, THREADS)
        requireIn("warmup", warmup, WARMUP)
        requireIn("repeats", repeats, REPEATS)
    }

    private companion object {
        val THREADS = 1..64
        val WARMUP = 0..10_000
        val REPEATS = 1..10_000
    }
}

private fun requireIn(
    name: String,
    value: Int,
    allowed: IntRange,
) = require(value in allowed) { "$name is $value, it must be ${allowed.first} to ${allowed.last}" }
