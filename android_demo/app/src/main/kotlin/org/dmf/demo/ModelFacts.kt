package org.dmf.demo

import android.content.res.Resources
import org.dmf.classifier.Checkpoint
import org.dmf.classifier.DeviceDescription
import org.dmf.classifier.Fit
import org.dmf.classifier.InputSpec
import org.dmf.classifier.Manifest
import org.dmf.classifier.ModelPackage
import org.dmf.classifier.Source
import org.dmf.classifier.accelerators
import org.json.JSONObject
import java.io.File

/** Something worth telling; [isBad] where a person must not miss it. */
data class Fact(
    val title: Int,
    val value: String,
    val isBad: Boolean = false,
)

/** What there is to tell of a package on this phone. On the background thread: it reads a file. */
fun Resources.facts(
    modelPackage: ModelPackage,
    verdicts: Verdicts,
    device: DeviceDescription,
): List<Fact> {
    val manifest = modelPackage.manifest
    return listOf(
        Fact(R.string.model, getString(R.string.model_is, manifest.model.variant, manifest.model.parameters)),
        Fact(R.string.weights, words(manifest.checkpoint), isBad = manifest.checkpoint.source != "file"),
        Fact(R.string.artifact, artifact(modelPackage)),
        Fact(R.string.input, "${words(manifest.input)} ${output(manifest)}"),
        Fact(R.string.parity, parity(manifest), isBad = !manifest.parity.passed),
        selfTests(modelPackage, verdicts),
        Fact(R.string.unchecked, manifest.unchecked.joinToString("\n").ifEmpty { getString(R.string.none) }),
        Fact(R.string.tools, tools(modelPackage)),
        Fact(R.string.source, words(manifest.source)),
        Fact(
            R.string.device,
            getString(
                R.string.device_is,
                device.manufacturer,
                device.model,
                device.cpu,
                device.logicalCores,
                device.os,
                device.app,
            ),
        ),
    )
}

private fun Resources.words(checkpoint: Checkpoint): String =
    when (checkpoint.source) {
        "seeded" -> getString(R.string.random_weights)
        "file" -> getString(R.string.weights_of_file, checkpoint.pathName.orEmpty())
        else -> getString(R.string.weights_of_memory)
    }

private fun Resources.artifact(modelPackage: ModelPackage): String {
    val manifest = modelPackage.manifest
    val sizeBytes = manifest.files.sumOf { it.sizeBytes }
    return getString(
        R.string.artifact_is,
        manifest.artifact,
        manifest.format.id,
        manifest.precision,
        manifest.target,
        sizeBytes / BYTES_PER_MB,
        modelPackage.artifactSha256,
    )
}

private fun Resources.words(input: InputSpec): String {
    val interpolation = input.interpolation.name.lowercase()
    return when (val fit = input.fit) {
        is Fit.Crop -> {
            getString(R.string.input_cropped, fit.resize, interpolation, input.cropWidth, input.cropHeight)
        }

        Fit.Pad -> {
            getString(R.string.input_padded, input.cropWidth, input.cropHeight, interpolation)
        }
    }
}

private fun Resources.output(manifest: Manifest): String {
    val objects =
        manifest.detection?.let { getString(R.string.output_objects, it.maxDetections, it.scoreThreshold * PERCENT) }
    return listOfNotNull(objects, manifest.classes?.let { getString(R.string.output_classes, it) }).joinToString(" ")
}

private fun Resources.parity(manifest: Manifest): String {
    val outputs =
        manifest.parity.outputs.map {
            getString(R.string.parity_is, it.name, figure(it.maxAbsError), figure(it.budgetMaxAbsError))
        }
    val verdict = getString(if (manifest.parity.passed) R.string.parity_passed else R.string.parity_failed)
    return (listOf(getString(R.string.oracle, manifest.parity.oracle)) + outputs + verdict).joinToString("\n")
}

private fun Resources.selfTests(
    modelPackage: ModelPackage,
    verdicts: Verdicts,
): Fact {
    if (modelPackage.golden == null) return Fact(R.string.self_tests, words(null), isBad = true)
    val found =
        accelerators(modelPackage.manifest.format).map { it to verdicts.find(modelPackage.artifactSha256, it) }
    val lines =
        found.map { (accelerator, verdict) ->
            "${accelerator.id}: " + if (verdict == null) getString(R.string.not_tested) else words(verdict)
        }
    return Fact(R.string.self_tests, lines.joinToString("\n"), isBad = found.any { it.second?.passed == false })
}

/** The classifier needs none of them, and so does not read them. */
private fun Resources.tools(modelPackage: ModelPackage): String {
    val json = JSONObject(File(modelPackage.folder, Manifest.FILE_NAME).readText())
    val tools = json.optJSONObject("tools") ?: return getString(R.string.none)
    return tools
        .keys()
        .asSequence()
        .sorted()
        .joinToString { "$it ${tools.optString(it)}" }
}

private fun Resources.words(source: Source): String {
    val commit = source.commit ?: return getString(R.string.no_source)
    return if (source.dirty == true) getString(R.string.dirty, commit) else commit
}

private const val BYTES_PER_MB = 1e6
private const val PERCENT = 100
