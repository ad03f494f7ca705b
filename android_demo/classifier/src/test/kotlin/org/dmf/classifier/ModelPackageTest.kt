package org.dmf.classifier

import org.json.JSONObject
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Before
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File
import java.security.MessageDigest

class ModelPackageTest {
    @get:Rule val temporary = TemporaryFolder()

    private lateinit var folder: File

    @Before
    fun copyPackage() {
        folder = Fixtures.copyPackage(temporary.newFolder("package"))
    }

    @Test
    fun aWholePackageOpens() {
        val opened = ModelPackage.open(folder)
        assertEquals(File(folder, "model.onnx"), opened.artifact)
        assertEquals(sha256(opened.artifact.readBytes()), opened.artifactSha256)
        assertEquals(listOf("tench", "goldfish", "café au lait", "a", "b"), opened.labels)
        assertEquals(listOf("noise 0", "photograph: café", "noise 2"), opened.golden?.names)
    }

    @Test
    fun labelsAndGoldenVectorsMayBeMissing() {
        val opened = ModelPackage.open(Fixtures.copyArtifactAlone(temporary.newFolder()))
        assertEquals(null, opened.labels)
        assertEquals(null, opened.golden)
    }

    @Test
    fun anArtifactOfSeveralFilesHasTheHashOfTheirListing() {
        val weights = File(folder, "weights/model.data").apply { parentFile.mkdir() }
        weights.writeText("0123")
        rewriteManifest { it.getJSONArray("files").put(listed("weights/model.data", "artifact", weights.readBytes())) }
        val model = sha256(File(folder, "model.onnx").readBytes())
        val listing = "$model  model.onnx\n${sha256(weights.readBytes())}  weights/model.data\n"
        assertEquals(sha256(listing.toByteArray()), ModelPackage.open(folder).artifactSha256)
    }

    @Test
    fun alteredMissingAndAddedFilesAreNamed() {
        val model = File(folder, "model.onnx")
        model.writeBytes(model.readBytes().also { it[100] = (it[100] + 1).toByte() })
        assertChanged("model.onnx was altered")
        model.appendText("more")
        assertChanged("model.onnx was altered")
        model.delete()
        assertChanged("model.onnx is missing")
        File(folder, "sub").mkdir()
        File(folder, "sub/more.txt").writeText("")
        assertChanged("model.onnx is missing; sub/more.txt was added")
    }

    @Test
    fun whatFinderLeavesIsNoChange() {
        File(folder, ".DS_Store").writeText("")
        ModelPackage.open(folder)
    }

    @Test
    fun aFolderWithoutAManifestIsNoPackage() {
        File(folder, "manifest.json").delete()
        assertPackageError("$folder: no manifest.json in it; give a package that dmf-export wrote") {
            ModelPackage.open(folder)
        }
        val nowhere = File(folder, "nowhere")
        assertPackageError("$nowhere: no manifest.json in it; give a package that dmf-export wrote") {
            ModelPackage.open(nowhere)
        }
    }

    @Test
    fun labelsAreAsManyAsClasses() {
        val labels = File(folder, "labels.txt").apply { writeText("a\nb\n") }
        rewriteManifest { it.getJSONArray("files").put(1, listed("labels.txt", "labels", labels.readBytes())) }
        assertPackageError("labels.txt: has 2 lines, the model 5 classes; export the package again") {
            ModelPackage.open(folder)
        }
    }

    @Test
    fun aDamagedGoldenFileIsNoPackageEvenIfItsHashIsRight() {
        val golden = File(folder, "golden.safetensors").apply { writeText("no tensors") }
        rewriteManifest { it.getJSONArray("files").put(0, listed("golden.safetensors", "golden", golden.readBytes())) }
        assertThrows(PackageError::class.java) { ModelPackage.open(folder) }
    }

    private fun assertChanged(changes: String) =
        assertPackageError("$folder: not as its manifest lists it: $changes; export or copy it again") {
            ModelPackage.open(folder)
        }

    private fun rewriteManifest(change: (JSONObject) -> Unit) =
        File(folder, "manifest.json").writeText(Fixtures.manifest().also(change).toString())

    private fun listed(
        path: String,
        role: String,
        content: ByteArray,
    ): JSONObject =
        JSONObject()
            .put("path", path)
            .put("role", role)
            .put("sha256", sha256(content))
            .put("size_bytes", content.size)

    private fun sha256(content: ByteArray) = MessageDigest.getInstance("SHA-256").digest(content).toHexString()
}
