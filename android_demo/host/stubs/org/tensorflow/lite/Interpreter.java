// Mirrors LiteRT 1.4 (com.google.ai.edge.litert:litert, the Interpreter API): only the members that the app uses.
package org.tensorflow.lite;

import java.io.File;
import java.util.Map;

public final class Interpreter implements AutoCloseable {
    public static class Options {
        public Options setNumThreads(int numThreads) {
            throw new UnsupportedOperationException();
        }

        public Options setUseXNNPACK(boolean useXNNPACK) {
            throw new UnsupportedOperationException();
        }

        public Options addDelegate(Delegate delegate) {
            throw new UnsupportedOperationException();
        }
    }

    public Interpreter(File modelFile, Options options) {
        throw new UnsupportedOperationException();
    }

    public void runForMultipleInputsOutputs(Object[] inputs, Map<Integer, Object> outputs) {
        throw new UnsupportedOperationException();
    }

    public void runSignature(Map<String, Object> inputs, Map<String, Object> outputs, String signatureKey) {
        throw new UnsupportedOperationException();
    }

    public String[] getSignatureKeys() {
        throw new UnsupportedOperationException();
    }

    public String[] getSignatureInputs(String signatureKey) {
        throw new UnsupportedOperationException();
    }

    public String[] getSignatureOutputs(String signatureKey) {
        throw new UnsupportedOperationException();
    }

    @Override
    public void close() {
        throw new UnsupportedOperationException();
    }
}
