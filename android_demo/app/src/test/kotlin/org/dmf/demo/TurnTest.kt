package org.dmf.demo

import org.junit.Assert.assertEquals
import org.junit.Assert.assertNotEquals
import org.junit.Test

class TurnTest {
    /** As the EXIF standard draws them, for a stored picture of abc over def. */
    private val upright =
        mapOf(
            1 to "abc/def",
            2 to "cba/fed",
            3 to "fed/cba",
            4 to "def/abc",
            5 to "ad/be/cf",
            6 to "da/eb/fc",
            7 to "fc/eb/da",
            8 to "cf/be/ad",
        )

    @Test
    fun `each EXIF orientation becomes upright`() {
        for ((orientation, expected) in upright) assertEquals(expected, turned("abc/def", exifTurn(orientation)))
    }

    @Test
    fun `no two orientations are the same`() {
        for (one in upright.keys) {
            for (other in upright.keys - one) assertNotEquals(upright[other], turned("abc/def", exifTurn(one)))
        }
    }

    @Test
    fun `a picture that says nothing is upright`() {
        assertEquals("abc/def", turned("abc/def", exifTurn(null)))
        assertEquals("abc/def", turned("abc/def", exifTurn(0)))
    }

    private fun turned(
        picture: String,
        turn: Turn,
    ): String {
        val rows = picture.split("/")
        val (width, height) = rows[0].length to rows.size
        val path = turn.path(width, height)
        val out = CharArray(width * height)
        for (y in 0 until height) {
            for (x in 0 until width) out[path.first + x * path.stepX + y * path.stepY] = rows[y][x]
        }
        return String(out).chunked(turn.width(width, height)).joinToString("/")
    }
}
