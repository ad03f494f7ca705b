package org.dmf.demo

import android.view.Gravity
import android.widget.TableLayout
import android.widget.TableRow
import android.widget.TextView
import org.dmf.classifier.Flag
import org.dmf.classifier.LatencyReport
import org.dmf.classifier.PostProcessing

/** Fills [table] with a row for each report. */
fun showReports(
    table: TableLayout,
    reports: List<LatencyReport>,
) {
    table.removeAllViews()
    if (reports.isEmpty()) return
    val resources = table.resources
    row(table, resources.getStringArray(R.array.report_columns).toList())
    for (report in reports) {
        val figures =
            listOf(report.p50Ms, report.p90Ms, report.p99Ms, report.coldLoadMs, report.peakMemoryBytes / BYTES_PER_MIB)
        row(
            table,
            listOf(report.runtime.accelerator.id) + figures.map { resources.getString(R.string.tenth, it) } +
                resources.getString(if (report.invalidBecause.isEmpty()) R.string.valid else R.string.invalid),
        )
    }
}

/** Why a report is no measure, in words. */
fun flagText(flag: Flag): Int =
    when (flag) {
        Flag.THROTTLED -> R.string.throttled
        Flag.BATTERY_SAVER -> R.string.battery_saver
        Flag.SCREEN_OFF -> R.string.screen_off
        Flag.TOO_FEW_SAMPLES -> R.string.too_few_samples
        Flag.NOT_FOREGROUND -> R.string.not_foreground
        Flag.WRONG_ANSWERS -> R.string.wrong_answers
    }

/** What chose among a detector's boxes, in words. */
fun chosenText(chosenBy: PostProcessing): Int =
    when (chosenBy) {
        PostProcessing.NONE -> R.string.chosen_not
        PostProcessing.GRAPH -> R.string.chosen_by_graph
        PostProcessing.RUNNER -> R.string.chosen_by_app
    }

private const val BYTES_PER_MIB = 1024.0 * 1024.0

private fun row(
    table: TableLayout,
    cells: List<String>,
) {
    val row = TableRow(table.context)
    val gap = (CELL_GAP_DP * table.resources.displayMetrics.density).toInt()
    cells.forEachIndexed { column, text ->
        val cell = TextView(table.context)
        cell.text = text
        cell.gravity = if (column == 0) Gravity.START else Gravity.END
        cell.setPadding(0, 0, gap, 0)
        row.addView(cell)
    }
    table.addView(row)
}

private const val CELL_GAP_DP = 16
