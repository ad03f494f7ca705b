package org.dmf.demo

/**
 * What [work] returns or throws.
 *
 * Providers of documents, drivers and runtimes throw whatever they like, and a huge picture or package may not fit into
 * memory: none of it may end the app. Other errors than these are faults of this app.
 */
fun <T> attempt(work: () -> T): Result<T> =
    try {
        Result.success(work())
    } catch (error: Exception) {
        Result.failure(error)
    } catch (error: OutOfMemoryError) {
        Result.failure(error)
    } catch (error: LinkageError) {
        Result.failure(error) // a runtime that is not in this build of the app
    }

/** One line for people. */
fun Throwable.inWords(): String =
    when (this) {
        is OutOfMemoryError -> "this phone's memory is too small for it"
        else -> message?.trim()?.replace(WHITE_SPACE, " ")?.ifEmpty { null } ?: javaClass.simpleName
    }

private val WHITE_SPACE = Regex("\\s+")
