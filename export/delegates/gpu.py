"""TFLite's GPU delegate (OpenCL, OpenGL, Metal). From its source; not run here."""

from export.delegates.op import Op
from export.delegates.rule import Delegate, Rule

BUILDER = "google-ai-edge/LiteRT 34ec5ba, tflite/delegates/gpu/common/model_builder.cc"
CHECKS = "google-ai-edge/LiteRT 007226f, tflite/tools/versioning/gpu_compatibility.cc"


def _reads_a_batched_constant(op: Op) -> bool:
    """A product takes a constant only as its second operand, and only a matrix."""
    first, second = op.inputs[:2]
    return first.constant or (second.constant and len(second.shape) != 2)


def _can_not_broadcast(op: Op) -> bool:
    """Operands of different ranks, neither a vector nor a scalar, in none of the forms that are allowed."""
    short, long = sorted((value.shape for value in op.inputs[:2]), key=len)
    if len(short) < 2 or len(short) == len(long):
        return False
    if len(long) != 4:
        return True
    batch_of_one = long[0] == 1 and (len(short) == 3 or short == (1, 1))
    per_channel = len(short) == 2 and short == (long[0], long[3])
    return not (batch_of_one or per_channel)


TAKES = """
ABS ADD ADD_N AVERAGE_POOL_2D BATCH_MATMUL CAST CONCATENATION CONV_2D COS CUMSUM DENSIFY DEPTH_TO_SPACE
DEPTHWISE_CONV_2D DIV ELU EQUAL EXP FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED GATHER GELU GREATER GREATER_EQUAL
HARD_SWISH LEAKY_RELU LESS LESS_EQUAL LOG LOGICAL_AND LOGISTIC LSTM MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL
NEG NOT_EQUAL ONE_HOT PACK PAD PADV2 POW PRELU REDUCE_MAX REDUCE_MIN REDUCE_PROD RELU RELU6 RELU_0_TO_1 RELU_N1_TO_1
RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR RSQRT SELECT SELECT_V2 SIGN SIN SLICE SOFTMAX SPACE_TO_DEPTH SPLIT
SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE STRIDED_SLICE SUB SUM TANH TILE TRANSPOSE TRANSPOSE_CONV UNPACK
"""

GPU = Delegate(
    "TFLite's GPU delegate",
    (
        Rule((), lambda op: op.rank > 4, "tensors have at most 4 dimensions", f"{BUILDER}, IsAllAllowedTensors"),
        Rule(
            ("CONV_2D",),
            lambda op: op.computes(1) and op.groups > 1,
            "a computed filter can't be grouped",
            f"{BUILDER}, Conv2DOperationParser::Parse",
            stops=True,
        ),
        Rule(
            ("CONV_2D", "DEPTHWISE_CONV_2D"),
            lambda op: op.computes(1) and op.computes(2),
            "of filter and bias only one may be computed",
            f"{CHECKS}, CheckConvoultionInputOutput",
        ),
        Rule(
            ("BATCH_MATMUL",),
            _reads_a_batched_constant,
            "a product takes a constant only as its second operand, and only of two dimensions",
            f"{BUILDER}, BatchedMatMulOperationParser::Parse",
            stops=True,
        ),
        Rule(
            ("FULLY_CONNECTED",),
            lambda op: op.computes(1) and op.computes(2),
            "of weights and bias only one may be computed",
            f"{CHECKS}, CheckGpuDelegateCompatibility",
        ),
        Rule(
            ("ADD", "MUL"),
            _can_not_broadcast,
            "of different ranks only (1, h, w, c) and (h, w, c) or (1, 1), and (b, h, w, c) and (b, c) broadcast",
            f"{CHECKS}, CheckAddMulBroadcastCompatibility",
        ),
        Rule(
            ("SLICE", "STRIDED_SLICE"),
            lambda op: len(op.inputs[0].shape) not in (3, 4),
            "only tensors of 3 or 4 dimensions are sliced",
            f"{CHECKS}, CheckGpuDelegateCompatibility",
        ),
        Rule(
            ("PAD",),
            lambda op: len(op.inputs[0].shape) not in (3, 4),
            "only tensors of 3 or 4 dimensions are padded",
            f"{CHECKS}, CheckGpuDelegateCompatibility",
        ),
    ),
    takes=frozenset(TAKES.split()),
    takes_source=f"{BUILDER}, NewOperationParser",
    note="by default only the largest partition goes to the GPU (GetOpsToReplace). LiteRT's newer accelerator, "
    "ml_drift, does not refuse a grouped convolution with a computed filter but takes it for an ungrouped one "
    "(google-ai-edge/LiteRT 54dc8fd, ml_drift/tflite/convert/convert_conv.cc, ConvertConv)",
)
