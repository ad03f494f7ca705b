package org.dmf.demo

import android.content.ContentResolver
import android.net.Uri
import android.provider.DocumentsContract
import android.provider.DocumentsContract.Document
import java.io.FileNotFoundException
import java.io.InputStream

/** A folder [tree] that a person chose by ACTION_OPEN_DOCUMENT_TREE. */
class DocumentTree(
    private val resolver: ContentResolver,
    private val tree: Uri,
) : PackageFiles {
    override fun open(path: String): InputStream {
        var id = DocumentsContract.getTreeDocumentId(tree)
        for (name in path.split('/')) id = child(id, name) ?: throw FileNotFoundException(path)
        return resolver.openInputStream(DocumentsContract.buildDocumentUriUsingTree(tree, id))
            ?: throw FileNotFoundException(path)
    }

    private fun child(
        parent: String,
        name: String,
    ): String? {
        val children = DocumentsContract.buildChildDocumentsUriUsingTree(tree, parent)
        val columns = arrayOf(Document.COLUMN_DOCUMENT_ID, Document.COLUMN_DISPLAY_NAME)
        return resolver.query(children, columns, null, null, null)?.use { cursor ->
            generateSequence { if (cursor.moveToNext()) cursor else null }
                .firstOrNull { it.getString(1) == name }
                ?.getString(0)
        }
    }
}
