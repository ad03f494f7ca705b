"""Core ML's compute units. Apple publishes no list of what the Neural Engine takes: this is what is known of it."""

from export.delegates.rule import Delegate, Rule
from export.lowering.bc1s import LARGEST_DIMENSION

DILATED = Rule(
    ("conv",),
    lambda op: op.computes(1) and op.dilation > 1,
    "Core ML has no dilated convolution with a computed filter: coremltools fails",
    "coremltools 9.0, converters/mil/mil/ops/defs/iOS15/conv.py",
    stops=True,
)
LARGE = Rule(
    (),
    lambda op: max(max(value.shape, default=0) for value in (*op.inputs, *op.outputs)) > LARGEST_DIMENSION,
    f"a tensor has more than {LARGEST_DIMENSION} along a dimension",
    "ONNX Runtime, its Core ML execution provider, helper.cc, IsInputSupported; apple/coremltools, issue 1003",
)
FLOAT32 = Rule(
    ("program",),
    lambda _: True,
    "a float32 program runs on the CPU and the GPU only; leave out --precision fp32",
    "Apple, coremltools guide, Typed Execution (apple.github.io/coremltools/docs-guides/source/typed-execution.html)",
    stops=True,
)


NEURAL_ENGINE = Delegate(
    "the Neural Engine",
    (
        DILATED,
        Rule(
            ("conv",),
            lambda op: op.computes(1),
            "a convolution with a computed filter is reported to stay off it, grouped and depthwise ones to be invalid",
            "maderix/ANE, issue 47 (M1, found by trial); Apple documents nothing",
        ),
        LARGE,
    ),
    float32=FLOAT32,
    note="which unit runs what is Core ML's choice; on a Mac, MLComputePlan or Xcode's performance report tells",
)
CPU = Delegate("Core ML on the CPU", (DILATED,))
