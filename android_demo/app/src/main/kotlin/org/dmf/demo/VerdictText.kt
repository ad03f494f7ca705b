package org.dmf.demo

import android.content.res.Resources

/** A verdict in words; null is a package without golden vectors. */
fun Resources.words(verdict: Verdict?): String =
    when {
        verdict == null -> {
            getString(R.string.no_golden)
        }

        verdict.passed -> {
            getString(R.string.passed, figure(verdict.maxAbsError), verdict.image, figure(verdict.budgetAbsError))
        }

        verdict.frozenRouting -> {
            getString(R.string.failed_frozen)
        }

        else -> {
            getString(R.string.failed, verdict.image, figure(verdict.maxAbsError), figure(verdict.budgetAbsError))
        }
    }

/** An error or a budget, whose size is what matters. */
fun Resources.figure(value: Double): String =
    if (value.isInfinite()) getString(R.string.infinite) else getString(R.string.figure, value)
