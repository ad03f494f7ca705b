"""Android's Neural Networks API by TFLite's delegate. From its source; not run here.

What is accepted is handed to a driver, which may leave it to the CPU all the same.
"""

from export.delegates.op import Op
from export.delegates.rule import Delegate, Rule

FILE = "google-ai-edge/LiteRT 5c8a6d4, tflite/delegates/nnapi/nnapi_delegate.cc"


def _broadcasts(op: Op) -> bool:
    first, second = (value.shape for value in op.inputs[:2])
    return first[:-2] != second[:-2]


TAKES = """
ABS ADD ARG_MAX ARG_MIN AVERAGE_POOL_2D BATCH_MATMUL BATCH_TO_SPACE_ND CAST CONCATENATION CONV_2D DENSIFY
DEPTH_TO_SPACE DEPTHWISE_CONV_2D DEQUANTIZE DIV ELU EQUAL EXP EXPAND_DIMS FILL FLOOR FULLY_CONNECTED GATHER GREATER
GREATER_EQUAL HARD_SWISH L2_NORMALIZATION L2_POOL_2D LEAKY_RELU LESS LESS_EQUAL LOG LOG_SOFTMAX LOGICAL_AND
LOGICAL_NOT LOGICAL_OR LOGISTIC MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG NOT_EQUAL PACK PAD PADV2 POW PRELU
QUANTIZE REDUCE_ANY REDUCE_MAX REDUCE_MIN REDUCE_PROD RELU RELU6 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR
RESIZE_NEAREST_NEIGHBOR REVERSE_V2 RSQRT SELECT SIN SLICE SOFTMAX SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQRT
SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM TANH TILE TOPK_V2 TRANSPOSE TRANSPOSE_CONV UNPACK
"""

NNAPI = Delegate(
    "NNAPI",
    (
        Rule(
            ("CONV_2D",),
            lambda op: op.groups > 1,
            "the op version of a grouped convolution, 6, is above the highest one taken, 5",
            f"{FILE}, Validate; google-ai-edge/LiteRT 22f0209, tflite/tools/versioning/op_version.cc",
        ),
        Rule(
            ("BATCH_MATMUL",),
            lambda op: op.rank > 4 or _broadcasts(op),
            "both operands must have the same rank, at most 4, and the same leading dimensions",
            f"{FILE}, Validate, IsBroadcastBatchMatMul",
        ),
        Rule(
            ("ADD", "MUL", "SUB", "RESHAPE", "CONCATENATION", "SOFTMAX"),
            lambda op: op.rank > 4,
            "tensors have at most 4 dimensions",
            f"{FILE}, Validate",
        ),
        Rule(
            ("MEAN", "SUM"),
            lambda op: op.outputs[0].shape == (),
            "the result can't be a scalar",
            f"{FILE}, Validate",
        ),
    ),
    takes=frozenset(TAKES.split()),
    takes_source=f"{FILE}, Validate",
    note="NNAPI is deprecated since Android 15; BATCH_MATMUL needs its feature level 6 at least",
)
