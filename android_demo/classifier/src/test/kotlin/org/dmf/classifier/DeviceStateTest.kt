package org.dmf.classifier

import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

class DeviceStateTest {
    @Test
    fun peakMemoryIsReadInBytes() {
        val status = "Name:\tdemo\nVmPeak:\t 999999 kB\nVmHWM:\t   20480 kB\nVmRSS:\t   10240 kB\n"
        assertEquals(20_971_520L, peakMemoryBytes(status))
        assertThrows(IllegalArgumentException::class.java) { peakMemoryBytes(status.replace("VmHWM", "VmLck")) }
    }

    @Test
    fun emulatorsAreKnownByHardwareOrFingerprint() {
        val phone = "google/husky/husky:14/AP1A.240505.004/11583682:user/release-keys"
        for (hardware in listOf("goldfish", "ranchu", "cutf_cvm", "vbox86")) assertTrue(isEmulator(hardware, phone))
        val emulators =
            listOf(
                "generic/sdk/generic:6.0/MASTER/1:eng/test-keys",
                "Android/sdk_phone_x86/generic_x86:9/PSR1/1:userdebug/test-keys",
                "google/sdk_gphone64_arm64/emu64a:14/UE1A/1:userdebug/dev-keys",
            )
        for (fingerprint in emulators) assertTrue(fingerprint, isEmulator("qcom", fingerprint))
    }

    @Test
    fun phonesAreNoEmulators() {
        val phones =
            listOf(
                "zuma" to "google/husky/husky:14/AP1A.240505.004/11583682:user/release-keys",
                "qcom" to "samsung/dm3qxxx/dm3q:14/UP1A.231005.007/S918BXXU3BWK5:user/release-keys",
                "qcom" to "google/gsi_gms_arm64/generic_arm64:14/UP1A.231105.001/1:user/release-keys",
                "mt6893" to "Xiaomi/agate_global/agate:13/TP1A.220624.014/V14.0.4.0.TKWMIXM:user/release-keys",
            )
        for ((hardware, fingerprint) in phones) assertFalse(fingerprint, isEmulator(hardware, fingerprint))
    }
}
