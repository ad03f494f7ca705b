"""Static graph -> .tflite by Google's litert-torch.

Pitfall, litert-torch 0.10: it recognises equal constants by the address of their storage, and makes a temporary copy of
a strided one; two strided constants of one shape then become one, silently. So every constant must be contiguous.
"""

from pathlib import Path

from torch import Tensor, nn

from export.convert.options import Options


class _Named(nn.Module):
    """The graph with its outputs named; a signature takes the names from here."""

    def __init__(self, network: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.network, self.names = network, names

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        outputs = self.network(image)
        return dict(zip(self.names, outputs if isinstance(outputs, tuple) else (outputs,), strict=True))


def convert(graph: nn.Module, example: Tensor, path: Path, options: Options) -> None:
    """Write the .tflite file for inputs like `example`. Raises what litert-torch raises, and `RuntimeError`."""
    import litert_torch

    for name, constant in [*graph.named_parameters(), *graph.named_buffers()]:
        if not constant.is_contiguous():
            raise RuntimeError(f"{name} is not contiguous; litert-torch might confuse it with another constant")
    litert_torch.convert(_Named(graph, options.outputs).eval(), sample_kwargs={"image": example}).export(str(path))
