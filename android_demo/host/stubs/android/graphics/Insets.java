// Mirrors API 36: only the members that the app uses. The class is of API 29.
package android.graphics;

public final class Insets {
    public final int bottom;
    public final int left;
    public final int right;
    public final int top;

    private Insets() {
        throw new UnsupportedOperationException();
    }
}
