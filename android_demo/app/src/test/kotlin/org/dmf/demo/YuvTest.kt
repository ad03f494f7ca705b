package org.dmf.demo

import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Test

class YuvTest {
    /** Of 4 x 2 px: red on the left, blue on the right, computed by JFIF's formula by hand. */
    private val luma = plane(rowStride = 5, pixelStride = 1, listOf(76, 76, 29, 29), listOf(76, 76, 29, 29))
    private val blueDifference = plane(rowStride = 6, pixelStride = 2, listOf(85, 255))
    private val redDifference = plane(rowStride = 6, pixelStride = 2, listOf(255, 107))
    private val red = listOf(254, 0, 0)
    private val blue = listOf(0, 0, 254)

    @Test
    fun `colours are JFIF's`() {
        val picture = uprightRgb(4, 2, luma, blueDifference, redDifference, Turn(0))
        val row = red + red + blue + blue
        assertArrayEquals((row + row).bytes(), picture.rgb)
    }

    @Test
    fun `a frame is turned`() {
        val picture = uprightRgb(4, 2, luma, blueDifference, redDifference, Turn(1))
        assertEquals(2 to 4, picture.width to picture.height)
        assertArrayEquals((red + red + red + red + blue + blue + blue + blue).bytes(), picture.rgb)
    }

    @Test
    fun `colour differences that are swapped give other colours`() {
        val picture = uprightRgb(4, 2, luma, redDifference, blueDifference, Turn(0))
        assertFalse(picture.rgb.take(3) == red.bytes().toList())
    }

    private fun plane(
        rowStride: Int,
        pixelStride: Int,
        vararg rows: List<Int>,
    ): Plane {
        val bytes = ByteArray((rows.size - 1) * rowStride + (rows.last().size - 1) * pixelStride + 1)
        rows.forEachIndexed { y, row ->
            row.forEachIndexed { x, value -> bytes[y * rowStride + x * pixelStride] = value.toByte() }
        }
        return Plane(bytes, rowStride, pixelStride)
    }

    private fun List<Int>.bytes() = ByteArray(size) { this[it].toByte() }
}
