// Mirrors LiteRT 1.4 (com.google.ai.edge.litert:litert, the Interpreter API): only the members that the app uses.
package org.tensorflow.lite.nnapi;

import org.tensorflow.lite.Delegate;

public class NnApiDelegate implements Delegate, AutoCloseable {
    public static final class Options {
        public Options setUseNnapiCpu(boolean enable) {
            throw new UnsupportedOperationException();
        }

        public Options setAllowFp16(boolean enable) {
            throw new UnsupportedOperationException();
        }
    }

    public NnApiDelegate(Options options) {
        throw new UnsupportedOperationException();
    }

    @Override
    public long getNativeHandle() {
        throw new UnsupportedOperationException();
    }

    @Override
    public void close() {
        throw new UnsupportedOperationException();
    }
}
