"""Losses of detection, element by element: the caller masks, sums and normalises."""

import torch.nn.functional as F
from torch import Tensor


def sigmoid_focal(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss (Lin et al., 2017, equation 5): logits and targets of 0 or 1, any one shape -> the same shape."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    p = logits.sigmoid()
    miss = p + targets - 2 * p * targets  # 1 - p_t
    weight = alpha * targets + (1 - alpha) * (1 - targets)
    return weight * miss**gamma * cross_entropy


def smooth_l1(inputs: Tensor, targets: Tensor, beta: float = 0.0) -> Tensor:
    """Quadratic below `beta`, linear above (Fast R-CNN, equation 3); L1 where beta is 0, as mmdetection's configs."""
    error = (inputs - targets).abs()
    return error if beta == 0 else (error**2 / (2 * beta)).where(error < beta, error - beta / 2)
