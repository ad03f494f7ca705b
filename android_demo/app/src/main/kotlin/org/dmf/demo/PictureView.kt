package org.dmf.demo

import android.content.Context
import android.graphics.Bitmap
import android.graphics.Canvas
import android.graphics.Paint
import android.graphics.RectF
import android.util.AttributeSet
import android.view.View
import org.dmf.classifier.InputSpec

/** A picture as large as fits, and what of it the network sees. */
class PictureView(
    context: Context,
    attributes: AttributeSet?,
) : View(context, attributes) {
    private val paint = Paint(Paint.FILTER_BITMAP_FLAG)
    private val cropFrame = CropFrame(context)
    private val place = RectF()

    var spec: InputSpec? = null
        set(value) {
            field = value
            invalidate()
        }

    var picture: Bitmap? = null
        set(value) {
            field = value
            invalidate()
        }

    override fun onDraw(canvas: Canvas) {
        super.onDraw(canvas)
        val bitmap = picture ?: return
        val scale = minOf(width.toFloat() / bitmap.width, height.toFloat() / bitmap.height)
        val left = (width - bitmap.width * scale) / 2
        val top = (height - bitmap.height * scale) / 2
        place.set(left, top, left + bitmap.width * scale, top + bitmap.height * scale)
        canvas.drawBitmap(bitmap, null, place, paint)
        spec?.let { cropFrame.draw(canvas, place, it) }
    }
}
