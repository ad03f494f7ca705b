package org.dmf.demo

import java.util.concurrent.Semaphore
import java.util.concurrent.TimeUnit

/** Whether a screen is in front, resumed and focused, and whether it has been since [watch]. */
class Foreground {
    private var resumed = false
    private var focused = false
    private var lost = false
    private val arrived = Semaphore(0)

    @Synchronized
    fun onResumed(now: Boolean) {
        resumed = now
        update()
    }

    @Synchronized
    fun onFocused(now: Boolean) {
        focused = now
        update()
    }

    /** Waits until the screen is in front, but no longer than [timeoutMs]. */
    fun await(timeoutMs: Long) {
        if (arrived.tryAcquire(timeoutMs, TimeUnit.MILLISECONDS)) arrived.release()
    }

    @Synchronized
    fun watch() {
        lost = !(resumed && focused)
    }

    /** False once the screen has been left, however briefly, since [watch]. */
    @Synchronized
    fun wasKept(): Boolean = !lost

    private fun update() {
        arrived.drainPermits()
        if (resumed && focused) arrived.release() else lost = true
    }
}
