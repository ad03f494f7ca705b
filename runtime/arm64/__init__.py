"""ARM64 on an x86-64 Linux host: artifacts run by the aarch64 builds of LiteRT and ONNX Runtime, emulated by qemu.

What it proves and what it can't is in ``docs/arm64.md``. Emulated time is not latency, and nothing here measures any.

::

    from runtime.arm64.runner import Workload, count_instructions, open_emulated

    with open_emulated("tflite", artifact, "cortex-a53") as runner:
        outputs = runner.run(x)
    (count,) = count_instructions([Workload("tflite", artifact, x)], "cortex-a53")
"""
