package org.dmf.classifier

import org.tensorflow.lite.Delegate
import org.tensorflow.lite.Interpreter
import org.tensorflow.lite.TensorFlowLite
import org.tensorflow.lite.gpu.GpuDelegate
import org.tensorflow.lite.gpu.GpuDelegateFactory
import org.tensorflow.lite.nnapi.NnApiDelegate
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.FloatBuffer
import kotlin.math.abs

/**
 * LiteRT: XNNPACK on the CPU, or a delegate for the GPU or NNAPI.
 *
 * A delegate that cannot be had is an EngineError. Operators that it lacks run on the CPU, and the Java API does not
 * tell how many these are. Half precision is allowed to fp16 artifacts alone.
 */
class LiteRtEngine private constructor(
    private val interpreter: Interpreter,
    private val delegate: Delegate?,
    manifest: Manifest,
    override val runtime: RuntimeInfo,
) : Engine {
    private val signature = signature(interpreter, manifest.outputs.map { it.name })
    private val outputs = manifest.outputs.map { FloatArray(it.shape.fold(1) { size, side -> size * abs(side) }) }
    private val input =
        ByteBuffer
            .allocateDirect(
                manifest.input.cropHeight * manifest.input.cropWidth * Pixels.CHANNELS * Float.SIZE_BYTES,
            ).order(ByteOrder.nativeOrder())

    override fun run(input: FloatArray): List<FloatArray> =
        orEngineError("run it on ${runtime.accelerator.id}") {
            this.input.asFloatBuffer().put(input)
            val buffers = outputs.map(FloatBuffer::wrap)
            if (signature == null) {
                val numbered = buffers.indices.associateWith(buffers::get)
                interpreter.runForMultipleInputsOutputs(arrayOf(this.input), numbered)
            } else {
                val (key, inputName, outputNames) = signature
                interpreter.runSignature(mapOf(inputName to this.input), outputNames.zip(buffers).toMap(), key)
            }
            outputs
        }

    override fun close() {
        interpreter.close()
        delegate?.close() // the interpreter uses it to its end
    }

    companion object {
        /** EngineError: the artifact or the delegate cannot be opened. */
        fun open(
            modelPackage: ModelPackage,
            accelerator: Accelerator,
            threads: Int,
        ): LiteRtEngine =
            orEngineError("open ${modelPackage.artifact} on ${accelerator.id}") {
                val manifest = modelPackage.manifest
                val delegate = delegate(accelerator, halfPrecision = manifest.precision == "fp16")
                try {
                    val onCpu = accelerator == Accelerator.CPU
                    val options = Interpreter.Options().setNumThreads(threads).setUseXNNPACK(onCpu)
                    delegate?.let(options::addDelegate)
                    val version = TensorFlowLite.runtimeVersion()
                    val runtime = RuntimeInfo("litert", version, accelerator, delegatePartitions = null)
                    LiteRtEngine(Interpreter(modelPackage.artifact, options), delegate, manifest, runtime)
                } catch (error: Throwable) {
                    delegate?.close()
                    throw error
                }
            }
    }
}

/**
 * What a TFLite signature, whose outputs are [names], calls those of [manifest], in its order.
 *
 * litert-torch names them `output_<k>`, and a signature sorts output_10 before output_2; others have the manifest's
 * names, or else its order.
 */
internal fun outputNames(
    names: List<String>,
    manifest: List<String>,
): List<String> =
    when {
        names.containsAll(manifest) -> manifest
        names.all(OUTPUT::matches) -> names.sortedBy { it.removePrefix("output_").toInt() }
        else -> names
    }.take(manifest.size)

private val OUTPUT = Regex("""output_\d+""")

/** How the signature of an artifact, its input and the outputs that are read are named. */
private data class Signature(
    val key: String,
    val input: String,
    val outputs: List<String>,
)

/** Null for an artifact without one: its outputs are then in the order of the graph's. */
private fun signature(
    interpreter: Interpreter,
    outputs: List<String>,
): Signature? {
    val key = interpreter.signatureKeys.firstOrNull() ?: return null
    val input = interpreter.getSignatureInputs(key).single()
    return Signature(key, input, outputNames(interpreter.getSignatureOutputs(key).toList(), outputs))
}

private fun delegate(
    accelerator: Accelerator,
    halfPrecision: Boolean,
): Delegate? =
    when (accelerator) {
        Accelerator.CPU -> null
        Accelerator.GPU -> GpuDelegate(GpuDelegateFactory.Options().setPrecisionLossAllowed(halfPrecision))
        Accelerator.NNAPI -> NnApiDelegate(NnApiDelegate.Options().setUseNnapiCpu(false).setAllowFp16(halfPrecision))
    }
