package org.dmf.classifier

import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test
import kotlin.math.abs

class ResampleTest {
    @Test
    fun theSameSizeIsTheSamePicture() {
        val picture = Images.picture("noise")
        for (interpolation in Interpolation.entries) {
            val resized = resample(picture, picture.width, picture.height, interpolation)
            assertArrayEquals(picture.rgb, resized.rgb)
        }
    }

    @Test
    fun oneColourStaysIt() {
        val picture = grey(7, 5) { _, _ -> 201 }
        for (interpolation in Interpolation.entries) {
            for ((width, height) in listOf(3 to 2, 50 to 31, 7 to 40)) {
                assertTrue(values(resample(picture, width, height, interpolation)).all { it == 201 })
            }
        }
    }

    @Test
    fun aRampOfAFourthOfTheSizeIsFourTimesAsSteep() {
        val ramp = grey(40, 3) { x, _ -> 5 * x }
        for (interpolation in Interpolation.entries) {
            val row = values(resample(ramp, 10, 3, interpolation)).take(10)
            for (x in 1..8) assertTrue("$interpolation, $x: $row", abs(row[x] - 5 * ((x + 0.5) * 4 - 0.5)) <= 1)
        }
    }

    /** Of each pair of new pixels, one lies a fourth of the way from its neighbour. */
    @Test
    fun bilinearEnlargementByHand() {
        val columns = grey(2, 1) { x, _ -> if (x == 0) 0 else 100 }
        assertEquals(listOf(0, 25, 75, 100), values(resample(columns, 4, 1, Interpolation.BILINEAR)))
        val rows = grey(1, 2) { _, y -> if (y == 0) 0 else 100 }
        assertEquals(listOf(0, 25, 75, 100), values(resample(rows, 1, 4, Interpolation.BILINEAR)))
    }

    /** The kernel with a = -0.5 overshoots an edge, which clips at 0 and 255 and not elsewhere. */
    @Test
    fun bicubicOvershootsAndIsClipped() {
        val dark = values(resample(grey(8, 1) { x, _ -> if (x < 4) 100 else 150 }, 16, 1, Interpolation.BICUBIC))
        assertTrue("$dark", dark.min() < 100 && dark.max() > 150)
        val edge = values(resample(grey(8, 1) { x, _ -> if (x < 4) 0 else 255 }, 16, 1, Interpolation.BICUBIC))
        assertEquals(listOf(0, 0), edge.slice(5..6))
        assertEquals(listOf(255, 255), edge.slice(9..10))
    }

    @Test
    fun pixelsAreAsManyAsTheSizeSays() {
        assertThrows(IllegalArgumentException::class.java) { Pixels(2, 3, ByteArray(17)) }
    }

    private fun grey(
        width: Int,
        height: Int,
        value: (Int, Int) -> Int,
    ) = Pixels(width, height, ByteArray(width * height * 3) { value(it / 3 % width, it / 3 / width).toByte() })

    /** Of the first channel. */
    private fun values(image: Pixels) = List(image.width * image.height) { image.rgb[it * 3].toInt() and 0xff }
}
