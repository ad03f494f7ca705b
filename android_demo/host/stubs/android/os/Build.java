// Mirrors API 36: only the members that the app uses. SOC_MODEL is of API 31.
package android.os;

public class Build {
    public static final String FINGERPRINT = unknown();
    public static final String HARDWARE = unknown();
    public static final String MANUFACTURER = unknown();
    public static final String MODEL = unknown();
    public static final String SOC_MODEL = unknown();
    public static final String[] SUPPORTED_ABIS = {};
    public static final String UNKNOWN = "unknown";

    public static class VERSION {
        public static final String RELEASE = unknown();
        public static final int SDK_INT = unknown().length();
    }

    public static class VERSION_CODES {
        public static final int O = 26;
        public static final int O_MR1 = 27;
        public static final int P = 28;
        public static final int Q = 29;
        public static final int R = 30;
        public static final int S = 31;
        public static final int TIRAMISU = 33;
    }

    /** A call, so that the compiler takes no value for a constant. */
    private static String unknown() {
        throw new UnsupportedOperationException();
    }
}
