package org.dmf.demo

import org.dmf.classifier.Accelerator
import org.dmf.classifier.Engine
import org.dmf.classifier.Engines
import org.dmf.classifier.Finding
import org.dmf.classifier.InputSpec
import org.dmf.classifier.Manifest
import org.dmf.classifier.ModelPackage
import org.dmf.classifier.Pixels
import org.dmf.classifier.Placement
import org.dmf.classifier.Preprocess
import org.dmf.classifier.SelfTest
import org.dmf.classifier.findings
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

/**
 * What the network finds in a picture, the surest first, and where the picture lay under its input.
 *
 * It took [preprocessingMs] from the picture to the input, and from there to the findings [inferenceMs].
 */
class Answer(
    val findings: List<Finding>,
    val placement: Placement,
    val preprocessingMs: Double,
    val inferenceMs: Double,
)

/** Holds the opened network and gives it one picture after the other; a newer one replaces one that waits. */
class Predictor(
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

    /** Answers for what [picture] returns on the background thread; may be called on any. */
    fun predict(picture: (InputSpec) -> Pixels) {
        if (waiting.getAndSet(Request(sequence, picture)) == null) background.run(::predictNewest)
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
                ?: Verdict(SelfTest.run(engine, golden, opening.manifest)).also {
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

    private fun predictNewest() {
        val request = waiting.getAndSet(null) ?: return
        val engine = engine ?: return
        val manifest = modelPackage?.manifest ?: return
        val outcome = attempt { predict(engine, request.picture(manifest.input), manifest) }
        background.post {
            if (request.sequence == sequence) {
                outcome.fold({ listener?.onAnswer(it) }, { listener?.onProblem(it.inWords()) })
            }
        }
    }

    private fun predict(
        engine: Engine,
        picture: Pixels,
        manifest: Manifest,
    ): Answer {
        val start = System.nanoTime()
        val input = Preprocess.toInput(picture, manifest.input)
        val prepared = System.nanoTime()
        val findings = manifest.findings(engine.run(input))
        val answered = System.nanoTime()
        return Answer(
            findings,
            Preprocess.placement(picture.width, picture.height, manifest.input),
            preprocessingMs = (prepared - start) / NS_PER_MS,
            inferenceMs = (answered - prepared) / NS_PER_MS,
        )
    }
}

private const val NS_PER_MS = 1e6
private val THREADS = minOf(4, Runtime.getRuntime().availableProcessors())
