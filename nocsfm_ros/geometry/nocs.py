"""Normalised object coordinates: the only file that knows their ranges.

Centred coordinates lie in [-0.5, 0.5]; 1 is the diagonal of the object's tight box. ``nocs_rgb`` is nocs + 0.5.
"""

from __future__ import annotations

import numpy as np

from nocsfm_ros.errors import ShapeError
from nocsfm_ros.geometry.transforms import rotation_between
from nocsfm_ros.types import Float32Array, Float64Array, SimilarityPose

# One view shows the near half of an object. Half as much again as the visible box's diagonal leaves room for the
# far side: a cube seen face-on ends at coordinate 0.47.
VISIBLE_TO_FULL_DIAGONAL = 1.5
ROBUST_PERCENTILES = (2.0, 98.0)


def nocs_rgb_from_nocs(nocs: Float32Array) -> Float32Array:
    """Centred coordinates -> [0, 1] for files and display."""
    return (np.clip(nocs, -0.5, 0.5) + 0.5).astype(np.float32)


def nocs_from_nocs_rgb(nocs_rgb: Float32Array) -> Float32Array:
    """[0, 1] -> centred coordinates."""
    return (nocs_rgb - 0.5).astype(np.float32)


def anchored_frame(points_cam: Float64Array, ray_dir: Float64Array) -> SimilarityPose:
    """The object frame that a reference fixes, as a pose in the reference camera.

    Axes: those of the camera, turned by the smallest rotation that brings the crop's viewing ray to +Z. Origin: the
    middle of the visible cloud's robust box. Scale: VISIBLE_TO_FULL_DIAGONAL times that box's diagonal.

    Args:
        points_cam: (N, 3) metres, the visible object.
        ray_dir: (3,) the viewing ray of the crop's centre, in the camera; need not be of unit length.
    """
    if points_cam.ndim != 2 or points_cam.shape[1] != 3 or len(points_cam) == 0:
        raise ShapeError("visible cloud", got=points_cam.shape, expected="(N, 3), N > 0")
    R_ray_cam = rotation_between(np.asarray(ray_dir, dtype=np.float64), np.array([0.0, 0.0, 1.0]))
    low, high = np.percentile(points_cam @ R_ray_cam.T, ROBUST_PERCENTILES, axis=0)
    diagonal_m = max(float(np.linalg.norm(high - low)), 1e-3)
    return SimilarityPose(R_ray_cam.T, R_ray_cam.T @ ((low + high) / 2), VISIBLE_TO_FULL_DIAGONAL * diagonal_m)


def points_from_nocs(nocs: Float32Array, scale_m: float) -> Float64Array:
    """(..., 3) centred coordinates -> metres in the object frame."""
    return nocs.astype(np.float64) * scale_m
