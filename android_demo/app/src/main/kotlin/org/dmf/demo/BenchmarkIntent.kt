package org.dmf.demo

import org.dmf.classifier.Accelerator
import java.io.File

/**
 * The extras of the benchmark intent: [extra] returns the one of a name, or null.
 *
 *     --es run ID --es package FOLDER --es accelerators cpu,gpu --ei threads 1 --ei warmup 10 --ei repeats 100
 *     [--ez post_processing true]
 */
class BenchmarkIntent(
    private val extra: (String) -> Any?,
) {
    /** Whether somebody asks for a measurement, rightly or not. */
    val asksForRun: Boolean get() = extra(RUN) != null

    /** The name of the result. IllegalArgumentException: not one that can be a file's. */
    fun run(): String {
        val run = text(RUN)
        require(RUN_PATTERN.matches(run)) { "run is \"${run.take(SHOWN)}\", it must be 1 to 64 letters, digits or -" }
        return run
    }

    /** IllegalArgumentException or EngineError: an extra is missing, of another type, or not allowed. */
    fun plan(): BenchmarkPlan {
        val folder = File(text("package"))
        require(folder.isDirectory && folder.canRead()) {
            "package is ${folder.path}, which is no folder that this app can read; push it to /data/local/tmp/dmf, " +
                "chmod -R a+rX"
        }
        return BenchmarkPlan(
            folder = folder,
            accelerators = text("accelerators").split(',').map(Accelerator::of),
            threads = number("threads"),
            warmup = number("warmup"),
            repeats = number("repeats"),
            postProcessing = flag("post_processing"),
        )
    }

    private fun text(name: String): String = requireNotNull(extra(name) as? String) { "no --es $name; give a text" }

    private fun number(name: String): Int = requireNotNull(extra(name) as? Int) { "no --ei $name; give an integer" }

    /** False, unless it is given. */
    private fun flag(name: String): Boolean =
        requireNotNull((extra(name) ?: false) as? Boolean) { "$name is no --ez; give true or false" }
}

private const val RUN = "run"
private const val SHOWN = 80
private val RUN_PATTERN = Regex("[A-Za-z0-9-]{1,64}")
