// Mirrors API 36: only the members that the app uses. getInsets and Type are of API 30.
package android.view;

import android.graphics.Insets;

public final class WindowInsets {
    private WindowInsets() {}

    public Insets getInsets(int typeMask) {
        throw new UnsupportedOperationException();
    }

    public static final class Type {
        private Type() {}

        public static int displayCutout() {
            throw new UnsupportedOperationException();
        }

        public static int ime() {
            throw new UnsupportedOperationException();
        }

        public static int systemBars() {
            throw new UnsupportedOperationException();
        }
    }
}
