package org.dmf.classifier

import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertThrows
import org.junit.Test

class PreprocessTest {
    @Test
    fun everyInputIsPythonsBitForBit() {
        var compared = 0
        for ((specName, spec) in Images.specs) {
            for (name in Images.names) {
                val input = Preprocess.toInput(Images.picture(name), spec)
                assertArrayEquals("$specName of $name", bits(Images.input(specName, name)), bits(input))
                compared++
            }
        }
        assertEquals(4 * 7, compared)
    }

    @Test
    fun anotherInterpolationIsNoticed() {
        for ((specName, spec) in Images.specs) {
            val other = Interpolation.entries.single { it != spec.interpolation }
            val input = Preprocess.toInput(Images.picture("photograph"), spec.copy(interpolation = other))
            assertFalse(specName, bits(Images.input(specName, "photograph")).contentEquals(bits(input)))
        }
    }

    @Test
    fun anotherLayoutIsNoticed() {
        val spec = Images.specs.getValue("nchw bicubic")
        val input = Preprocess.toInput(Images.picture("noise"), spec.copy(layout = Layout.NHWC))
        assertFalse(bits(Images.input("nchw bicubic", "noise")).contentEquals(bits(input)))
    }

    @Test
    fun aCropThatRoundsHalvesUpIsNoticed() {
        val spec = Images.specs.getValue("in graph") // 20 px, of which 15 and 19 are kept: 2.5 and 0.5 px before them
        val picture = Images.picture("exact")
        val resized = resample(picture, 20, 20, spec.interpolation)
        val kept = Preprocess.toInput(picture, spec)
        assertEquals((resized.rgb[2 * 20 * 3].toInt() and 0xff).toFloat(), kept[0])
        assertFalse((resized.rgb[(3 * 20 + 1) * 3].toInt() and 0xff).toFloat() == kept[0])
    }

    @Test
    fun aPictureSmallerThanTheCropIsRefused() {
        val spec = Images.specs.getValue("nchw bicubic").copy(resize = 20)
        assertPackageError(
            "the picture is 20 x 20 px once resized to 20, smaller than the crop of 24 x 24; " +
                "give a wider or a taller one",
        ) { Preprocess.toInput(Images.picture("exact"), spec) }
    }

    @Test
    fun onlyCroppedPicturesAreNormalised() {
        val spec = Images.specs.getValue("nchw bicubic")
        assertThrows(IllegalArgumentException::class.java) { Preprocess.normalise(Images.picture("noise"), spec) }
    }

    private fun bits(values: FloatArray) = IntArray(values.size) { values[it].toRawBits() }
}
