// Mirrors LiteRT 1.4 (com.google.ai.edge.litert:litert-gpu and litert-gpu-api): only the members that the app uses.
package org.tensorflow.lite.gpu;

public class GpuDelegateFactory {
    public static class Options {
        public Options setPrecisionLossAllowed(boolean precisionLossAllowed) {
            throw new UnsupportedOperationException();
        }
    }
}
