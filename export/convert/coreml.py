"""Static graph -> .mlpackage (an ML program) by coremltools. Works on any OS; only Apple's run the result."""

from pathlib import Path

import torch
from torch import Tensor, nn

from export.convert.options import Options
from export.static import StaticDMF


class _Classifier(nn.Module):
    """Logits, and the probabilities that Core ML's classifier output is made of."""

    def __init__(self, network: StaticDMF) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network(images)
        return logits, logits.softmax(1)


class _Normalized(nn.Module):
    """Pixels 0..255 in, as an image input gives them; the model's mean and std are applied here, per channel."""

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("scale", (1 / (255 * torch.tensor(std, dtype=torch.float64)))[:, None, None].float())
        self.register_buffer("shift", (-torch.tensor(mean).double() / torch.tensor(std))[:, None, None].float())

    scale: Tensor
    shift: Tensor

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        output: Tensor | tuple[Tensor, Tensor] = self.network(images * self.scale + self.shift)
        return output


def convert(graph: StaticDMF, example: Tensor, path: Path, options: Options) -> None:
    """Write the .mlpackage folder for inputs like `example`, (B, 3, H, W). Raises what coremltools raises."""
    import coremltools as ct
    import numpy as np

    module: nn.Module = graph if options.labels is None else _Classifier(graph)
    if options.mean is None or options.std is None:
        image = ct.TensorType("image", tuple(example.shape), np.float32)
    else:
        module = _Normalized(module, options.mean, options.std)
        image = ct.ImageType("image", tuple(example.shape), color_layout=ct.colorlayout.RGB)
    outputs, classifier = [ct.TensorType("logits", dtype=np.float32)], None
    if options.labels is not None:
        outputs.append(ct.TensorType("probabilities", dtype=np.float32))
        classifier = ct.ClassifierConfig(list(options.labels), "label", "probabilities")
    program = torch.export.export(module.eval(), (example,)).run_decompositions({})
    model = ct.convert(
        program,
        convert_to="mlprogram",
        inputs=[image],
        outputs=outputs,
        classifier_config=classifier,
        minimum_deployment_target=getattr(ct.target, f"iOS{options.ios}"),
        compute_precision=ct.precision.FLOAT16 if options.precision == "fp16" else ct.precision.FLOAT32,
        skip_model_load=True,
    )
    model.short_description = options.metadata.get("description", "")
    model.version = options.metadata.get("version", "")
    for key, value in options.metadata.items():
        model.user_defined_metadata[key] = value
    model.save(str(path))
