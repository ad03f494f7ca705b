// Mirrors LiteRT 1.4 (com.google.ai.edge.litert:litert-gpu and litert-gpu-api): only the members that the app uses.
package org.tensorflow.lite.gpu;

import org.tensorflow.lite.Delegate;

public class GpuDelegate implements Delegate {
    public GpuDelegate(GpuDelegateFactory.Options options) {
        throw new UnsupportedOperationException();
    }

    @Override
    public long getNativeHandle() {
        throw new UnsupportedOperationException();
    }
}
