// Mirrors API 36: only the members that the app uses. getCurrentThermalStatus is of API 29.
package android.os;

public final class PowerManager {
    private PowerManager() {}

    public int getCurrentThermalStatus() {
        throw new UnsupportedOperationException();
    }

    public boolean isPowerSaveMode() {
        throw new UnsupportedOperationException();
    }

    public boolean isInteractive() {
        throw new UnsupportedOperationException();
    }
}
