package org.dmf.demo

import android.content.Context
import android.content.res.AssetManager
import org.dmf.classifier.Accelerator
import org.dmf.classifier.Manifest
import org.dmf.classifier.ModelPackage
import org.dmf.classifier.PackageError
import org.dmf.classifier.accelerators
import java.io.File
import java.io.FileNotFoundException
import java.io.IOException
import java.io.InputStream

/** Where a package comes from. */
fun interface PackageFiles {
    /** The file at [path], which is relative to the package. FileNotFoundException: there is none. */
    fun open(path: String): InputStream
}

/** A package in this app; [title] is what a list shows. A damaged one has no [accelerators]. */
data class InstalledPackage(
    val folder: File,
    val title: String,
    val accelerators: List<Accelerator>,
)

/** The packages in this app. Each appears whole, once it is as its manifest lists it; all on the background thread. */
class Packages(
    private val context: Context,
) {
    private val folder = File(context.filesDir, "packages")
    private val incoming = File(context.filesDir, "incoming")

    fun list(): List<InstalledPackage> =
        folder
            .listFiles()
            .orEmpty()
            .filter { it.isDirectory }
            .sortedBy { it.name }
            .map(::installed)

    /**
     * Installs what the APK carries, once for each APK that is installed; returns why it refuses some, in words.
     *
     * The packages of a newer APK replace those of the same name.
     */
    fun installEmbedded(): List<String> {
        val preferences = context.getSharedPreferences("packages", Context.MODE_PRIVATE)
        val installed = context.packageManager.getPackageInfo(context.packageName, 0).lastUpdateTime
        if (preferences.getLong(EMBEDDED_OF, 0) == installed) return emptyList()
        val refused =
            context.assets.list(ASSETS).orEmpty().mapNotNull { name ->
                attempt { install(embedded(context.assets, name), replace = true) }
                    .exceptionOrNull()
                    ?.let { "$name: ${it.inWords()}" }
            }
        if (refused.isEmpty()) preferences.edit().putLong(EMBEDDED_OF, installed).apply()
        return refused
    }

    /** Copies a package and returns its folder. PackageError: it cannot be used, or one of its name is there. */
    fun add(files: PackageFiles): File = install(files, replace = false)

    fun remove(folder: File) {
        if (!folder.deleteRecursively()) throw IOException("${folder.name} cannot be removed; try it again")
    }

    private fun install(
        files: PackageFiles,
        replace: Boolean,
    ): File {
        incoming.deleteRecursively() // of a copy that was interrupted
        try {
            val text = manifestText(files)
            val manifest = Manifest.parse(text)
            val name = manifest.name.replace(NOT_IN_NAMES, "_")
            val target = File(folder, name)
            if (target.exists() && !replace) {
                throw PackageError("a package named $name is in this app already; remove it first")
            }
            checkSpace(manifest)
            val copy = File(incoming, name)
            copy.mkdirs()
            File(copy, Manifest.FILE_NAME).writeText(text)
            for (file in manifest.files) copy(files, file.path, File(copy, file.path))
            ModelPackage.open(copy)
            folder.mkdirs()
            target.deleteRecursively()
            if (!copy.renameTo(target)) throw IOException("$name cannot be moved to ${folder.path}; try it again")
            return target
        } finally {
            incoming.deleteRecursively()
        }
    }

    private fun checkSpace(manifest: Manifest) {
        val neededBytes = manifest.files.sumOf { it.sizeBytes }
        val freeBytes = context.filesDir.usableSpace
        if (neededBytes > freeBytes) {
            throw PackageError(
                "${manifest.name} takes ${neededBytes / BYTES_PER_MB} MB, ${freeBytes / BYTES_PER_MB} MB are free; " +
                    "make room on the phone",
            )
        }
    }
}

private const val EMBEDDED_OF = "embedded_of"
private const val ASSETS = "packages"
private const val BYTES_PER_MB = 1_000_000
private val NOT_IN_NAMES = Regex("[^A-Za-z0-9_.-]+|^\\.+")

private fun embedded(
    assets: AssetManager,
    name: String,
) = PackageFiles { assets.open("$ASSETS/$name/$it") }

private fun manifestText(files: PackageFiles): String =
    try {
        files.open(Manifest.FILE_NAME).use { it.readBytes().decodeToString() }
    } catch (error: FileNotFoundException) {
        throw PackageError("no ${Manifest.FILE_NAME} in this folder; choose one that dmf-export wrote", error)
    }

private fun copy(
    files: PackageFiles,
    path: String,
    to: File,
) {
    to.parentFile?.mkdirs()
    try {
        files.open(path).use { input -> to.outputStream().use { input.copyTo(it) } }
    } catch (error: FileNotFoundException) {
        throw PackageError("$path is missing; choose a folder with all that dmf-export wrote", error)
    }
}

/** A damaged package stays in the list, so that it can be removed; opening it says what is wrong. */
private fun installed(folder: File): InstalledPackage =
    attempt { Manifest.parse(File(folder, Manifest.FILE_NAME).readText()) }.fold(
        { InstalledPackage(folder, "${it.name} (${it.format.id}, ${it.precision})", accelerators(it.format)) },
        { InstalledPackage(folder, folder.name, emptyList()) },
    )
