package org.dmf.demo

import org.dmf.classifier.Benchmark
import org.dmf.classifier.Engines
import org.dmf.classifier.LatencyReport
import org.dmf.classifier.ModelPackage
import org.dmf.classifier.Phone
import org.dmf.classifier.accelerators
import org.dmf.classifier.latencyResults
import org.json.JSONObject

/** How far a measurement is. */
sealed interface Measurement {
    object None : Measurement

    /** [accelerator] is measured now, the [index]th of [count]. */
    class Running(
        val accelerator: String,
        val index: Int,
        val count: Int,
    ) : Measurement

    class Done(
        val reports: List<LatencyReport>,
        val document: String,
    ) : Measurement

    class Failed(
        val problem: String,
    ) : Measurement
}

/** Measures one plan at a time on the background thread; all members are for the main thread. */
class Benchmarks(
    private val background: Background,
    private val phone: Phone,
) {
    val foreground = Foreground()
    var listener: ((Measurement) -> Unit)? = null
    var measurement: Measurement = Measurement.None
        private set

    private var running: Benchmark? = null

    val isRunning: Boolean get() = running != null

    /**
     * Measures each accelerator of [plan] in turn.
     *
     * [keep] gets the results, or what went wrong, on the background thread before [listener] does; what it throws
     * becomes the measurement's failure. IllegalStateException: a measurement is running.
     */
    fun start(
        plan: BenchmarkPlan,
        keep: (JSONObject) -> Unit = {},
    ) {
        check(!isRunning) { BUSY }
        val benchmark = Benchmark(Engines, phone, foreground::wasKept)
        running = benchmark
        show(Measurement.Running(plan.accelerators.first().id, 1, plan.accelerators.size))
        background.run {
            val outcome = attempt { measure(plan, benchmark) }
            val ended =
                attempt {
                    val document = outcome.fold(::latencyResults) { errorDocument(it.inWords()) }
                    keep(document)
                    outcome.fold(
                        { Measurement.Done(it, document.toString(2)) },
                        { Measurement.Failed(it.inWords()) },
                    )
                }.getOrElse { Measurement.Failed(it.inWords()) }
            background.post {
                running = null
                show(ended)
            }
        }
    }

    fun cancel() {
        running?.cancel()
    }

    private fun show(now: Measurement) {
        measurement = now
        listener?.invoke(now)
    }

    private fun measure(
        plan: BenchmarkPlan,
        benchmark: Benchmark,
    ): List<LatencyReport> {
        val modelPackage = ModelPackage.open(plan.folder)
        val offered = accelerators(modelPackage.manifest.format)
        for (accelerator in plan.accelerators) {
            require(accelerator in offered) {
                "${accelerator.id} is nothing for ${modelPackage.manifest.format.id}; " +
                    "choose of ${offered.joinToString { it.id }}"
            }
        }
        return plan.accelerators.mapIndexed { index, accelerator ->
            background.post { show(Measurement.Running(accelerator.id, index + 1, plan.accelerators.size)) }
            foreground.await(FOREGROUND_TIMEOUT_MS)
            foreground.watch()
            plan.run { benchmark.measure(modelPackage, accelerator, threads, warmup, repeats, postProcessing) }
        }
    }

    companion object {
        const val BUSY = "another benchmark is running; wait for its result"
    }
}

private const val FOREGROUND_TIMEOUT_MS = 5000L
