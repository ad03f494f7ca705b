"""Pointwise, as a batched matrix product: the generated weights are an operand, not a filter. Any batch size."""

from torch import Tensor

from export.lowering.generated import GeneratedConv


class Matmul(GeneratedConv):
    def order(self, kernels: Tensor) -> Tensor:
        return self.layout.matmul_order(kernels, self.geometry.groups)

    def convolve(self, x: Tensor, kernels: Tensor) -> Tensor:
        y = self.layout.matmul(x, kernels, self.shape[0], self.geometry.groups)
        return y + self.layout.per_channel(self.bias)
