package org.dmf.classifier

/** What went wrong, as one line that is not too long for a person. */
internal fun Throwable.oneLine(): String =
    (message ?: javaClass.simpleName).trim().replace(Regex("\\s+"), " ").take(SHOWN_CHARACTERS)

private const val SHOWN_CHARACTERS = 200
