"""3D IoU of the NOCS protocol (H. Wang et al., "Normalized Object Coordinate Space", CVPR 2019).

Compared are not the posed boxes themselves but the boxes around them that are aligned with the camera's axes.

The evaluation code that its authors released takes each corner's range over x, y and z where it means the range of x,
of y and of z over the corners. Many published figures are of that code, so both are given.
"""

from __future__ import annotations

import itertools

import numpy as np

from nocsfm_ros.geometry.symmetry import symmetry_turns
from nocsfm_ros.types import Float64Array

_CORNER_SIGNS = np.array(list(itertools.product((-0.5, 0.5), repeat=3)))
_OVER_CORNERS, _OVER_COORDINATES = 0, 1


def box_iou(
    T_cam_a: Float64Array, T_cam_b: Float64Array, size_a_m: Float64Array, size_b_m: Float64Array, symmetry: int = 1
) -> float:
    """Intersection over union of the camera-aligned boxes around two posed boxes.

    Args:
        T_cam_a, T_cam_b: (4, 4) of the boxes' centres, rigid or with a scale.
        size_a_m, size_b_m: (3,) sides.
        symmetry: number of the object's group, see geometry.symmetry: the best of its turns of box a counts.
    """
    return _best_overlap(T_cam_a, T_cam_b, size_a_m, size_b_m, symmetry, _OVER_CORNERS)


def released_box_iou(
    T_cam_a: Float64Array, T_cam_b: Float64Array, size_a_m: Float64Array, size_b_m: Float64Array, symmetry: int = 1
) -> float:
    """What the released NOCS code answers in place of box_iou: see the module."""
    return _best_overlap(T_cam_a, T_cam_b, size_a_m, size_b_m, symmetry, _OVER_COORDINATES)


def _best_overlap(
    T_cam_a: Float64Array, T_cam_b: Float64Array, size_a_m: Float64Array, size_b_m: Float64Array, symmetry: int,
    axis: int,
) -> float:
    b = _corners(T_cam_b, size_b_m)
    return max(_overlap(_corners(T_cam_a @ turn, size_a_m), b, axis) for turn in symmetry_turns(symmetry))


def _corners(T_cam_box: Float64Array, size_m: Float64Array) -> Float64Array:
    """(8, 3) in the camera."""
    result: Float64Array = (_CORNER_SIGNS * size_m) @ T_cam_box[:3, :3].T + T_cam_box[:3, 3]
    return result


def _overlap(corners_a: Float64Array, corners_b: Float64Array, axis: int) -> float:
    low = np.maximum(corners_a.min(axis), corners_b.min(axis))
    high = np.minimum(corners_a.max(axis), corners_b.max(axis))
    shared = np.prod((high - low).clip(0))
    return float(shared / (np.prod(np.ptp(corners_a, axis)) + np.prod(np.ptp(corners_b, axis)) - shared))
