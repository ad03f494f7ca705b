"""What DMF is measured against: MobileNetV3-Large and EfficientNet-B0 of `tf.keras.applications`, fp32 .tflite files.

Their weights are random, and batch norm has the statistics of a photograph: with those of a fresh network the logits
would be 1e-11. Like DMF, MobileNetV3 takes a normalised image; EfficientNet-B0 normalises it itself, for that is the
only one that Keras has.
"""

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.captured import captured
from export.verify.inputs import PHOTOGRAPHS, photograph
from runtime.measure import Subject
from runtime.runners import open_runner

SEED, SIZE, PHOTOGRAPH = 0, 224, PHOTOGRAPHS[0]
TOLERANCE = 1e-3  # what a file may differ from Keras, of the largest logit


@dataclass(frozen=True)
class Peer:
    """A network of `tf.keras.applications`, and its input: `scale` and `shift` of an image of 0..255."""

    application: str
    options: dict[str, Any] = field(default_factory=dict)
    scale: float = 1.0
    shift: float = 0.0


PEERS = {
    "mobilenet_v3_large": Peer("MobileNetV3Large", {"include_preprocessing": False}, 1 / 127.5, -1.0),
    "efficientnet_b0": Peer("EfficientNetB0"),
}


def open_peer(name: str, folder: Path) -> Subject:
    """A peer, converted to `folder` unless it is there, and a photograph to run it on."""
    peer, path = PEERS[name], folder / f"{name}.tflite"
    x = photograph(PHOTOGRAPH, SIZE, SIZE)[None] * np.float32(peer.scale) + np.float32(peer.shift)
    if not path.exists():
        with captured(Path(os.devnull)):
            convert(peer, x, path)
    return Subject(
        name=name,
        artifact_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        model=name,
        format="tflite",
        precision="fp32",
        target="litert-cpu",
        artifact=path,
        x=x,
        input=f"photograph: {PHOTOGRAPH}",
    )


def convert(peer: Peer, x: NDArray[np.float32], path: Path) -> None:
    """Write the peer, with batch norm's statistics of x (1, S, S, 3), as a file that computes what Keras does."""
    import tensorflow as tf

    tf.keras.utils.set_random_seed(SEED)
    build, image = getattr(tf.keras.applications, peer.application), tf.keras.Input(batch_shape=x.shape)
    model = build(input_tensor=image, weights=None, classifier_activation=None, **peer.options)
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(x, training=True)
    logits = model(x, training=False).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    error = np.abs(open_runner("tflite", path, threads=1).run(x)[0] - logits).max() / np.abs(logits).max()
    if not error < TOLERANCE:
        path.unlink()
        raise RuntimeError(f"{path.name} is {error:.2g} (relative) from Keras; at most {TOLERANCE}")
