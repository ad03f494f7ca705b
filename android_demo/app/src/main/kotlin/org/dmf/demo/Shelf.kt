package org.dmf.demo

import java.io.File

/** What is in [Packages], for the screen that shows it; all members are for the main thread. */
class Shelf(
    private val background: Background,
    private val packages: Packages,
) {
    /** [problems] are why a package is not there, in words; [newest] is the package that was added just now. */
    class Content(
        val packages: List<InstalledPackage>,
        val problems: List<String>,
        val newest: File? = null,
    )

    var listener: ((Content) -> Unit)? = null
    private var problems: List<String>? = null

    /** Looks again; the first time, the packages of the APK are installed. */
    fun refresh() {
        val known = problems
        show {
            val refused = known ?: packages.installEmbedded()
            Content(packages.list(), refused)
        }
    }

    fun add(files: PackageFiles) = change { packages.add(files) }

    fun remove(folder: File) =
        change {
            packages.remove(folder)
            null
        }

    /** A person has seen the problems. */
    fun dismissProblems() {
        problems = emptyList()
    }

    private fun change(work: () -> File?) {
        show {
            val outcome = attempt(work)
            Content(packages.list(), listOfNotNull(outcome.exceptionOrNull()?.inWords()), outcome.getOrNull())
        }
    }

    private fun show(work: () -> Content) {
        val done = { content: Content ->
            problems = content.problems
            listener?.invoke(content)
        }
        background.run(work, failed = { done(Content(emptyList(), listOf(it))) }, done = { done(it) })
    }
}
