package org.dmf.demo

import android.content.Context
import android.graphics.Bitmap
import android.graphics.Canvas
import android.graphics.Paint
import android.graphics.RectF
import android.util.AttributeSet
import android.view.View

/** A picture as large as fits, and what there is to see in it. */
class PictureView(
    context: Context,
    attributes: AttributeSet?,
) : View(context, attributes) {
    private val paint = Paint(Paint.FILTER_BITMAP_FLAG)
    val overlay = Overlay(this)
    private val place = RectF()

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
        overlay.draw(canvas, place)
    }
}
