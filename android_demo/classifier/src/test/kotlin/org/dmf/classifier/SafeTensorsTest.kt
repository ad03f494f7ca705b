package org.dmf.classifier

import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.nio.ByteBuffer
import java.nio.ByteOrder

class SafeTensorsTest {
    @get:Rule val temporary = TemporaryFolder()

    private val header =
        """{"__metadata__": {"names": "[]"},
            "b": {"dtype": "F64", "shape": [1], "data_offsets": [3, 11]},
            "a": {"dtype": "U8", "shape": [3, 1], "data_offsets": [0, 3]}}"""
    private val data =
        byteArrayOf(1, 2, -1) +
            ByteBuffer
                .allocate(Double.SIZE_BYTES)
                .order(ByteOrder.LITTLE_ENDIAN)
                .putDouble(-1.5)
                .array()

    @Test
    fun tensorsAndMetadataAreRead() {
        val tensors = read(safeTensors(header, data))
        assertEquals(mapOf("names" to "[]"), tensors.metadata)
        val bytes = tensors.tensor("a", "U8", rank = 2)
        assertEquals(listOf(3, 1), bytes.shape)
        assertEquals(listOf<Byte>(1, 2, -1), List(3) { bytes.data.get(it) })
        assertEquals(-1.5, tensors.tensor("b", "F64", rank = 1).data.getDouble(0), 0.0)
        assertTrue("a" in tensors)
        assertFalse("c" in tensors)
    }

    @Test
    fun whatPythonWroteIsRead() {
        val weights = Fixtures.tensors("weights").tensor("w", "F32", rank = 2)
        assertEquals(listOf(192, 5), weights.shape)
        val values = floats(weights)
        assertTrue(values.all { it in -1.28f..1.27f } && values.distinct().size > 100)
        assertEquals(emptyMap<String, String>(), Fixtures.tensors("weights").metadata)
    }

    @Test
    fun onlyWhatIsAskedForIsGiven() {
        val tensors = read(safeTensors(header, data))
        assertDamaged("it has no tensor c") { tensors.tensor("c", "U8", rank = 1) }
        assertDamaged("b is F64 [1], must be F32 of 1 dimensions") { tensors.tensor("b", "F32", rank = 1) }
        assertDamaged("a is U8 [3, 1], must be U8 of 1 dimensions") { tensors.tensor("a", "U8", rank = 1) }
    }

    @Test
    fun truncatedFilesAreRefused() {
        val whole = safeTensors(header, data)
        assertDamaged("its tensors take 11 bytes, 10 are there") { read(whole.copyOf(whole.size - 1)) }
        assertDamaged("its tensors take 11 bytes, 12 are there") { read(whole + 0) }
        assertDamaged("it ends in the length of its header") { read(whole.copyOf(7)) }
        assertDamaged("it ends in the length of its header") { read(ByteArray(0)) }
        for (size in 0 until whole.size) {
            assertThrows("$size", PackageError::class.java) { read(whole.copyOf(size)) }
        }
    }

    @Test
    fun aHeaderLongerThanTheFileIsRefused() {
        val rest = header.toByteArray().size + data.size
        for (length in listOf(rest + 1L, 1L shl 40, Long.MAX_VALUE, -1L)) {
            assertDamaged("its header is $length bytes long, $rest are there") {
                read(safeTensors(header, data, headerBytes = length))
            }
        }
    }

    @Test
    fun offsetsThatOverlapOrLeaveAGapAreRefused() {
        assertDamaged("b begins at byte 2, the tensor before it ends at 3") { readWith("[3, 11]", "[2, 10]") }
        assertDamaged("b begins at byte 4, the tensor before it ends at 3") { readWith("[3, 11]", "[4, 12]") }
        assertDamaged("a begins at byte 1, the tensor before it ends at 0") { readWith("[0, 3]", "[1, 4]") }
    }

    @Test
    fun offsetsThatDoNotFitTheShapeAreRefused() {
        assertDamaged("b F64 [1] takes 8 bytes, not those from 3 to 10") { readWith("[3, 11]", "[3, 10]") }
        assertDamaged("a U8 [3, 1] takes 3 bytes, not those from 3 to 0") { readWith("[0, 3]", "[3, 0]") }
        assertDamaged("a U8 [3, -1] takes -3 bytes, not those from 0 to 3") { readWith("[3, 1]", "[3, -1]") }
        assertDamaged("a U8 [65536, 65536, 65536] takes ${1L shl 32} bytes, not those from 0 to 3") {
            readWith("[3, 1]", "[65536, 65536, 65536]")
        }
    }

    @Test
    fun anotherTypeIsRefused() {
        assertDamaged("b is BF16, this app reads U8, F32, F64, I64") { readWith("F64", "BF16") }
    }

    @Test
    fun aHeaderThatIsNotOneIsRefused() {
        for (text in listOf("", "[]", "{", "{\"a\": 1}", "{\"a\": {}}", "{\"a\": {\"dtype\": \"U8\", \"shape\": 1}}")) {
            val message = assertThrows(text, PackageError::class.java) { read(safeTensors(text, data)) }.message
            assertTrue(
                message,
                message.startsWith("file.safetensors: ") && message.endsWith("; export the package again"),
            )
        }
    }

    private fun read(content: ByteArray): SafeTensors {
        val file = temporary.newFolder().resolve("file.safetensors").apply { writeBytes(content) }
        return SafeTensors.read(file)
    }

    private fun readWith(
        old: String,
        new: String,
    ) = read(safeTensors(header.replace(old, new).also { assertFalse(it == header) }, data))

    private fun assertDamaged(
        problem: String,
        block: () -> Unit,
    ) = assertPackageError("file.safetensors: $problem; export the package again", block)
}
