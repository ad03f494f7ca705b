package org.dmf.demo

import org.json.JSONObject
import java.io.File
import java.io.IOException

/** The results that adb fetches from [folder]: one file a run, whole or not at all. */
class Runs(
    private val folder: File,
) {
    /** Removes the result of an earlier run of this name, which would be taken for the new one's. */
    fun forget(run: String) {
        file(run).delete()
    }

    /** IOException: it cannot be written. */
    fun write(
        run: String,
        document: JSONObject,
    ) {
        folder.mkdirs()
        val part = File(folder, "$run.json.part")
        part.writeText(document.toString(2))
        if (!part.renameTo(file(run))) throw IOException("${part.name} cannot be renamed in $folder")
    }

    private fun file(run: String) = File(folder, "$run.json")
}

fun errorDocument(problem: String): JSONObject = JSONObject().put("error", problem)
