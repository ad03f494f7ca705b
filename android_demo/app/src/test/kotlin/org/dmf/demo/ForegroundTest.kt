package org.dmf.demo

import org.junit.Assert.assertFalse
import org.junit.Assert.assertTrue
import org.junit.Test

class ForegroundTest {
    private val foreground = Foreground()

    @Test
    fun `a screen that is resumed and focused throughout is kept`() {
        come()
        foreground.watch()
        assertTrue(foreground.wasKept())
    }

    @Test
    fun `leaving it is not forgotten when it comes back`() {
        for (leave in listOf(foreground::onResumed, foreground::onFocused)) {
            come()
            foreground.watch()
            leave(false)
            leave(true)
            assertFalse(foreground.wasKept())
            foreground.watch()
            assertTrue(foreground.wasKept())
        }
    }

    @Test
    fun `a screen without focus is not in front`() {
        foreground.onResumed(true)
        foreground.watch()
        assertFalse(foreground.wasKept())
        foreground.onFocused(true)
        assertFalse(foreground.wasKept())
    }

    @Test
    fun `one that is in front is not waited for`() {
        come()
        foreground.await(TOO_LONG_MS) // twice: the first must not use the arrival up
        foreground.await(TOO_LONG_MS)
    }

    @Test
    fun `one that never comes is not waited for forever`() {
        val start = System.nanoTime()
        foreground.await(20)
        assertTrue((System.nanoTime() - start) / 1_000_000 >= 20)
    }

    private fun come() {
        foreground.onResumed(true)
        foreground.onFocused(true)
    }
}

private const val TOO_LONG_MS = 3_600_000L
