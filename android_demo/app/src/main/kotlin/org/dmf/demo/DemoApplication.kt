package org.dmf.demo

import android.app.Application
import android.content.Context
import org.dmf.classifier.Device

/** What outlives the screens: a phone that is turned makes new ones, and must not open the network again. */
class DemoApplication : Application() {
    val background = Background()
    val phone by lazy { Device(this) }
    val packages by lazy { Packages(this) }
    val shelf by lazy { Shelf(background, packages) }
    val verdicts by lazy { Verdicts(this) }
    val predictor by lazy { Predictor(background, verdicts) }
    val benchmarks by lazy { Benchmarks(background, phone) }
}

val Context.demo: DemoApplication get() = applicationContext as DemoApplication
