package org.dmf.demo

import android.annotation.SuppressLint
import android.content.Context
import android.graphics.ImageFormat
import android.hardware.camera2.CameraCaptureSession
import android.hardware.camera2.CameraCharacteristics
import android.hardware.camera2.CameraDevice
import android.hardware.camera2.CameraManager
import android.hardware.camera2.CameraMetadata
import android.media.Image
import android.media.ImageReader
import android.os.Handler
import android.os.HandlerThread
import android.util.Size
import android.view.Display
import org.dmf.classifier.Pixels
import java.io.IOException
import java.util.concurrent.Semaphore
import java.util.concurrent.TimeUnit

/**
 * Upright frames of the camera, from its construction until [stop]; [onFrame] and [onProblem] run on the camera's thread.
 *
 * The app must hold the camera's permission. [display] is the one that the frames are upright on, and [minSide] what a
 * frame's shorter side should have, in px.
 */
class CameraFeed(
    context: Context,
    private val display: Display,
    val minSide: Int,
    private val onFrame: (Pixels) -> Unit,
    private val onProblem: (String) -> Unit,
) {
    private val manager = context.getSystemService(Context.CAMERA_SERVICE) as CameraManager
    private val released = Semaphore(0)

    @Volatile private var stopped = false

    // the camera thread's
    private var opening = false
    private var device: CameraDevice? = null
    private var reader: ImageReader? = null

    init {
        handler.post { attempting { open() } }
    }

    /** Returns when the camera is free for whoever comes next, or after 2.5 s; no frame comes from then on. */
    fun stop() {
        stopped = true
        handler.post { if (!opening) release() } // one that is being opened is closed as soon as it is there
        released.tryAcquire(RELEASE_TIMEOUT_MS, TimeUnit.MILLISECONDS)
    }

    private fun open() {
        if (stopped) return
        val id = chooseCamera() ?: return onProblem("this phone has no camera; choose a picture or draw one")
        val characteristics = manager.getCameraCharacteristics(id)
        val size = chooseSize(characteristics)
        val sensorDegrees = characteristics[CameraCharacteristics.SENSOR_ORIENTATION] ?: 0
        val isFront = characteristics[CameraCharacteristics.LENS_FACING] == CameraMetadata.LENS_FACING_FRONT
        val frames = ImageReader.newInstance(size.width, size.height, ImageFormat.YUV_420_888, FRAMES)
        frames.setOnImageAvailableListener({ attempting { deliver(it, turn(sensorDegrees, isFront)) } }, handler)
        reader = frames
        opening = true
        try {
            openCamera(id, frames)
        } catch (error: Exception) {
            opening = false
            throw error
        }
    }

    /** The one at the back, if there is one. */
    private fun chooseCamera(): String? {
        val ids = manager.cameraIdList
        return ids.find {
            manager.getCameraCharacteristics(it)[CameraCharacteristics.LENS_FACING] == CameraMetadata.LENS_FACING_BACK
        } ?: ids.firstOrNull()
    }

    /** The smallest that need not be enlarged, or else the largest. */
    private fun chooseSize(characteristics: CameraCharacteristics): Size {
        val map = characteristics[CameraCharacteristics.SCALER_STREAM_CONFIGURATION_MAP]
        val sizes =
            map
                ?.getOutputSizes(ImageFormat.YUV_420_888)
                .orEmpty()
                .sortedBy { it.width * it.height }
        return sizes.find { minOf(it.width, it.height) >= minSide }
            ?: sizes.lastOrNull()
            ?: throw IOException("it has no frames that an app can read")
    }

    /** A camera at the back is turned with the phone, one at the front against it. */
    private fun turn(
        sensorDegrees: Int,
        isFront: Boolean,
    ): Turn {
        val displayDegrees = display.rotation * DEGREES_PER_QUARTER // half a turn is told to no screen
        val degrees = if (isFront) sensorDegrees + displayDegrees else sensorDegrees - displayDegrees
        return Turn(Math.floorMod(degrees / DEGREES_PER_QUARTER, QUARTERS))
    }

    @SuppressLint("MissingPermission") // without it this throws, which is told
    private fun openCamera(
        id: String,
        frames: ImageReader,
    ) {
        val callback =
            object : CameraDevice.StateCallback() {
                override fun onOpened(camera: CameraDevice) {
                    opening = false
                    device = camera
                    if (stopped) release() else attempting { startFrames(camera, frames) }
                }

                override fun onDisconnected(camera: CameraDevice) {
                    failed(camera, "another app took the camera; come back when it is free")
                }

                override fun onError(
                    camera: CameraDevice,
                    error: Int,
                ) {
                    failed(camera, "the camera failed (error $error); choose another source, then the camera again")
                }
            }
        manager.openCamera(id, callback, handler)
    }

    private fun failed(
        camera: CameraDevice,
        problem: String,
    ) {
        opening = false
        device = camera
        release()
        if (!stopped) onProblem(problem)
    }

    @Suppress("DEPRECATION") // what replaces it came with API 28
    private fun startFrames(
        camera: CameraDevice,
        frames: ImageReader,
    ) {
        val callback =
            object : CameraCaptureSession.StateCallback() {
                override fun onConfigured(session: CameraCaptureSession) {
                    attempting {
                        val request = camera.createCaptureRequest(CameraDevice.TEMPLATE_PREVIEW)
                        request.addTarget(frames.surface)
                        session.setRepeatingRequest(request.build(), null, handler)
                    }
                }

                override fun onConfigureFailed(session: CameraCaptureSession) {
                    failed(camera, "the camera cannot deliver frames for this app; choose a picture or draw one")
                }
            }
        camera.createCaptureSession(listOf(frames.surface), callback, handler)
    }

    private fun deliver(
        frames: ImageReader,
        turn: Turn,
    ) {
        if (frames !== reader) return // one that came as it was closed
        val picture = frames.acquireLatestImage()?.use { if (stopped) null else upright(it, turn) }
        if (picture != null && !stopped) onFrame(picture)
    }

    private fun release() {
        attempt { device?.close() }
        device = null
        reader?.close()
        reader = null
        released.release()
    }

    /** A camera may be gone at any time; once stopped, that is nobody's problem. */
    private fun attempting(work: () -> Unit) {
        attempt(work).onFailure { error ->
            if (!stopped) onProblem("the camera cannot be used: ${error.inWords()}")
        }
    }

    private companion object {
        /** One for the life of the app: a camera tells that it is open on this thread, maybe after its feed's end. */
        val handler = Handler(HandlerThread("camera").apply { start() }.looper)
    }
}

private const val FRAMES = 2
private const val RELEASE_TIMEOUT_MS = 2500L
private const val DEGREES_PER_QUARTER = 90
private const val QUARTERS = 4

private fun upright(
    image: Image,
    turn: Turn,
): Pixels {
    val (luma, blue, red) =
        image.planes.map { plane ->
            val bytes = ByteArray(plane.buffer.remaining()).also { plane.buffer.get(it) }
            Plane(bytes, plane.rowStride, plane.pixelStride)
        }
    return uprightRgb(image.width, image.height, luma, blue, red, turn)
}
