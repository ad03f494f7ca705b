"""XNNPACK as LiteRT's interpreter applies it by default. Compared with that interpreter in the tests."""

from math import prod

from export.delegates.rule import Delegate, Rule

FILE = "google-ai-edge/LiteRT 038d2a2, tflite/delegates/xnnpack/xnnpack_delegate.cc"
MAX_RANK = 6  # XNN_MAX_TENSOR_DIMS
CONSTANT = "the filter and the bias of a convolution must be constants of the file"

TAKES = """
ABS ADD AVERAGE_POOL_2D BATCH_MATMUL CEIL CONCATENATION CONV_2D COS DEPTH_TO_SPACE DEPTHWISE_CONV_2D DEQUANTIZE DIV
ELU EXP FLOOR FULLY_CONNECTED GELU HARD_SWISH LEAKY_RELU LOG LOGISTIC MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL NEG PAD
PRELU QUANTIZE REDUCE_MAX REDUCE_MIN RELU RELU6 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR ROUND RSQRT SIN SLICE SOFTMAX
SPACE_TO_DEPTH SPLIT SQRT SQUARE SQUARED_DIFFERENCE STRIDED_SLICE SUB SUM TANH TRANSPOSE TRANSPOSE_CONV
"""

XNNPACK = Delegate(
    "XNNPACK",
    (
        Rule(
            ("CONV_2D",),
            lambda op: op.computes(1) or op.computes(2),
            CONSTANT,
            f"{FILE}, VisitConv2DNode",
        ),
        Rule(
            ("DEPTHWISE_CONV_2D",),
            lambda op: op.computes(1) or op.computes(2),
            CONSTANT,
            f"{FILE}, VisitDepthwiseConv2DNode",
        ),
        Rule(
            ("FULLY_CONNECTED",),
            lambda op: op.computes(1) or op.computes(2),
            "weights and bias must be constants; the flag DYNAMIC_FULLY_CONNECTED, off by default, allows others",
            f"{FILE}, VisitFullyConnectedNode",
        ),
        Rule(
            ("CONCATENATION",),
            lambda op: not 2 <= len(op.inputs) <= 5,
            "it joins 2 to 5 tensors",
            f"{FILE}, VisitConcatenationNode",
        ),
        Rule(
            ("SPLIT",),
            lambda op: not 2 <= len(op.outputs) <= 4,
            "it splits into 2 to 4 tensors",
            f"{FILE}, VisitSplitNode",
        ),
        Rule(
            ("STRIDED_SLICE",),
            lambda op: op.step != 1,
            "a slice must have step 1",
            f"{FILE}, VisitStridedSliceNode",
        ),
        Rule(
            ("RESHAPE", "ADD", "SUB", "MUL", "DIV", "GELU", "HARD_SWISH", "LOGISTIC", "RSQRT", "SQRT"),
            lambda op: op.rank > MAX_RANK,
            f"tensors have at most {MAX_RANK} dimensions",
            f"{FILE}, VisitReshapeNode, VisitBinaryNode, VisitUnaryNode",
        ),
        Rule(
            ("GELU",),
            lambda op: op.int8,
            "a GELU of int8 is a table of TensorFlow Lite's own kernel",
            f"{FILE}, VisitUnaryNode",
        ),
        Rule(
            (),
            lambda op: any(prod(value.shape) == 0 for value in (*op.inputs, *op.outputs)),
            "a tensor has no elements",
            f"{FILE}, CheckTensorShape",
        ),
    ),
    takes=frozenset(TAKES.split()),
    takes_source=f"{FILE}, VisitNode",  # LOG is not in it yet; ai-edge-litert 2.3 delegates it
    checked="compared with ai-edge-litert's own partitions in the tests",
)
