package org.dmf.classifier

/**
 * The phone at one moment; null is what it does not tell.
 *
 * [thermalStatus] is Android's, from 0 (none) to 6 (shutdown); [frequenciesKhz] has one per core.
 */
data class DeviceState(
    val thermalStatus: Int?,
    val batteryTemperatureC: Double?,
    val batteryPercent: Int?,
    val charging: Boolean?,
    val batterySaver: Boolean?,
    val screenOn: Boolean?,
    val frequenciesKhz: List<Int?>,
)

/** The phone as such: [machine] is its first ABI, [app] the application's id and version. */
data class DeviceDescription(
    val manufacturer: String,
    val model: String,
    val soc: String?,
    val sdk: Int,
    val os: String,
    val machine: String,
    val cpu: String,
    val logicalCores: Int,
    val governor: String?,
    val app: String,
)

/** Peak resident memory of a process, by the text of its `/proc/PID/status`. IllegalArgumentException: not in it. */
fun peakMemoryBytes(status: String): Long {
    val kibibytes = requireNotNull(PEAK_MEMORY.find(status)) { "no VmHWM in /proc/self/status" }.groupValues[1]
    return kibibytes.toLong() * 1024
}

/** Whether `Build.HARDWARE` and `Build.FINGERPRINT` are an emulator's. */
fun isEmulator(
    hardware: String,
    fingerprint: String,
): Boolean = hardware in EMULATED_HARDWARE || fingerprint.startsWith("generic") || "/sdk_" in fingerprint

private val PEAK_MEMORY = Regex("""^VmHWM:\s*(\d+) kB$""", RegexOption.MULTILINE)
private val EMULATED_HARDWARE = setOf("goldfish", "ranchu", "cutf_cvm", "vbox86")
