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

class GoldenTest {
    @get:Rule val temporary = TemporaryFolder()

    private val manifest = Manifest.parse(Fixtures.manifest().toString())
    private val file = File(Fixtures.packageFolder, "golden.safetensors")
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

    @Test
    fun itHoldsWhatPythonWrote() {
        val golden = Golden.read(file, manifest) as GoldenLogits
        assertEquals(listOf("noise 0", "photograph: café", "noise 2"), golden.names)
        assertArrayEquals(doubleArrayOf(1e-3, 2e-3, 4e-3), golden.budgets, 0.0)
        assertEquals(listOf(8 to 8, 8 to 8, 8 to 8), golden.images.map { it.width to it.height })
        assertEquals(
            3,
            golden.images
                .map { it.rgb.toList() }
                .distinct()
                .size,
        )
        val frozenLogits = checkNotNull(golden.frozenLogits)
        assertArrayEquals(golden.logits[0], frozenLogits[0], 0.0)
        for (i in 1..2) assertTrue(golden.logits[i].indices.all { golden.logits[i][it] != frozenLogits[i][it] })
    }

    @Test
    fun frozenLogitsMayBeMissing() {
        assertEquals(null, (read(header.replace("frozen_logits", "other_logits!")) as GoldenLogits).frozenLogits)
    }

    @Test
    fun whatIsMissingOrOfAnotherTypeIsRefused() {
        assertRefused("it has no tensor images", "\"images\"", "\"imagez\"")
        assertRefused("it has no tensor logits", "\"logits\"", "\"logitz\"")
        assertRefused("it has no tensor budgets", "\"budgets\"", "\"budgetz\"")
        assertRefused("its metadata has no names", "\"names\"", "\"nanes\"")
        assertRefused("images are [3, 64, 1, 3], must be [3, 8, 8, 3]", "[3,8,8,3]", "[3,64,1,3]")
        assertRefused("images is U8 [9, 64], must be U8 of 4 dimensions", "[3,8,8,3]", "[9,64]")
        assertRefused(
            "budgets is F32 [6], must be F64 of 1 dimensions",
            "\"F64\",\"shape\":[3]",
            "\"F32\",\"shape\":[6]",
        )
        assertRefused("frozen_logits are [5, 3], must be [3, 5]", "[3,5]", "[5,3]")
    }

    @Test
    fun namesAreTexts() {
        val two = """["noise 0", "noise 2"]""".replace("\"", "\\\"")
        val damaged = header.replace(Regex("""(?<="names":").*?\](?=")"""), Regex.escapeReplacement(two))
        assertPackageError("golden.safetensors: it has 2 names of 3 images; export the package again") { read(damaged) }
    }

    @Test
    fun imagesAreOfTheManifestsCrop() {
        val other = manifest.copy(input = manifest.input.copy(cropHeight = 9))
        assertPackageError(
            "golden.safetensors: images are [3, 8, 8, 3], must be [3, 9, 8, 3]; export the package again",
        ) { Golden.read(file, other) }
    }

    @Test
    fun numbersAreFinite() {
        val golden = Golden.read(file, manifest) as GoldenLogits
        assertPackageError("golden.safetensors: logits are not all finite; export the package again") {
            read(header, replaced(golden.logits[1][2], Double.NaN))
        }
        for (budget in listOf(Double.NaN, Double.POSITIVE_INFINITY, -1e-3)) {
            assertPackageError("golden.safetensors: budgets must be >= 0; export the package again") {
                read(header, replaced(2e-3, budget))
            }
        }
    }

    /** The data with one number exchanged, wherever it is. */
    private fun replaced(
        old: Double,
        new: Double,
    ): ByteArray {
        val copy = data.copyOf()
        val buffer = ByteBuffer.wrap(copy).order(ByteOrder.LITTLE_ENDIAN)
        val position = (0..data.size - Double.SIZE_BYTES).single { buffer.getDouble(it) == old }
        buffer.putDouble(position, new)
        return copy
    }

    private fun assertRefused(
        problem: String,
        old: String,
        new: String,
    ) {
        assertTrue(header, old in header)
        assertPackageError("golden.safetensors: $problem; export the package again") {
            read(header.replaceFirst(old, new))
        }
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
