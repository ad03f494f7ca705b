package org.dmf.demo

import android.content.Context
import android.graphics.Canvas
import android.graphics.Paint
import android.graphics.RectF
import org.dmf.classifier.InputSpec

/** Outlines the part of a picture that the network sees. */
class CropFrame(
    context: Context,
) {
    private val paint =
        Paint(Paint.ANTI_ALIAS_FLAG).apply {
            style = Paint.Style.STROKE
            strokeWidth = 2 * context.resources.displayMetrics.density
            color = context.getColor(R.color.crop)
        }
    private val frame = RectF()

    /** [picture] is where the whole picture lies on the [canvas]. */
    fun draw(
        canvas: Canvas,
        picture: RectF,
        spec: InputSpec,
    ) {
        val scale = minOf(picture.width(), picture.height()) / spec.resize
        val halfWidth = minOf(spec.cropWidth * scale, picture.width()) / 2
        val halfHeight = minOf(spec.cropHeight * scale, picture.height()) / 2
        frame.set(
            picture.centerX() - halfWidth,
            picture.centerY() - halfHeight,
            picture.centerX() + halfWidth,
            picture.centerY() + halfHeight,
        )
        canvas.drawRect(frame, paint)
    }
}
