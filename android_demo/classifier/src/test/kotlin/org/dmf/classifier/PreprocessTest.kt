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
        assertEquals(6 * 7, compared)
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
        val spec = Images.specs.getValue("nchw bicubic").copy(fit = Fit.Crop(20))
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

    @Test
    fun whatIsPaddedHasTheMeanColour() {
        val spec = Images.specs.getValue("padded").copy(mean = listOf(0.5, 0.25, 0.1))
        val padded = Preprocess.fit(Images.picture("tall"), spec) // 11 x 83 px, 3 x 24 of 40 x 24
        for (y in 0 until 24) {
            for (x in 3 until 40) {
                val first = (y * 40 + x) * 3
                // rounded from 127.5, 63.75 and 25.5
                assertEquals(listOf(128, 64, 26), List(3) { padded.rgb[first + it].toInt() and 0xff })
            }
        }
    }

    @Test
    fun aPictureThatIsPaddedFillsOneSide() {
        val spec = Images.specs.getValue("padded").copy(cropHeight = 800, cropWidth = 1333)
        for ((picture, resized) in listOf(
            (640 to 480) to (1066 to 800),
            (480 to 640) to (600 to 800),
            (1920 to 1080) to (1333 to 749),
            (1333 to 800) to (1333 to 800),
            (4000 to 1) to (1333 to 1),
            (1 to 4000) to (1 to 800),
            (100_000 to 60_000) to (1333 to 799),
        )) {
            val (width, height) = picture
            val expected = Placement(resized.first, resized.second, 0, 0)
            assertEquals(expected, Preprocess.placement(width, height, spec))
        }
        assertEquals(800, spec.shorterSide)
        assertEquals(256, spec.copy(fit = Fit.Crop(256)).shorterSide)
    }

    @Test
    fun boxesOfAPaddedInputLieInThePicture() {
        val spec = Images.specs.getValue("padded").copy(cropHeight = 800, cropWidth = 1333)
        val place = Preprocess.placement(640, 480, spec) // 1066 x 800
        val (left, top, right, bottom) = place.toPicture(Box(106.6, 200.0, 533.0, 600.0))
        val inPicture = doubleArrayOf(640 * left, 480 * top, 640 * right, 480 * bottom)
        assertArrayEquals(doubleArrayOf(64.0, 120.0, 320.0, 360.0), inPicture, 1e-9)
        assertEquals(Box(0.0, 0.0, 1.0, 1.0), place.toPicture(Box(-3.0, -0.5, 1100.0, 801.0)))
        assertEquals(Box(1.0, 0.25, 1.0, 0.5), place.toPicture(Box(1200.0, 200.0, 1300.0, 400.0))) // beside the picture
    }

    @Test
    fun boxesOfACroppedInputLieInItsMiddle() {
        val spec = Images.specs.getValue("in graph") // 20 px, of which 15 x 19 are kept from (0, 2) on
        val place = Preprocess.placement(40, 40, spec)
        assertEquals(Placement(20, 20, 0, 2), place)
        assertEquals(Box(0.25, 0.1, 0.5, 0.6), place.toPicture(Box(5.0, 0.0, 10.0, 10.0)))
        val wide = Preprocess.placement(80, 40, spec)
        assertEquals(Placement(40, 20, 10, 2), wide)
        assertEquals(Box(0.375, 0.1, 0.5, 0.6), wide.toPicture(Box(5.0, 0.0, 10.0, 10.0)))
    }

    private fun bits(values: FloatArray) = IntArray(values.size) { values[it].toRawBits() }
}
