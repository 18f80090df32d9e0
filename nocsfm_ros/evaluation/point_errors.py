"""ADD and ADD-S: how far a wrong pose moves the points of the object."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from nocsfm_ros.geometry.symmetry import nearest_symmetry, symmetry_turns
from nocsfm_ros.geometry.transforms import invert, transform
from nocsfm_ros.types import Float64Array


def add_m(T_cam_est: Float64Array, T_cam_true: Float64Array, points_m: Float64Array, symmetry: int = 1) -> float:
    """Mean distance of each point under the two poses, metres; the smallest over the object's symmetry.

    S. Hinterstoisser et al., ACCV 2012. A continuous symmetry is sampled around the turn that makes the rotation error
    smallest.

    Args:
        T_cam_est, T_cam_true: (4, 4) rigid.
        points_m: (N, 3) of the object's surface, in its frame.
        symmetry: number of the object's group, see geometry.symmetry.
    """
    nearest = nearest_symmetry(T_cam_est[:3, :3], T_cam_true[:3, :3], symmetry)
    estimated = T_cam_est @ nearest @ symmetry_turns(symmetry)
    true = transform(T_cam_true, points_m)
    moved = points_m @ estimated[:, :3, :3].transpose(0, 2, 1) + estimated[:, None, :3, 3]
    return float(np.linalg.norm(moved - true, axis=2).mean(axis=1).min())


def adds_m(T_cam_est: Float64Array, T_cam_true: Float64Array, points_m: Float64Array) -> float:
    """Mean distance of each point under the true pose to the nearest one under the estimated pose, metres.

    Arguments as of add_m. Whatever looks the same has no error, be it symmetric or only nearly so.
    """
    distances, _ = cKDTree(points_m).query(transform(invert(T_cam_est) @ T_cam_true, points_m))
    return float(np.mean(distances))


def area_under_curve(errors_m: Float64Array, limit_m: float) -> float:
    """Share in [0, 1]: area under the accuracy (share of errors below a threshold) for thresholds from 0 to a limit.

    Y. Xiang et al., "PoseCNN", RSS 2018, with 10 cm. Infinite errors count as misses.
    """
    return float((1 - errors_m / limit_m).clip(0).mean())
