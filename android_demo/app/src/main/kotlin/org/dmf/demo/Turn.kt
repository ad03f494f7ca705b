package org.dmf.demo

/**
 * How a stored picture becomes upright: [mirrored] left to right, then turned clockwise by [quarters] quarters.
 *
 * The pixel at (x, y) of a picture of width x height belongs to pixel `first + x * stepX + y * stepY` of the upright one,
 * counted row by row.
 */
class Turn(
    val quarters: Int,
    val mirrored: Boolean = false,
) {
    init {
        require(quarters in 0..3) { "$quarters quarters, must be 0..3" }
    }

    private val swapsSides get() = quarters % 2 == 1

    fun width(
        width: Int,
        height: Int,
    ): Int = if (swapsSides) height else width

    fun height(
        width: Int,
        height: Int,
    ): Int = if (swapsSides) width else height

    fun path(
        width: Int,
        height: Int,
    ): Path {
        val turned =
            when (quarters) {
                0 -> Path(0, 1, width)
                1 -> Path(height - 1, height, -1)
                2 -> Path(width * height - 1, -1, -width)
                else -> Path((width - 1) * height, -height, 1)
            }
        return if (mirrored) Path(turned.first + (width - 1) * turned.stepX, -turned.stepX, turned.stepY) else turned
    }

    class Path(
        val first: Int,
        val stepX: Int,
        val stepY: Int,
    )
}
