package org.dmf.classifier

import java.util.Date
import java.util.Random
import java.util.concurrent.CancellationException

/** The phone as a benchmark sees it; [Device] is the real one. */
interface Phone {
    /** An emulator's time is not latency. */
    val isEmulator: Boolean

    val description: DeviceDescription

    fun state(): DeviceState

    /** This process's peak resident memory so far. */
    fun peakMemoryBytes(): Long

    /** A clock that only ever goes forward. */
    fun nanoTime(): Long

    fun now(): Date
}

/** Measures packages on [phone] by [engines]; [isForeground] is asked before each timed run and after the last. */
class Benchmark(
    private val engines: EngineFactory,
    private val phone: Phone,
    private val isForeground: () -> Boolean,
) {
    @Volatile private var cancelled = false

    /** Ends [measure] for good, at the latest after the inference that runs now; may be called by any thread. */
    fun cancel() {
        cancelled = true
    }

    /**
     * Opens the artifact, runs the golden images through it, then [warmup] runs untimed and [repeats] timed.
     *
     * With [postProcessing], choosing the objects of a detector whose graph does not is a part of a run.
     * All on the calling thread. EngineError: an emulator, a number out of range, or the runtime cannot.
     * CancellationException: [cancel] was called.
     */
    fun measure(
        modelPackage: ModelPackage,
        accelerator: Accelerator,
        threads: Int,
        warmup: Int,
        repeats: Int,
        postProcessing: Boolean = false,
    ): LatencyReport {
        if (phone.isEmulator) throw EngineError("this is an emulator, its time is not latency; use a phone")
        checkAtLeast(1, "threads", threads)
        checkAtLeast(0, "warmup", warmup)
        checkAtLeast(1, "repeats", repeats)
        val manifest = modelPackage.manifest
        engines.loadLibrary(manifest.format)
        val (input, inputName) = benchmarkInput(modelPackage)
        val chosenBy = PostProcessing.of(manifest.detection, postProcessing)

        fun run(engine: Engine) {
            if (cancelled) throw CancellationException("the benchmark was cancelled")
            val outputs = engine.run(input)
            if (chosenBy == PostProcessing.RUNNER) manifest.findings(outputs)
        }
        val measuredAt = phone.now()
        val before = phone.state()
        val baselineMemoryBytes = phone.peakMemoryBytes()
        val start = phone.nanoTime()
        return engines.open(modelPackage, accelerator, threads).use { engine ->
            val coldLoadMs = millisecondsSince(start)
            val selfTest = modelPackage.golden?.let { SelfTest.run(engine, it, manifest) }
            repeat(warmup) { run(engine) }
            var foreground = true
            val samplesMs =
                List(repeats) {
                    foreground = foreground && isForeground()
                    val begin = phone.nanoTime()
                    run(engine)
                    millisecondsSince(begin)
                }
            foreground = foreground && isForeground()
            val after = phone.state()
            LatencyReport(
                manifest = manifest,
                artifactSha256 = modelPackage.artifactSha256,
                runtime = engine.runtime,
                threads = threads,
                input = inputName,
                postProcessing = chosenBy,
                warmupCount = warmup,
                coldLoadMs = coldLoadMs,
                samplesMs = samplesMs,
                baselineMemoryBytes = baselineMemoryBytes,
                peakMemoryBytes = phone.peakMemoryBytes(),
                selfTest = selfTest,
                invalidBecause = invalidBecause(samplesMs, before, after, foreground, selfTest?.passed),
                measuredAt = measuredAt,
                device = phone.description,
                before = before,
                after = after,
            )
        }
    }

    private fun millisecondsSince(start: Long): Double = (phone.nanoTime() - start) / 1e6
}

private fun checkAtLeast(
    min: Int,
    name: String,
    value: Int,
) {
    if (value < min) throw EngineError("$name is $value, it must be >= $min")
}

/** Golden image 0, or seeded noise where the package has no golden vectors, and which of them it is. */
private fun benchmarkInput(modelPackage: ModelPackage): Pair<FloatArray, String> {
    val spec = modelPackage.manifest.input
    val golden = modelPackage.golden
    if (golden != null) return Preprocess.normalise(golden.images[0], spec) to "golden image 0: ${golden.names[0]}"
    val noise = ByteArray(spec.cropHeight * spec.cropWidth * Pixels.CHANNELS).also { Random(0).nextBytes(it) }
    return Preprocess.normalise(Pixels(spec.cropWidth, spec.cropHeight, noise), spec) to
        "noise, java.util.Random seed 0"
}
