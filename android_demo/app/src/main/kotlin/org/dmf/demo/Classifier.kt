package org.dmf.demo

import org.dmf.classifier.Accelerator
import org.dmf.classifier.Engine
import org.dmf.classifier.EngineError
import org.dmf.classifier.Engines
import org.dmf.classifier.InputSpec
import org.dmf.classifier.ModelPackage
import org.dmf.classifier.Pixels
import org.dmf.classifier.Prediction
import org.dmf.classifier.Preprocess
import org.dmf.classifier.SelfTest
import org.dmf.classifier.softmax
import org.dmf.classifier.topK
import java.io.Closeable
import java.io.File
import java.util.concurrent.atomic.AtomicReference

/** A package and what it runs on. */
data class Selection(
    val folder: File,
    val accelerator: Accelerator,
)

/** What came of a [Selection]. */
sealed interface Opened {
    object Nothing : Opened

    object Opening : Opened

    class Refused(
        val problem: String,
    ) : Opened

    /** [verdict] is null where the package has no golden vectors. */
    class Ready(
        val modelPackage: ModelPackage,
        val verdict: Verdict?,
    ) : Opened
}

/** The best classes of a picture, and how long it took from the picture to the input and from there to the logits. */
class Answer(
    val predictions: List<Prediction>,
    val preprocessingMs: Double,
    val inferenceMs: Double,
)

/** Holds the opened network and classifies one picture after the other; a newer one replaces one that waits. */
class Classifier(
    private val background: Background,
    private val verdicts: Verdicts,
) {
    /** All on the main thread. */
    interface Listener {
        fun onOpened(opened: Opened)

        fun onAnswer(answer: Answer)

        fun onProblem(problem: String)
    }

    private class Request(
        val sequence: Int,
        val picture: (InputSpec) -> Pixels,
    )

    // the main thread's
    private var selection: Selection? = null
    var listener: Listener? = null
    var opened: Opened = Opened.Nothing
        private set

    // the background thread's
    private var engine: Engine? = null
    private var modelPackage: ModelPackage? = null

    private val waiting = AtomicReference<Request?>()

    @Volatile private var sequence = 0

    /** Opens what [selected] says, unless it is open; tests it by its golden vectors, unless it was. */
    fun select(selected: Selection) {
        if (selected == selection && opened !is Opened.Refused) return
        forget()
        selection = selected
        show(Opened.Opening)
        background.run(
            work = { attempt { open(selected) }.onFailure { closeEngine() }.getOrThrow() },
            failed = { if (selection === selected) show(Opened.Refused(it)) },
            done = { if (selection === selected) show(it) },
        )
    }

    /** Gives the network back; pictures are ignored until something is selected. */
    fun close() {
        forget()
        selection = null
        show(Opened.Nothing)
        background.run { closeEngine() }
    }

    /** Pictures given so far are not answered any more. On the main thread, as the answers. */
    fun forget() {
        sequence++
        waiting.set(null)
    }

    /** Classifies what [picture] returns on the background thread; may be called on any. */
    fun classify(picture: (InputSpec) -> Pixels) {
        if (waiting.getAndSet(Request(sequence, picture)) == null) background.run(::classifyNewest)
    }

    private fun show(now: Opened) {
        opened = now
        listener?.onOpened(now)
    }

    private fun open(selected: Selection): Opened {
        closeEngine()
        val opening = ModelPackage.open(selected.folder)
        val engine = Engines.open(opening, selected.accelerator, THREADS)
        this.engine = engine
        modelPackage = opening
        val golden = opening.golden ?: return Opened.Ready(opening, null)
        val verdict =
            verdicts.find(opening.artifactSha256, selected.accelerator)
                ?: Verdict(SelfTest.run(engine, golden, opening.manifest.input)).also {
                    verdicts.remember(opening.artifactSha256, selected.accelerator, it)
                }
        return Opened.Ready(opening, verdict)
    }

    private fun closeEngine() {
        val closing: Closeable? = engine
        engine = null
        modelPackage = null
        attempt { closing?.close() } // a driver that fails here has nothing left to be told
    }

    private fun classifyNewest() {
        val request = waiting.getAndSet(null) ?: return
        val engine = engine ?: return
        val spec = modelPackage?.manifest?.input ?: return
        val outcome = attempt { classify(engine, request.picture(spec), spec) }
        background.post {
            if (request.sequence == sequence) {
                outcome.fold({ listener?.onAnswer(it) }, { listener?.onProblem(it.inWords()) })
            }
        }
    }

    private fun classify(
        engine: Engine,
        picture: Pixels,
        spec: InputSpec,
    ): Answer {
        val start = System.nanoTime()
        val input = Preprocess.toInput(picture, spec)
        val prepared = System.nanoTime()
        val logits = engine.run(input)
        val answered = System.nanoTime()
        if (!logits.all { it.isFinite() }) {
            throw EngineError("the network's answer is no number; use another accelerator")
        }
        return Answer(
            predictions = topK(softmax(logits), SHOWN),
            preprocessingMs = (prepared - start) / NS_PER_MS,
            inferenceMs = (answered - prepared) / NS_PER_MS,
        )
    }
}

private const val SHOWN = 5
private const val NS_PER_MS = 1e6
private val THREADS = minOf(4, Runtime.getRuntime().availableProcessors())
