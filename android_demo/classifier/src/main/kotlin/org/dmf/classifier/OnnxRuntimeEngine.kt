package org.dmf.classifier

import ai.onnxruntime.OnnxJavaType
import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtSession
import ai.onnxruntime.providers.NNAPIFlags
import java.nio.FloatBuffer
import java.util.EnumSet

/**
 * ONNX Runtime on the CPU, one operator at a time, or on NNAPI.
 *
 * On NNAPI, an operator that would run on the CPU is an EngineError. Half precision is allowed to fp16 artifacts alone.
 */
class OnnxRuntimeEngine private constructor(
    private val environment: OrtEnvironment,
    private val session: OrtSession,
    private val shape: LongArray,
    outputs: Int,
    override val runtime: RuntimeInfo,
) : Engine {
    private val inputName = session.inputNames.single()
    private val outputNames = session.outputNames.take(outputs).toSet()

    override fun run(input: FloatArray): List<FloatArray> =
        orEngineError("run it on ${runtime.accelerator.id}") {
            OnnxTensor.createTensor(environment, FloatBuffer.wrap(input), shape).use { tensor ->
                session.run(mapOf(inputName to tensor), outputNames).use { result ->
                    result.map { floats(it.value as OnnxTensor) }
                }
            }
        }

    override fun close() = session.close()

    companion object {
        /** EngineError: the artifact cannot be opened, or not all of it run on the accelerator. */
        fun open(
            modelPackage: ModelPackage,
            accelerator: Accelerator,
            threads: Int,
        ): OnnxRuntimeEngine =
            orEngineError("open ${modelPackage.artifact} on ${accelerator.id}") {
                val environment = OrtEnvironment.getEnvironment()
                val manifest = modelPackage.manifest
                val shape = listOf(1) + manifest.input.shape.drop(1)
                OrtSession.SessionOptions().use { options ->
                    options.setIntraOpNumThreads(threads)
                    options.setInterOpNumThreads(1)
                    if (accelerator == Accelerator.NNAPI) useNnapi(options, manifest.precision == "fp16")
                    OnnxRuntimeEngine(
                        environment,
                        environment.createSession(modelPackage.artifact.path, options),
                        LongArray(shape.size) { shape[it].toLong() },
                        manifest.outputs.size,
                        RuntimeInfo("onnxruntime", environment.version, accelerator, delegatePartitions = null),
                    )
                }
            }
    }
}

/** The values of a tensor of floats, or of labels, which as floats are exact. */
private fun floats(tensor: OnnxTensor): FloatArray {
    if (0L in tensor.info.shape) return FloatArray(0) // nothing was found: there is no memory to be read
    if (tensor.info.type == OnnxJavaType.INT64) {
        val values = tensor.longBuffer
        return FloatArray(values.remaining()) { values.get().toFloat() }
    }
    val values = tensor.floatBuffer
    return FloatArray(values.remaining()).also { values.get(it) }
}

private fun useNnapi(
    options: OrtSession.SessionOptions,
    halfPrecision: Boolean,
) {
    val flags = EnumSet.of(NNAPIFlags.CPU_DISABLED)
    if (halfPrecision) flags.add(NNAPIFlags.USE_FP16)
    options.addNnapi(flags)
    options.addConfigEntry("session.disable_cpu_ep_fallback", "1")
}
