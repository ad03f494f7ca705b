"""Pointwise, as a batched matrix product: the generated weights are an operand, not a filter. Any batch size."""

from torch import Tensor

from export.lowering.generated import GeneratedConv


class Matmul(GeneratedConv):
    def order(self, kernels: Tensor) -> Tensor:
        return self.layout.matmul_order(kernels, self.geometry.groups)

    def apply_kernels(self, x: Tensor, kernels: Tensor, bias: Tensor) -> Tensor:
        return self.layout.matmul(x, kernels, bias, self.geometry.groups)
