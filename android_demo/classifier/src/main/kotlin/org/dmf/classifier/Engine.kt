package org.dmf.classifier

import java.io.Closeable

/** An inference runtime that cannot do what was asked of it; [message] is one line for people. */
class EngineError(
    override val message: String,
    cause: Throwable? = null,
) : Exception(message, cause)

/** What the operators run on; [id] is its name in reports and on command lines. */
enum class Accelerator(
    val id: String,
) {
    CPU("cpu"),
    GPU("gpu"),
    NNAPI("nnapi"),
    ;

    companion object {
        /** EngineError: no accelerator has this [id]. */
        fun of(id: String): Accelerator =
            entries.find { it.id == id }
                ?: throw EngineError("accelerator \"$id\" is not one of ${entries.joinToString { it.id }}")
    }
}

/** The accelerators that the runtime of [format] can be asked for; whether a phone has them, opening tells. */
fun accelerators(format: Format): List<Accelerator> =
    when (format) {
        Format.TFLITE -> listOf(Accelerator.CPU, Accelerator.GPU, Accelerator.NNAPI)
        Format.ONNX -> listOf(Accelerator.CPU, Accelerator.NNAPI)
    }

/**
 * Who runs an artifact: [name] is litert or onnxruntime.
 *
 * [delegatePartitions] is null where the runtime does not tell how many parts of the graph its delegate took.
 */
data class RuntimeInfo(
    val name: String,
    val version: String,
    val accelerator: Accelerator,
    val delegatePartitions: Int?,
)

/** An opened artifact, to be used and closed by the thread that opened it: a GPU's context belongs to one thread. */
interface Engine : Closeable {
    val runtime: RuntimeInfo

    /**
     * The manifest's outputs for one image, in its order, each row by row; the next run may overwrite them.
     *
     * [input] is (1, 3, H, W) or (1, H, W, 3), as the manifest's layout says. EngineError: the runtime refuses it.
     */
    fun run(input: FloatArray): List<FloatArray>
}

/** Opens artifacts. */
fun interface EngineFactory {
    /**
     * Opens the artifact of [modelPackage] on [accelerator] with [threads] threads.
     *
     * EngineError: the runtime cannot, or the accelerator is not there: the CPU never stands in for it unnoticed.
     */
    fun open(
        modelPackage: ModelPackage,
        accelerator: Accelerator,
        threads: Int,
    ): Engine

    /** Loads the native library that [format] needs, which is no part of opening an artifact. */
    fun loadLibrary(format: Format) = Unit
}

/** What [block] gives, or whatever a runtime throws as an EngineError: [action] is what it cannot do. */
internal inline fun <T> orEngineError(
    action: String,
    block: () -> T,
): T =
    try {
        block()
    } catch (error: EngineError) {
        throw error
    } catch (error: Exception) {
        // ONNX Runtime's is a checked one, LiteRT's are of several kinds
        throw cannot(action, error)
    } catch (error: LinkageError) {
        throw cannot(action, error)
    }

internal fun cannot(
    action: String,
    error: Throwable,
) = EngineError("cannot $action: ${error.oneLine()}", error)
