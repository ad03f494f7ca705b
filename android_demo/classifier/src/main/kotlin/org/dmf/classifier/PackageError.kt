package org.dmf.classifier

/** A package that cannot be used; [message] is one line for people. */
class PackageError(
    override val message: String,
    cause: Throwable? = null,
) : Exception(message, cause)
