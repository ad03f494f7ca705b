package org.dmf.demo

import android.graphics.Canvas
import android.graphics.Color
import android.graphics.Paint
import android.graphics.RectF
import android.util.TypedValue
import android.view.View
import org.dmf.classifier.Box
import org.dmf.classifier.Fit
import org.dmf.classifier.InputSpec

/** What is drawn over the picture of [view]: the part of it that the network sees, and the objects that it found. */
class Overlay(
    private val view: View,
) {
    /** An object's [box] in shares of the picture, 0..1, and what is written at it. */
    class Mark(
        val box: Box,
        val text: String,
    )

    private val metrics = view.resources.displayMetrics
    private val line =
        Paint(Paint.ANTI_ALIAS_FLAG).apply {
            style = Paint.Style.STROKE
            strokeWidth = 2 * metrics.density
            color = view.context.getColor(R.color.overlay)
        }
    private val plate = Paint().apply { color = line.color }
    private val letters =
        Paint(Paint.ANTI_ALIAS_FLAG).apply {
            textSize = TypedValue.applyDimension(TypedValue.COMPLEX_UNIT_SP, TEXT_SIZE_SP, metrics)
            color = Color.BLACK // on the plate, by day and by night
        }
    private val frame = RectF()

    var spec: InputSpec? = null
        set(value) {
            field = value
            view.invalidate()
        }

    var marks: List<Mark> = emptyList()
        set(value) {
            field = value
            view.invalidate()
        }

    /** [picture] is where the whole picture lies on the [canvas]. */
    fun draw(
        canvas: Canvas,
        picture: RectF,
    ) {
        val fit = spec?.fit
        if (fit is Fit.Crop) drawCrop(canvas, picture, fit)
        for (mark in marks) drawBox(canvas, picture, mark.box)
        for (mark in marks) drawText(canvas, picture, mark)
    }

    private fun drawCrop(
        canvas: Canvas,
        picture: RectF,
        fit: Fit.Crop,
    ) {
        val seen = spec ?: return
        val scale = minOf(picture.width(), picture.height()) / fit.resize
        val halfWidth = minOf(seen.cropWidth * scale, picture.width()) / 2
        val halfHeight = minOf(seen.cropHeight * scale, picture.height()) / 2
        frame.set(
            picture.centerX() - halfWidth,
            picture.centerY() - halfHeight,
            picture.centerX() + halfWidth,
            picture.centerY() + halfHeight,
        )
        canvas.drawRect(frame, line)
    }

    private fun drawBox(
        canvas: Canvas,
        picture: RectF,
        box: Box,
    ) {
        frame.set(
            picture.left + (box.left * picture.width()).toFloat(),
            picture.top + (box.top * picture.height()).toFloat(),
            picture.left + (box.right * picture.width()).toFloat(),
            picture.top + (box.bottom * picture.height()).toFloat(),
        )
        canvas.drawRect(frame, line)
    }

    /** Above the box, or in it where there is no room. */
    private fun drawText(
        canvas: Canvas,
        picture: RectF,
        mark: Mark,
    ) {
        val height = letters.descent() - letters.ascent()
        val left = picture.left + (mark.box.left * picture.width()).toFloat()
        val top = maxOf(picture.top + (mark.box.top * picture.height()).toFloat() - height, picture.top)
        canvas.drawRect(left, top, left + letters.measureText(mark.text), top + height, plate)
        canvas.drawText(mark.text, left, top - letters.ascent(), letters)
    }
}

private const val TEXT_SIZE_SP = 14f
