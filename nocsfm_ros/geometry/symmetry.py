"""Which turns leave an object as it is, as one number, and what they leave of the change between two views.

The groups are those of prisms and of surfaces of revolution about x, y or z: an n-fold or continuous axis, with or
without half-turns about the two axes across it. The number is the fold (1 none, 0 continuous) plus ABOUT[axis], plus
FLIPS with the half-turns. 0, 1, 2, 4 are thus plain folds about y.
"""

from __future__ import annotations

import numpy as np
import torch

from nocsfm_ros.types import Float64Array

NONE, CONTINUOUS = 1, 0
ABOUT = {"y": 0, "z": 32, "x": 64}
FLIPS = 128
CONTINUOUS_TURNS = 20  # that stand for a continuous axis
_FROM_Y = torch.stack([torch.eye(3, dtype=torch.float64).roll(shift, dims=0) for shift in range(3)])  # y to y, z, x
_HALF_TURN = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))  # about x, across y


def nearest_symmetries(R_ref_mesh: torch.Tensor, R_live_mesh: torch.Tensor, symmetry: torch.Tensor) -> torch.Tensor:
    """The turns S of the meshes, out of their symmetry groups, that make the view changes smallest.

    Args:
        R_ref_mesh, R_live_mesh: (B, 3, 3) float64, rotations of the meshes in the two cameras.
        symmetry: (B,) numbers of the groups.

    Returns:
        (B, 4, 4) float64.

    It maximises trace(R_ref S R_live^T) = a cos + b sin + const over the angle, with and without a half-turn.
    """
    from_y = _FROM_Y.to(R_ref_mesh)[symmetry % FLIPS // ABOUT["z"]]
    half_turn = _HALF_TURN.to(R_ref_mesh)
    M = from_y.transpose(1, 2) @ R_live_mesh.transpose(1, 2) @ R_ref_mesh @ from_y
    straight, turned = _nearest_turns(M, symmetry), _nearest_turns(half_turn @ M, symmetry) @ half_turn
    gain = torch.einsum("bij,bji->b", M, turned) - torch.einsum("bij,bji->b", M, straight)
    best = torch.where(((symmetry >= FLIPS) & (gain > 0))[:, None, None], turned, straight)
    T = torch.eye(4, dtype=M.dtype, device=M.device).repeat(len(M), 1, 1)
    T[:, :3, :3] = from_y @ best @ from_y.transpose(1, 2)
    return T


def nearest_symmetry(R_ref_mesh: Float64Array, R_live_mesh: Float64Array, symmetry: int) -> Float64Array:
    """nearest_symmetries of one pair of (3, 3) rotations, as (4, 4)."""
    R_ref, R_live = (torch.from_numpy(np.array(R, np.float64))[None] for R in (R_ref_mesh, R_live_mesh))
    result: Float64Array = nearest_symmetries(R_ref, R_live, torch.tensor([symmetry]))[0].numpy()
    return result


def symmetry_turns(symmetry: int) -> Float64Array:
    """(N, 4, 4) turns that leave an object of this symmetry as it is, the identity first.

    A continuous axis is stood for by CONTINUOUS_TURNS of them.
    """
    fold = symmetry % ABOUT["z"] or CONTINUOUS_TURNS
    angles = torch.arange(fold, dtype=torch.float64) * (2 * np.pi / fold)
    turns = _about_y(angles)
    if symmetry >= FLIPS:
        turns = torch.cat([turns, turns @ _HALF_TURN])
    from_y = _FROM_Y[symmetry % FLIPS // ABOUT["z"]]
    T = np.tile(np.eye(4), (len(turns), 1, 1))
    T[:, :3, :3] = (from_y @ turns @ from_y.T).numpy()
    return T


def _nearest_turns(M: torch.Tensor, symmetry: torch.Tensor) -> torch.Tensor:
    """(B, 3, 3) the turns S about y, of the axes' folds, with the largest trace(M S)."""
    fold = symmetry % ABOUT["z"]
    angle = torch.atan2(M[:, 2, 0] - M[:, 0, 2], M[:, 0, 0] + M[:, 2, 2])
    step = 2 * np.pi / fold.clamp(min=1).to(M.dtype)
    return _about_y(torch.where(fold >= 1, torch.round(angle / step) * step, angle))


def _about_y(angle: torch.Tensor) -> torch.Tensor:
    """(B, 3, 3)"""
    R = torch.zeros((len(angle), 3, 3), dtype=angle.dtype, device=angle.device)
    R[:, 1, 1] = 1
    R[:, 0, 0] = R[:, 2, 2] = angle.cos()
    R[:, 0, 2], R[:, 2, 0] = angle.sin(), -angle.sin()
    return R
