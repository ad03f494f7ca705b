// Mirrors LiteRT 1.4 (com.google.ai.edge.litert:litert, the Interpreter API): only the members that the app uses.
package org.tensorflow.lite;

import java.io.Closeable;

public interface Delegate extends Closeable {
    long getNativeHandle();

    @Override
    default void close() {}
}
