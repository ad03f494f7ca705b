"""Seeded weights for a detector that nobody has trained, with which it finds objects in some pictures.

Fresh heads are as good as zero: whatever is made of them, the answer is the same.
"""

import torch
from torch import Tensor

from dmf.detection.detector import Detector
from dmf.detection.retinanet import RetinaNet
from dmf.seeded import pictures, seed_weights

# standard deviation of what an output layer gives, roughly, and its bias: some scores and overlaps are high
OUTPUTS = {
    "class_output": (1.0, -7.3),
    "box_output": (0.2, 0.0),
    "rpn.objectness": (1.0, 0.0),
    "rpn.deltas": (0.2, 0.0),
    "box_head.classes": (1.5, 0.0),
    "box_head.deltas": (1.0, 0.0),
    "mask_head.masks": (2.0, 0.0),
}
LARGEST_SIDE = 320  # px, of the pictures that the scores are spread on
USUAL = 7.0  # what layers of random weights give here, without any factor


@torch.no_grad()
def seed_detector(detector: Detector, seed: int) -> Detector:
    """Fill `detector` in place with weights that depend on its config and `seed` only; returned in eval mode."""
    seed_weights(detector.backbone, seed)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in detector.named_parameters():
        layer, _, kind = name.rpartition(".")
        if name.startswith("backbone."):
            continue
        gain, bias = OUTPUTS.get(layer, (USUAL, 0.0))
        noise = torch.randn(parameter.shape, generator=generator)
        if kind == "bias":
            parameter.copy_(bias + 0.2 * noise)
        else:
            parameter.copy_(noise * (2 / parameter[0].numel()) ** 0.5 * gain / USUAL)
    detector.eval()
    if isinstance(detector, RetinaNet):
        height, width = (min(side, LARGEST_SIDE) for side in detector.config.image_size)
        _spread_logits(detector, pictures(2, (height, width), generator))
    return detector


def _spread_logits(detector: RetinaNet, images: Tensor) -> None:
    """Scale the last layer: of many thousand logits, a few in a thousand are to stand for objects.

    In float64, and rounded to float16, so that the order of sums, which differs with the number of threads, can't show.
    """
    weight = detector.class_output.weight
    dtype = weight.dtype
    logits, _ = detector.double()(images.double())
    detector.to(dtype)
    detector.class_output.weight.mul_((OUTPUTS["class_output"][0] / logits.std()).half().item())
