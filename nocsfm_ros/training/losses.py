"""Losses on decoded coordinate maps."""

from __future__ import annotations

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, smooth_l1_loss

COORDINATE_BETA = 0.05  # of the smooth L1: errors beyond this share of the scale count linearly


def foreground_loss(nocs: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean smooth-L1 error of (B, 3, S, S) coordinates over the pixels of mask (B, 1, S, S), per beta."""
    error = smooth_l1_loss(nocs, target, beta=COORDINATE_BETA, reduction="none") * mask
    return error.sum() / (3 * mask.sum()).clamp(min=1) / COORDINATE_BETA


def mask_loss(logit: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Cross-entropy plus soft Dice of (B, 1, S, S) logits: Dice keeps small objects from being ignored."""
    probability = logit.sigmoid()
    overlap = (probability * mask).sum(dim=(1, 2, 3))
    total = (probability + mask).sum(dim=(1, 2, 3))
    dice = 1 - (2 * overlap + 1) / (total + 1)
    return binary_cross_entropy_with_logits(logit, mask) + 0.5 * dice.mean()


def laplace_loss(error: torch.Tensor, log_sigma: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """Negative log likelihood of errors (B, 1, h, w) with the given scale, mean with the weights `where`."""
    return ((error * (-log_sigma).exp() + log_sigma) * where).sum() / where.sum().clamp(min=1)
