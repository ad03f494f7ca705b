package org.dmf.classifier

import org.json.JSONArray
import org.json.JSONObject
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

/** The files of tests/fixtures, which Python makes. */
object Fixtures {
    private val folder = File(System.getProperty("dmf.fixtures") ?: "../../tests/fixtures")

    val packageFolder = File(folder, "package")
    val detectorFolder = File(folder, "package-detector")

    fun openPackage(): ModelPackage = ModelPackage.open(packageFolder)

    fun openDetector(): ModelPackage = ModelPackage.open(detectorFolder)

    /** A copy in [folder] whose files or manifest a test may [change]; the manifest is written again after it. */
    fun copyPackage(
        folder: File,
        change: (File, JSONObject) -> Unit = { _, _ -> },
    ): File {
        packageFolder.copyRecursively(folder, overwrite = true)
        val manifest = manifest().also { change(folder, it) }
        return folder.apply { resolve("manifest.json").writeText(manifest.toString()) }
    }

    /** Neither golden vectors nor labels, only the artifact. */
    fun copyArtifactAlone(folder: File): File =
        copyPackage(folder) { copy, manifest ->
            copy.resolve("labels.txt").delete()
            copy.resolve("golden.safetensors").delete()
            manifest.put("labels", JSONObject.NULL)
            manifest.put("files", JSONArray().put(manifest.getJSONArray("files").get(2)))
        }

    fun manifest(): JSONObject = JSONObject(File(packageFolder, "manifest.json").readText())

    fun detectorManifest(): JSONObject = JSONObject(File(detectorFolder, "manifest.json").readText())

    fun statistics(): JSONObject = JSONObject(File(folder, "statistics.json").readText())

    fun detections(): JSONObject = JSONObject(File(folder, "detections.json").readText())

    fun tensors(name: String): SafeTensors = SafeTensors.read(File(folder, "$name.safetensors"))
}

/** Pictures, and for each input the float32 that Python makes of each. */
object Images {
    private val tensors = Fixtures.tensors("images")

    val names = listOf("photograph", "wide", "tall", "enlarged", "exact", "noise", "black and white")

    val specs: Map<String, InputSpec> =
        JSONObject(tensors.metadata.getValue("specs")).let { specs ->
            specs.keys().asSequence().associateWith { inputSpec(specs.getJSONObject(it)) }
        }

    fun picture(name: String): Pixels {
        val tensor = tensors.tensor("image/$name", "U8", rank = 3)
        val (height, width) = tensor.shape
        return Pixels(width, height, ByteArray(height * width * Pixels.CHANNELS).also { tensor.data.get(it) })
    }

    fun input(
        spec: String,
        name: String,
    ): FloatArray = floats(tensors.tensor("input/$spec/$name", "F32", rank = 4))

    /** Read as the input of a manifest is. */
    private fun inputSpec(json: JSONObject): InputSpec {
        val manifest = Fixtures.manifest().put("inputs", JSONArray().put(json))
        return Manifest.parse(manifest.toString()).input
    }
}

fun floats(tensor: SafeTensors.Tensor): FloatArray {
    val data = tensor.data.asFloatBuffer()
    return FloatArray(data.remaining()).also { data.get(it) }
}

/** A safetensors file of [header] and [data]; [headerBytes] is what it says of the header's length. */
fun safeTensors(
    header: String,
    data: ByteArray,
    headerBytes: Long = header.toByteArray().size.toLong(),
): ByteArray {
    val length = ByteBuffer.allocate(Long.SIZE_BYTES).order(ByteOrder.LITTLE_ENDIAN).putLong(headerBytes)
    return length.array() + header.toByteArray() + data
}

/** [block] throws a PackageError with exactly this [message]. */
fun assertPackageError(
    message: String,
    block: () -> Unit,
) = assertEquals(message, assertThrows(PackageError::class.java) { block() }.message)

/** [block] throws an EngineError with exactly this [message]. */
fun assertEngineError(
    message: String,
    block: () -> Unit,
) = assertEquals(message, assertThrows(EngineError::class.java) { block() }.message)
