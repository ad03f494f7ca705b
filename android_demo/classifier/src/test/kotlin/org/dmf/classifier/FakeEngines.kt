package org.dmf.classifier

val FAKE_RUNTIME = RuntimeInfo("onnxruntime", "1.2.3", Accelerator.CPU, delegatePartitions = null)

private fun weights(
    name: String,
    rank: Int = 2,
) = floats(Fixtures.tensors("weights").tensor(name, "F32", rank))

/** A dense layer, summed in float32. */
private fun layer(
    input: FloatArray,
    weights: FloatArray,
): FloatArray {
    val columns = weights.size / input.size
    val sums = FloatArray(columns)
    for (row in input.indices) {
        for (column in 0 until columns) sums[column] += input[row] * weights[row * columns + column]
    }
    return sums
}

/** The tiny model in plain Kotlin: one dense layer with the weights [name] of the fixtures. */
class DenseEngine(
    name: String = "w",
    override val runtime: RuntimeInfo = FAKE_RUNTIME,
) : Engine {
    private val weights = weights(name)

    var isClosed = false
        private set

    override fun run(input: FloatArray): List<FloatArray> = listOf(layer(input, weights))

    override fun close() {
        isClosed = true
    }
}

/** The tiny detector: a layer for the scores and one for the boxes, which has a bias. */
class DetectorEngine : Engine {
    private val scores = weights("scores")
    private val boxes = weights("boxes")
    private val corners = weights("corners", rank = 1)

    override val runtime = FAKE_RUNTIME

    override fun run(input: FloatArray): List<FloatArray> {
        val moved = layer(input, boxes)
        return listOf(layer(input, scores), FloatArray(moved.size) { moved[it] + corners[it] })
    }

    override fun close() = Unit
}

/** [engine] with its answers changed; [change] gets the number of the run, from 0, and the input. */
class ChangedEngine(
    private val engine: Engine,
    private val change: (run: Int, input: FloatArray, outputs: List<FloatArray>) -> List<FloatArray>,
) : Engine {
    private var runs = 0

    override val runtime: RuntimeInfo get() = engine.runtime

    override fun run(input: FloatArray): List<FloatArray> = change(runs++, input, engine.run(input))

    override fun close() = engine.close()
}

/** A classifier with its logits changed. */
fun changedLogits(
    engine: Engine = DenseEngine(),
    change: (run: Int, input: FloatArray, logits: FloatArray) -> FloatArray,
): Engine = ChangedEngine(engine) { run, input, outputs -> listOf(change(run, input, outputs[0])) }

/** A network that routes every image like the first one it sees. */
fun frozenEngine(): Engine {
    val frozen = DenseEngine("frozen")
    return changedLogits { run, input, logits -> if (run == 0) logits else frozen.run(input)[0] }
}
