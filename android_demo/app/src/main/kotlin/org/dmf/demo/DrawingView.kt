package org.dmf.demo

import android.annotation.SuppressLint
import android.content.Context
import android.graphics.Bitmap
import android.graphics.Canvas
import android.graphics.Color
import android.graphics.Paint
import android.graphics.Path
import android.graphics.RectF
import android.util.AttributeSet
import android.view.MotionEvent
import android.view.View
import org.dmf.classifier.Pixels

/** A square to draw in with a finger. */
class DrawingView(
    context: Context,
    attributes: AttributeSet?,
) : View(context, attributes) {
    val overlay = Overlay(this)
    private val place = RectF()
    private val paint =
        Paint(Paint.ANTI_ALIAS_FLAG).apply {
            style = Paint.Style.STROKE
            strokeCap = Paint.Cap.ROUND
            strokeJoin = Paint.Join.ROUND
        }

    /** What is to be known when a finger is lifted, or the drawing is changed otherwise. */
    var onChange: () -> Unit = {}

    /** Strokes of x0, y0, x1, y1, ... in 0..1 of the square. */
    var strokes: List<FloatArray> = emptyList()
        private set

    var whiteOnBlack = false
        private set

    fun clear() = show(emptyList(), whiteOnBlack)

    fun swapColours() = show(strokes, !whiteOnBlack)

    fun show(
        strokes: List<FloatArray>,
        whiteOnBlack: Boolean,
    ) {
        this.strokes = strokes
        this.whiteOnBlack = whiteOnBlack
        invalidate()
        onChange()
    }

    /** The drawing as a picture of [side] x [side] px. */
    fun toPixels(side: Int): Pixels {
        val bitmap = Bitmap.createBitmap(side, side, Bitmap.Config.ARGB_8888)
        draw(Canvas(bitmap), RectF(0f, 0f, side.toFloat(), side.toFloat()))
        return bitmap.upright(Turn(0)).also { bitmap.recycle() }
    }

    override fun onSizeChanged(
        width: Int,
        height: Int,
        oldWidth: Int,
        oldHeight: Int,
    ) {
        val side = minOf(width, height)
        val left = (width - side) / 2f
        val top = (height - side) / 2f
        place.set(left, top, left + side, top + side)
    }

    override fun onDraw(canvas: Canvas) {
        super.onDraw(canvas)
        canvas.save()
        canvas.clipRect(place)
        draw(canvas, place)
        canvas.restore()
        overlay.draw(canvas, place)
    }

    @SuppressLint("ClickableViewAccessibility") // there is nothing to click, only to draw
    override fun onTouchEvent(event: MotionEvent): Boolean {
        if (place.isEmpty) return false
        when (event.actionMasked) {
            MotionEvent.ACTION_DOWN -> {
                parent.requestDisallowInterceptTouchEvent(true)
                strokes = strokes.plusElement(point(event.x, event.y))
            }

            MotionEvent.ACTION_MOVE -> {
                var stroke = strokes.lastOrNull() ?: return false
                for (index in 0 until event.historySize) {
                    stroke += point(event.getHistoricalX(index), event.getHistoricalY(index))
                }
                strokes = strokes.dropLast(1).plusElement(stroke + point(event.x, event.y))
            }

            MotionEvent.ACTION_UP -> {
                onChange()
            }

            else -> {
                return false
            }
        }
        invalidate()
        return true
    }

    private fun point(
        x: Float,
        y: Float,
    ) = floatArrayOf((x - place.left) / place.width(), (y - place.top) / place.height())

    private fun draw(
        canvas: Canvas,
        square: RectF,
    ) {
        paint.color = if (whiteOnBlack) Color.BLACK else Color.WHITE
        paint.style = Paint.Style.FILL
        canvas.drawRect(square, paint)
        paint.color = if (whiteOnBlack) Color.WHITE else Color.BLACK
        paint.style = Paint.Style.STROKE
        paint.strokeWidth = square.width() * STROKE_WIDTH
        for (stroke in strokes) canvas.drawPath(path(stroke, square), paint)
    }

    private fun path(
        stroke: FloatArray,
        square: RectF,
    ): Path {
        val path = Path()
        for (index in stroke.indices step 2) {
            val x = square.left + stroke[index] * square.width()
            val y = square.top + stroke[index + 1] * square.height()
            if (index == 0) path.moveTo(x, y)
            path.lineTo(x, y) // a line to where it begins is a dot
        }
        return path
    }
}

private const val STROKE_WIDTH = 0.05f
