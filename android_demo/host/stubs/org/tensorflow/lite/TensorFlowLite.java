// Mirrors LiteRT 1.4 (com.google.ai.edge.litert:litert, the Interpreter API): only the members that the app uses.
package org.tensorflow.lite;

public final class TensorFlowLite {
    private TensorFlowLite() {}

    public static void init() {
        throw new UnsupportedOperationException();
    }

    public static String runtimeVersion() {
        throw new UnsupportedOperationException();
    }
}
