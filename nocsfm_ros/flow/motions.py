"""Motions of live coordinates to those of the object, batched."""

from __future__ import annotations

import torch

RIGID_ROUNDS, RIGID_ERROR = 3, 0.1  # of reweighting, and the error in NOCS at which a pair counts a quarter


def apply_affine(affine: torch.Tensor, xyz: torch.Tensor) -> torch.Tensor:
    """(B, 3, 4) on coordinates (B, 3, h, w)."""
    return (affine[:, :, :3] @ xyz.flatten(2) + affine[:, :, 3:]).view(xyz.shape)


def identity_affine(size: int, device: torch.device) -> torch.Tensor:
    """(size, 3, 4) float32: coordinates as they are."""
    return torch.eye(3, 4, device=device).expand(size, 3, 4)


@torch.no_grad()
def rigid_motion(src: torch.Tensor, dst: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The rotation and shift that take src to dst for most of the pairs.

    Weighted least squares (W. Kabsch, Acta Cryst. 1976), reweighted by the residuals (S. Geman and D. McClure, 1985).

    Args:
        src, dst: (B, N, 3).
        weights: (B, N), not negative.

    Returns:
        (B, 3, 4), and (B,) the share of the weight that is left in the end; no turn where dst is zero everywhere.
    """
    src, dst, weights = src.float(), dst.float(), weights.float() + 1e-8
    w = weights
    for _ in range(RIGID_ROUNDS):
        shares = (w / w.sum(dim=1, keepdim=True))[..., None]
        middle_src, middle_dst = (shares * src).sum(dim=1), (shares * dst).sum(dim=1)
        spread = ((dst - middle_dst[:, None]) * shares).transpose(1, 2) @ (src - middle_src[:, None])
        U, _, Vt = torch.linalg.svd(spread + 1e-7 * torch.eye(3, device=src.device))
        ends = torch.ones_like(middle_src)
        ends[:, 2] = torch.linalg.det(U @ Vt).sign()
        R = U * ends[:, None] @ Vt
        t = middle_dst - (R @ middle_src[..., None])[..., 0]
        squared = (src @ R.transpose(1, 2) + t[:, None] - dst).square().sum(dim=2)
        w = weights / (1 + squared / RIGID_ERROR**2) ** 2
    return torch.cat([R, t[..., None]], dim=2), w.sum(dim=1) / weights.sum(dim=1)
