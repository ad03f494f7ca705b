package org.dmf.demo

import android.content.Context
import org.dmf.classifier.Accelerator
import org.dmf.classifier.SelfTestResult

/** What the golden self-test said of an artifact on an accelerator; [image] is the worst. */
data class Verdict(
    val passed: Boolean,
    val frozenRouting: Boolean,
    val image: String,
    val maxAbsError: Double,
    val budgetAbsError: Double,
) {
    constructor(result: SelfTestResult) : this(
        result.passed,
        result.frozenRouting,
        result.worst.image,
        result.worst.maxAbsError,
        result.worst.budgetAbsError,
    )
}

/** The verdicts of this version of the app, kept between its launches. */
class Verdicts(
    context: Context,
) {
    private val preferences = context.getSharedPreferences("verdicts", Context.MODE_PRIVATE)
    private val version = context.packageManager.getPackageInfo(context.packageName, 0).versionName

    /** Null: the artifact with hash [artifactSha256] has not been tested on [accelerator]. */
    fun find(
        artifactSha256: String,
        accelerator: Accelerator,
    ): Verdict? {
        val text = preferences.getString(key(artifactSha256, accelerator), null) ?: return null
        val fields = text.split('\n', limit = 5)
        return attempt {
            Verdict(
                passed = fields[0].toBooleanStrict(),
                frozenRouting = fields[1].toBooleanStrict(),
                maxAbsError = fields[2].toDouble(),
                budgetAbsError = fields[3].toDouble(),
                image = fields[4],
            )
        }.getOrNull()
    }

    fun remember(
        artifactSha256: String,
        accelerator: Accelerator,
        verdict: Verdict,
    ) {
        val fields =
            verdict.run { listOf(passed, frozenRouting, maxAbsError, budgetAbsError, image) } // JSON has no infinity
        preferences.edit().putString(key(artifactSha256, accelerator), fields.joinToString("\n")).apply()
    }

    private fun key(
        artifactSha256: String,
        accelerator: Accelerator,
    ) = "$artifactSha256 ${accelerator.id} $version"
}
