package org.dmf.demo

import org.junit.Assert.assertEquals
import org.junit.Test

class SampleSizeTest {
    @Test
    fun `a picture of 16 megapixels is decoded whole`() = assertEquals(1, sampleSize(4000, 4000, 256))

    @Test
    fun `a larger one is halved until it is as small`() {
        assertEquals(2, sampleSize(4001, 4000, 256))
        assertEquals(2, sampleSize(8000, 6000, 256))
        assertEquals(4, sampleSize(16000, 12000, 256))
    }

    @Test
    fun `its shorter side keeps four times what the model resizes it to`() {
        assertEquals(2, sampleSize(2048, 20000, 256))
        assertEquals(1, sampleSize(2046, 20000, 256))
    }
}
