package org.dmf.classifier

import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

class GoldenObjectsTest {
    @get:Rule val temporary = TemporaryFolder()

    private val manifest = Manifest.parse(Fixtures.detectorManifest().toString())
    private val file = File(Fixtures.detectorFolder, "golden.safetensors")
    private val content = file.readBytes()
    private val dataStart =
        Long.SIZE_BYTES +
            ByteBuffer
                .wrap(content)
                .order(ByteOrder.LITTLE_ENDIAN)
                .long
                .toInt()
    private val header = content.decodeToString(Long.SIZE_BYTES, dataStart)
    private val data = content.copyOfRange(dataStart, content.size)
    private val golden = Golden.read(file, manifest) as GoldenObjects

    @Test
    fun itHoldsWhatPythonWrote() {
        assertEquals(listOf("noise 0", "photograph: café", "noise 2"), golden.names)
        assertArrayEquals(doubleArrayOf(1e-3, 2e-3, 4e-3), golden.scoreBudgets, 0.0)
        assertEquals(0.9, golden.iou, 0.0)
        assertEquals(listOf(8 to 8, 8 to 8, 8 to 8), golden.images.map { it.width to it.height })
        assertEquals(listOf(4, 3, 4), golden.expected.map { image -> image.count { it.decided } })
        assertEquals(listOf(0, 2, 0), golden.expected.map { image -> image.count { !it.decided } })
        val other = golden.expected[1].last()
        assertEquals(DetectedObject(2, 0.25, Box(0.0, 6.0, 1.0, 7.0)), other.expected)
        assertTrue(golden.expected.flatten().all { it.expected.classIndex in 0 until 5 })
    }

    @Test
    fun whatIsMissingOrOfAnotherTypeIsRefused() {
        for (name in listOf("object_boxes", "object_scores", "object_labels", "object_decided", "score_budgets")) {
            assertRefused("it has no tensor $name", "\"$name\"", "\"${name.dropLast(1)}z\"")
        }
        val most = golden.expected.maxOf { it.size }
        assertRefused("object_boxes are [3, 4, $most], must be [3, $most, 4]", "[3,$most,4]", "[3,4,$most]")
        assertRefused("its metadata's iou is null, must be a number from 0 to 1", "\"iou\"", "\"oui\"")
        for (iou in listOf("1.9", "NaN", "\\\"a\\\"")) {
            val shown = iou.replace("\\", "")
            val problem = "its metadata's iou is $shown, must be a number from 0 to 1"
            assertRefused(problem, "\"iou\":\"0.9\"", "\"iou\":\"$iou\"")
        }
    }

    @Test
    fun aClassifiersVectorsAreRefused() {
        assertPackageError("golden.safetensors: it has no tensor score_budgets; $EXPORT_AGAIN") {
            Golden.read(File(Fixtures.packageFolder, "golden.safetensors"), manifest)
        }
        assertPackageError("golden.safetensors: it has no tensor logits; $EXPORT_AGAIN") {
            Golden.read(file, Manifest.parse(Fixtures.manifest().toString()))
        }
    }

    @Test
    fun numbersAreFinite() {
        val score = golden.expected[0][0].expected.score
        assertPackageError("golden.safetensors: object_scores are not all finite; $EXPORT_AGAIN") {
            read(header, replaced(score, Double.NaN))
        }
        assertPackageError("golden.safetensors: score_budgets must be >= 0; $EXPORT_AGAIN") {
            read(header, replaced(4e-3, -1.0))
        }
    }

    /** The data with one number exchanged, wherever it is. */
    private fun replaced(
        old: Double,
        new: Double,
    ): ByteArray {
        val buffer = ByteBuffer.wrap(data.copyOf()).order(ByteOrder.LITTLE_ENDIAN)
        val positions = (0..data.size - Double.SIZE_BYTES).filter { buffer.getDouble(it) == old }
        for (position in positions) buffer.putDouble(position, new)
        return buffer.array()
    }

    private fun assertRefused(
        problem: String,
        old: String,
        new: String,
    ) {
        assertTrue(header, old in header)
        assertPackageError("golden.safetensors: $problem; $EXPORT_AGAIN") { read(header.replaceFirst(old, new)) }
    }

    private fun read(
        header: String,
        data: ByteArray = this.data,
    ): Golden {
        val changed = temporary.newFolder().resolve("golden.safetensors")
        changed.writeBytes(safeTensors(header, data))
        return Golden.read(changed, manifest)
    }
}
