package org.dmf.classifier

import ai.onnxruntime.OrtEnvironment
import android.os.Build
import org.tensorflow.lite.TensorFlowLite

/** The runtimes of this app: LiteRT opens TFLite artifacts, ONNX Runtime those in ONNX. */
object Engines : EngineFactory {
    override fun open(
        modelPackage: ModelPackage,
        accelerator: Accelerator,
        threads: Int,
    ): Engine {
        val format = modelPackage.manifest.format
        val offered = accelerators(format)
        if (accelerator !in offered) {
            throw EngineError("${format.id} runs on ${offered.joinToString { it.id }}, not on ${accelerator.id}")
        }
        if (accelerator == Accelerator.NNAPI && Build.VERSION.SDK_INT < Build.VERSION_CODES.Q) {
            throw EngineError("NNAPI cannot be kept from using the CPU before Android 10; use ${Accelerator.CPU.id}")
        }
        return when (format) {
            Format.TFLITE -> LiteRtEngine.open(modelPackage, accelerator, threads)
            Format.ONNX -> OnnxRuntimeEngine.open(modelPackage, accelerator, threads)
        }
    }

    override fun loadLibrary(format: Format) {
        orEngineError("load the runtime of ${format.id}") {
            when (format) {
                Format.TFLITE -> TensorFlowLite.init()
                Format.ONNX -> OrtEnvironment.getEnvironment()
            }
        }
    }
}
