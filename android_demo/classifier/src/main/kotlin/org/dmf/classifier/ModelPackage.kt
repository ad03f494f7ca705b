package org.dmf.classifier

import java.io.File
import java.io.IOException
import java.io.InputStream
import java.security.MessageDigest

/** A package folder whose files are what its manifest lists; [labels] and [golden] are null where it has none. */
class ModelPackage private constructor(
    val folder: File,
    val manifest: Manifest,
    val labels: List<String>?,
    val golden: Golden?,
) {
    /** What the runtime opens. */
    val artifact: File get() = File(folder, manifest.artifact)

    /** The artifact's hash; of an artifact of several files, that of their `sha256sum` listing. */
    val artifactSha256: String
        get() {
            val members = manifest.files.filter { it.role == Role.ARTIFACT }
            return members.singleOrNull()?.sha256
                ?: sha256(members.joinToString("") { "${it.sha256}  ${it.path}\n" }.byteInputStream())
        }

    companion object {
        /** PackageError: no package, one that was altered, or one that this app cannot use. */
        fun open(folder: File): ModelPackage =
            try {
                openPackage(folder)
            } catch (error: IOException) {
                throw PackageError("$folder: cannot be read: ${error.oneLine()}; copy the package again", error)
            }

        private fun openPackage(folder: File): ModelPackage {
            val manifestFile = File(folder, Manifest.FILE_NAME)
            if (!manifestFile.isFile) {
                throw PackageError("$folder: no ${Manifest.FILE_NAME} in it; give a package that dmf-export wrote")
            }
            val manifest = Manifest.parse(manifestFile.readText())
            checkFiles(folder, manifest)
            val golden =
                manifest.files.find { it.role == Role.GOLDEN }?.let { Golden.read(File(folder, it.path), manifest) }
            return ModelPackage(folder, manifest, labels(folder, manifest), golden)
        }
    }
}

private const val IGNORED_NAME = ".DS_Store" // Finder leaves it in every folder it shows

private fun checkFiles(
    folder: File,
    manifest: Manifest,
) {
    val listed = manifest.files.associateBy { it.path }
    val present = fileNames(folder)
    val changes =
        (listed.keys - present).map { "$it is missing" } +
            (present - listed.keys).map { "$it was added" } +
            (listed.keys intersect present).filter { altered(folder, listed.getValue(it)) }.map { "$it was altered" }
    if (changes.isNotEmpty()) {
        throw PackageError(
            "$folder: not as its manifest lists it: ${changes.joinToString("; ")}; export or copy it again",
        )
    }
}

private fun fileNames(folder: File): Set<String> =
    folder
        .walkTopDown()
        .filter { !it.isDirectory && it.name != IGNORED_NAME }
        .map { it.relativeTo(folder).invariantSeparatorsPath }
        .filter { it != Manifest.FILE_NAME }
        .toSortedSet()

private fun altered(
    folder: File,
    listed: PackageFile,
): Boolean {
    val file = File(folder, listed.path)
    return file.length() != listed.sizeBytes || file.inputStream().use(::sha256) != listed.sha256
}

private fun sha256(stream: InputStream): String {
    val digest = MessageDigest.getInstance("SHA-256")
    val buffer = ByteArray(DEFAULT_BUFFER_SIZE)
    var count = stream.read(buffer)
    while (count >= 0) {
        digest.update(buffer, 0, count)
        count = stream.read(buffer)
    }
    return digest.digest().toHexString()
}

private fun labels(
    folder: File,
    manifest: Manifest,
): List<String>? {
    val name = manifest.labels ?: return null
    val labels = File(folder, name).readLines()
    val classes = manifest.classes
    if (classes != null && labels.size != classes) {
        throw PackageError("$name: has ${labels.size} lines, the model $classes classes; $EXPORT_AGAIN")
    }
    return labels
}
