package org.dmf.classifier

import org.junit.Assert.assertEquals
import org.junit.Assert.assertSame
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.util.Date
import java.util.concurrent.CancellationException

class BenchmarkTest {
    @get:Rule val temporary = TemporaryFolder()

    private val modelPackage = Fixtures.openPackage()
    private val phone = FakePhone()
    private val images = 3

    /** Takes 7 ms for each golden image, 5 s for each warm-up run, and 1, 2, 3... ms for those that count. */
    private inner class TimedEngine(
        private val warmup: Int,
        private val engine: DenseEngine = DenseEngine(),
    ) : Engine by engine {
        val inputs = mutableListOf<List<Float>>()
        val isClosed get() = engine.isClosed

        override fun run(input: FloatArray): List<FloatArray> {
            inputs += input.toList()
            phone.passMs(
                when (val run = inputs.size - images) {
                    in Int.MIN_VALUE..0 -> 7.0
                    in 1..warmup -> 5000.0
                    else -> (run - warmup).toDouble()
                },
            )
            return engine.run(input)
        }
    }

    @Test
    fun samplesAreExactAndWarmUpIsNotCounted() {
        val engine = TimedEngine(warmup = 4)
        val report = measure(engine, warmup = 4, repeats = 30)
        assertEquals(List(30) { it + 1.0 }, report.samplesMs)
        assertEquals(15.5, report.p50Ms, 0.0)
        assertEquals(27.1, report.p90Ms, 1e-12)
        assertEquals(29.71, report.p99Ms, 1e-12)
        assertEquals(15.5, report.meanMs, 1e-12)
        assertEquals(1.0, report.minMs, 0.0)
        assertEquals(4, report.warmupCount)
        assertEquals(images + 4 + 30, engine.inputs.size)
        assertTrue(engine.isClosed)
    }

    @Test
    fun noWarmUpCountsAtOnce() {
        assertEquals(listOf(1.0), measure(TimedEngine(warmup = 0), warmup = 0, repeats = 1).samplesMs)
    }

    @Test
    fun theGoldenImagesComeFirstAndTheFirstOfThemIsMeasured() {
        val engine = TimedEngine(warmup = 1)
        val report = measure(engine, warmup = 1, repeats = 2)
        val golden = checkNotNull(modelPackage.golden)
        val inputs = golden.images.map { Preprocess.normalise(it, modelPackage.manifest.input).toList() }
        assertEquals(inputs + List(3) { inputs[0] }, engine.inputs)
        assertEquals("golden image 0: noise 0", report.input)
        assertTrue(checkNotNull(report.selfTest).passed)
    }

    @Test
    fun withoutGoldenVectorsNoiseIsMeasured() {
        val artifactAlone = ModelPackage.open(Fixtures.copyArtifactAlone(temporary.newFolder()))
        val inputs = mutableSetOf<List<Float>>()
        val engine = changedLogits { _, input, logits -> logits.also { inputs += input.toList() } }
        val report = Benchmark({ _, _, _ -> engine }, phone) { true }.measure(artifactAlone, Accelerator.CPU, 1, 2, 30)
        assertEquals("noise, java.util.Random seed 0", report.input)
        assertEquals(null, report.selfTest)
        assertEquals(emptyList<Flag>(), report.invalidBecause)
        assertEquals(1, inputs.size)
        assertTrue(inputs.single().distinct().size > 100)
    }

    @Test
    fun openingIsTimedAndLoadingTheLibraryIsNot() {
        val engines =
            object : EngineFactory {
                override fun open(
                    modelPackage: ModelPackage,
                    accelerator: Accelerator,
                    threads: Int,
                ): Engine {
                    assertSame(this@BenchmarkTest.modelPackage, modelPackage)
                    assertEquals(Accelerator.NNAPI to 3, accelerator to threads)
                    phone.passMs(12.5)
                    phone.peakMemoryBytes = 300
                    return DenseEngine()
                }

                override fun loadLibrary(format: Format) {
                    assertEquals(Format.ONNX, format)
                    phone.passMs(900.0)
                    phone.peakMemoryBytes = 200
                }
            }
        val report =
            Benchmark(
                engines,
                phone,
            ) { true }.measure(modelPackage, Accelerator.NNAPI, 3, warmup = 0, repeats = 1)
        assertEquals(12.5, report.coldLoadMs, 0.0)
        assertEquals(200L, report.baselineMemoryBytes)
        assertEquals(300L, report.peakMemoryBytes)
        assertEquals(3, report.threads)
        assertEquals(modelPackage.artifactSha256, report.artifactSha256)
    }

    @Test
    fun wrongAnswersAreMeasuredAndFlagged() {
        val report = measure(frozenEngine(), warmup = 0, repeats = 30)
        assertEquals(listOf(Flag.WRONG_ANSWERS), report.invalidBecause)
        assertEquals(emptyList<Flag>(), measure(DenseEngine(), warmup = 0, repeats = 30).invalidBecause)
    }

    @Test
    fun choosingObjectsCountsIfItIsWanted() {
        assertEquals(PostProcessing.NONE, measureDetector(postProcessing = false).postProcessing)
        assertEquals(PostProcessing.RUNNER, measureDetector(postProcessing = true).postProcessing)
        assertEquals(null, measure(DenseEngine(), 0, 1).postProcessing)
        for (form in listOf(Form.ONNX_NMS, Form.TFLITE_DETECTION_POSTPROCESS)) {
            val detection = Detection(form, 0.25, 0.5, 4, null)
            for (wanted in listOf(false, true)) {
                assertEquals(PostProcessing.GRAPH, PostProcessing.of(detection, wanted))
            }
        }
    }

    /** An answer of wrong sizes is one that only the choice among its boxes minds. */
    @Test
    fun objectsAreChosenOnlyIfThatIsWanted() {
        val detector = Fixtures.openDetector()
        val chopped =
            ChangedEngine(DetectorEngine()) { run, _, outputs ->
                if (run < images + 2) outputs else outputs.map { it.copyOf(5) }
            }
        assertEquals(emptyList<Flag>(), measureDetector(postProcessing = false, chopped).invalidBecause)
        assertTrue(detector.manifest.detection != null)
        val again =
            ChangedEngine(DetectorEngine()) { run, _, outputs ->
                if (run < images + 2) outputs else listOf(outputs[0].copyOf(7), outputs[1].copyOf(8))
            }
        assertEngineError("the artifact's answers do not fit to one another: 7 of scores, 8 of boxes") {
            measureDetector(postProcessing = true, again)
        }
    }

    private fun measureDetector(
        postProcessing: Boolean,
        engine: Engine = DetectorEngine(),
    ) = Benchmark({ _, _, _ -> engine }, phone) { true }
        .measure(Fixtures.openDetector(), Accelerator.CPU, 1, warmup = 2, repeats = 30, postProcessing)

    @Test
    fun theStateIsReadBeforeOpeningAndAfterTheLastRun() {
        val engine =
            changedLogits { run, _, logits ->
                phone.state = phone.state.copy(batteryPercent = run)
                logits
            }
        val report = measure(engine, warmup = 2, repeats = 5)
        assertEquals(80, report.before.batteryPercent)
        assertEquals(images + 2 + 5 - 1, report.after.batteryPercent)
        assertEquals(phone.description, report.device)
        assertEquals(phone.now(), report.measuredAt)
    }

    @Test
    fun leavingTheForegroundOnceIsFlagged() {
        for (leftAt in listOf(0, 17, 30)) {
            var asked = 0
            val report = measure(DenseEngine(), warmup = 0, repeats = 30) { asked++ != leftAt }
            assertEquals(listOf(Flag.NOT_FOREGROUND), report.invalidBecause)
        }
        var asked = 0
        assertEquals(emptyList<Flag>(), measure(DenseEngine(), 0, 30) { asked++ != 31 }.invalidBecause)
    }

    @Test
    fun cancellingEndsItAfterTheRunAndClosesTheEngine() {
        val engine = DenseEngine()
        var runs = 0
        lateinit var benchmark: Benchmark
        val cancelling =
            changedLogits(engine) { _, _, logits ->
                if (++runs == images + 4 + 10) benchmark.cancel()
                logits
            }
        benchmark = Benchmark({ _, _, _ -> cancelling }, phone) { true }
        assertThrows(CancellationException::class.java) { benchmark.measure(modelPackage, Accelerator.CPU, 1, 4, 100) }
        assertEquals(images + 4 + 10, runs)
        assertTrue(engine.isClosed)
    }

    @Test
    fun anEngineThatFailsIsClosed() {
        val engine = DenseEngine()
        assertEngineError("no more") {
            measure(
                changedLogits(engine) { run, _, logits ->
                    if (run ==
                        9
                    ) {
                        throw EngineError("no more")
                    } else {
                        logits
                    }
                },
                2,
                9,
            )
        }
        assertTrue(engine.isClosed)
    }

    @Test
    fun emulatorsAreRefused() {
        phone.isEmulator = true
        assertEngineError("this is an emulator, its time is not latency; use a phone") { measure(DenseEngine(), 0, 1) }
    }

    @Test
    fun numbersOutOfRangeAreRefused() {
        val benchmark = Benchmark({ _, _, _ -> DenseEngine() }, phone) { true }
        for ((message, numbers) in listOf(
            "threads is 0, it must be >= 1" to listOf(0, 0, 1),
            "warmup is -1, it must be >= 0" to listOf(1, -1, 1),
            "repeats is 0, it must be >= 1" to listOf(1, 0, 0),
        )) {
            val (threads, warmup, repeats) = numbers
            assertEngineError(message) { benchmark.measure(modelPackage, Accelerator.CPU, threads, warmup, repeats) }
        }
    }

    private fun measure(
        engine: Engine,
        warmup: Int,
        repeats: Int,
        isForeground: () -> Boolean = { true },
    ) = Benchmark({ _, _, _ -> engine }, phone, isForeground).measure(modelPackage, Accelerator.CPU, 1, warmup, repeats)
}

/** A phone whose time passes when it is told to, and by 0 ms otherwise. */
class FakePhone : Phone {
    private var nanoseconds = 1_000_000_000_000L

    override var isEmulator = false
    override val description =
        DeviceDescription(
            manufacturer = "Nobody",
            model = "Phone 1",
            soc = "SM0000",
            sdk = 34,
            os = "Android 14 (API 34)",
            machine = "arm64-v8a",
            cpu = "SM0000",
            logicalCores = 2,
            governor = "schedutil",
            app = "org.dmf.demo 0.1.0",
        )
    var state =
        DeviceState(
            thermalStatus = 0,
            batteryTemperatureC = 31.5,
            batteryPercent = 80,
            charging = false,
            batterySaver = false,
            screenOn = true,
            frequenciesKhz = listOf(1_800_000, null),
        )
    var peakMemoryBytes = 123_456_512L

    fun passMs(milliseconds: Double) {
        nanoseconds += (milliseconds * 1e6).toLong()
    }

    override fun state(): DeviceState = state

    override fun peakMemoryBytes(): Long = peakMemoryBytes

    override fun nanoTime(): Long = nanoseconds

    override fun now(): Date = Date(1_763_884_805_678) // 2025-11-23T08:00:05.678 UTC
}
