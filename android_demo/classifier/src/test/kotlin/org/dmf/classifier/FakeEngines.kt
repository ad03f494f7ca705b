package org.dmf.classifier

val FAKE_RUNTIME = RuntimeInfo("onnxruntime", "1.2.3", Accelerator.CPU, delegatePartitions = null)

/** The tiny model in plain Kotlin: one dense layer with the weights [name] of the fixtures, summed in float32. */
class DenseEngine(
    name: String = "w",
    override val runtime: RuntimeInfo = FAKE_RUNTIME,
) : Engine {
    private val weights = floats(Fixtures.tensors("weights").tensor(name, "F32", rank = 2))

    var isClosed = false
        private set

    override fun run(input: FloatArray): FloatArray {
        val classes = weights.size / input.size
        val logits = FloatArray(classes)
        for (row in input.indices) {
            for (column in 0 until classes) logits[column] += input[row] * weights[row * classes + column]
        }
        return logits
    }

    override fun close() {
        isClosed = true
    }
}

/** [engine] with its answers changed; [change] gets the number of the run, from 0, and the input. */
class ChangedEngine(
    private val engine: Engine = DenseEngine(),
    private val change: (run: Int, input: FloatArray, logits: FloatArray) -> FloatArray,
) : Engine {
    private var runs = 0

    override val runtime: RuntimeInfo get() = engine.runtime

    override fun run(input: FloatArray): FloatArray = change(runs++, input, engine.run(input))

    override fun close() = engine.close()
}

/** A network that routes every image like the first one it sees. */
fun frozenEngine(): Engine {
    val frozen = DenseEngine("frozen")
    return ChangedEngine { run, input, logits -> if (run == 0) logits else frozen.run(input) }
}
