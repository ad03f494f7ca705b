"""Artifact to numbers: read a package, run it on a device, measure it, report.

A package is a folder that ``export`` wrote: an artifact (``model.onnx``, ``model.tflite``,
``model.mlpackage``), ``manifest.json``, ``golden.safetensors`` and perhaps ``labels.txt``. This
side knows nothing of PyTorch, and imports each inference runtime only where it is used.

::

    package = runtime.manifest.open_package("build/dmf_s-onnx")
    report = runtime.measure.measure(package, threads=2)
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else ONNX Runtime reports its sessions to its maker, by a thread
