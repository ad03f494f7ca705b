"""One operation as a delegate sees it: read from an artifact, or predicted from the graph before there is one."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Value:
    """A tensor: its shape, and whether it is a constant of the file."""

    shape: tuple[int, ...]
    constant: bool = False


@dataclass(frozen=True)
class Op:
    """`kind` is the format's own name: CONV_2D of TFLite, conv of Core ML.

    `scope` names the modules that were called, which is all that a file can know: a list of modules is not called, so
    `blocks.0.dw_conv` has the scope `0.dw_conv`.
    """

    kind: str
    module: str
    scope: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    groups: int = 1  # of a convolution
    dilation: int = 1  # of a convolution
    step: int = 1  # of a slice, the largest
    int8: bool = False  # what it takes

    @property
    def rank(self) -> int:
        """The highest of its inputs and outputs."""
        return max(len(value.shape) for value in (*self.inputs, *self.outputs))

    def computes(self, index: int) -> bool:
        """Whether there is such an input, and it is not a constant."""
        return index < len(self.inputs) and not self.inputs[index].constant
