package org.dmf.classifier

import android.content.Context
import android.content.Intent
import android.content.IntentFilter
import android.os.BatteryManager
import android.os.Build
import android.os.PowerManager
import java.io.File
import java.io.IOException
import java.util.Date

/** This phone. */
class Device(
    private val context: Context,
) : Phone {
    private val power = context.getSystemService(Context.POWER_SERVICE) as PowerManager
    private val logicalCores = Runtime.getRuntime().availableProcessors()

    override val isEmulator: Boolean get() = isEmulator(Build.HARDWARE, Build.FINGERPRINT)

    override val description: DeviceDescription
        get() {
            val soc = if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.S) known(Build.SOC_MODEL) else null
            val version = context.packageManager.getPackageInfo(context.packageName, 0).versionName
            return DeviceDescription(
                manufacturer = Build.MANUFACTURER,
                model = Build.MODEL,
                soc = soc,
                sdk = Build.VERSION.SDK_INT,
                os = "Android ${Build.VERSION.RELEASE} (API ${Build.VERSION.SDK_INT})",
                machine = Build.SUPPORTED_ABIS[0],
                cpu = soc ?: Build.HARDWARE,
                logicalCores = logicalCores,
                governor = readOrNull("$CPUS/cpu0/cpufreq/scaling_governor"),
                app = "${context.packageName} $version",
            )
        }

    override fun state(): DeviceState {
        val battery = context.registerReceiver(null, IntentFilter(Intent.ACTION_BATTERY_CHANGED))
        val thermalStatus = if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.Q) power.currentThermalStatus else null
        return DeviceState(
            thermalStatus = thermalStatus,
            batteryTemperatureC = battery?.extra(BatteryManager.EXTRA_TEMPERATURE)?.let { it / 10.0 },
            batteryPercent = battery?.let(::percent),
            charging = battery?.extra(BatteryManager.EXTRA_PLUGGED)?.let { it != 0 },
            batterySaver = power.isPowerSaveMode,
            screenOn = power.isInteractive,
            frequenciesKhz =
                List(logicalCores) { readOrNull("$CPUS/cpu$it/cpufreq/scaling_cur_freq")?.toIntOrNull() },
        )
    }

    override fun peakMemoryBytes(): Long = peakMemoryBytes(File("/proc/self/status").readText())

    override fun nanoTime(): Long = System.nanoTime()

    override fun now(): Date = Date()
}

private const val CPUS = "/sys/devices/system/cpu"

private fun known(text: String): String? = text.takeIf { it != Build.UNKNOWN }

private fun percent(battery: Intent): Int? {
    val level = battery.extra(BatteryManager.EXTRA_LEVEL) ?: return null
    val scale = battery.extra(BatteryManager.EXTRA_SCALE) ?: return null
    return if (scale > 0) level * 100 / scale else null
}

private fun Intent.extra(name: String): Int? = if (hasExtra(name)) getIntExtra(name, 0) else null

/** Many phones keep these files from apps. */
private fun readOrNull(path: String): String? =
    try {
        File(path).readText().trim()
    } catch (error: IOException) {
        null
    }
