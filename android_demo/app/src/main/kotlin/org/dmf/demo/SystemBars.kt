package org.dmf.demo

import android.app.Activity
import android.os.Build
import android.view.View
import android.view.WindowInsets

/** Keeps a screen's content clear of bars, cut-outs and the keyboard: from Android 15 on, windows reach below them. */
fun View.avoidSystemBars() {
    if (Build.VERSION.SDK_INT < Build.VERSION_CODES.R) return // the window itself ends there
    setOnApplyWindowInsetsListener { view, insets ->
        val taken =
            insets.getInsets(
                WindowInsets.Type.systemBars() or WindowInsets.Type.displayCutout() or WindowInsets.Type.ime(),
            )
        view.setPadding(taken.left, taken.top, taken.right, taken.bottom)
        insets
    }
}

/** The view with this id, which the screen's layout has. */
inline fun <reified T : View> Activity.view(id: Int): T {
    val found: View? = findViewById(id)
    return found as T
}

inline fun <reified T : View> View.child(id: Int): T {
    val found: View? = findViewById(id)
    return found as T
}
