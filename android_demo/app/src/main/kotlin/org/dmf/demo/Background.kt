package org.dmf.demo

import android.os.Handler
import android.os.Looper
import java.util.concurrent.Executors

/**
 * The app's one background thread.
 *
 * An engine must be used by the thread that opened it, nothing may run beside a benchmark, and a package must not be
 * removed while it is in use: in one queue, none of these needs a lock.
 */
class Background {
    private val queue = Executors.newSingleThreadExecutor { Thread(it, "background") }
    private val main = Handler(Looper.getMainLooper())

    /** Runs [work], which must not throw, after all that was given before. */
    fun run(work: () -> Unit) {
        queue.execute(work)
    }

    /** Runs [work] on the main thread. */
    fun post(work: () -> Unit) {
        main.post(work)
    }

    /** Gives what [work] returns to [done], or what it throws in words to [failed]; both run on the main thread. */
    fun <T> run(
        work: () -> T,
        failed: (String) -> Unit,
        done: (T) -> Unit,
    ) {
        run {
            val outcome = attempt(work)
            post { outcome.fold(done) { failed(it.inWords()) } }
        }
    }
}
