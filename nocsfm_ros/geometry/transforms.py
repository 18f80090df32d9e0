"""Rigid transforms. `T_a_b` maps points of b into a."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from nocsfm_ros.errors import ShapeError
from nocsfm_ros.types import Float64Array


def make_T(R: Float64Array, t: Float64Array) -> Float64Array:
    """(4, 4) from a (3, 3) rotation and a (3,) translation."""
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = R, t
    return T


def invert(T: Float64Array) -> Float64Array:
    """Inverse of a rigid (4, 4) transform."""
    R_inverse = T[:3, :3].T
    return make_T(R_inverse, -R_inverse @ T[:3, 3])


def transform(T: Float64Array, points: Float64Array) -> Float64Array:
    """Map (N, 3) points by a (4, 4) transform."""
    if points.ndim != 2 or points.shape[1] != 3:
        raise ShapeError("points", got=points.shape, expected="(N, 3)")
    result: Float64Array = points @ T[:3, :3].T + T[:3, 3]
    return result


def motion_between(T_from: Float64Array, T_to: Float64Array) -> Float64Array:
    """How a frame moved from one (4, 4) pose to another, both in the same outer frame.

    Returns:
        (6,) shift of its origin in metres, then rotation vector in radians, both along the outer frame's axes.
    """
    turn = Rotation.from_matrix(T_to[:3, :3] @ T_from[:3, :3].T).as_rotvec()
    return np.concatenate([T_to[:3, 3] - T_from[:3, 3], turn])


def moved(T: Float64Array, motion: Float64Array) -> Float64Array:
    """(4, 4) pose after a (6,) motion: ``moved(T_from, motion_between(T_from, T_to))`` is T_to."""
    turn = Rotation.from_rotvec(motion[3:]).as_matrix()
    return make_T(nearest_rotation(turn @ T[:3, :3]), T[:3, 3] + motion[:3])


def rotation_angle_deg(R_a: Float64Array, R_b: Float64Array) -> float:
    """Angle between two (3, 3) rotations, degrees, exact near 0 and 180 as well."""
    R = R_a.T @ R_b
    sine, cosine = np.linalg.norm(R - R.T) / np.sqrt(8), (np.trace(R) - 1) / 2
    return float(np.degrees(np.arctan2(sine, cosine)))


def nearest_rotation(M: Float64Array) -> Float64Array:
    """The rotation nearest to a (3, 3) matrix in the Frobenius norm (orthogonal Procrustes)."""
    U, _, Vt = np.linalg.svd(M)
    flip = np.diag([1.0, 1.0, np.sign(np.linalg.det(U @ Vt))])
    result: Float64Array = U @ flip @ Vt
    return result


def cross(a: npt.ArrayLike, b: npt.ArrayLike) -> Float64Array:
    """The cross product of two vectors (3,): np.cross takes ten times as long for so few numbers."""
    (ax, ay, az), (bx, by, bz) = np.asarray(a, np.float64).tolist(), np.asarray(b, np.float64).tolist()
    return np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])


def rotation_between(a: Float64Array, b: Float64Array) -> Float64Array:
    """The smallest rotation that turns direction a (3,) into direction b (3,); not defined for opposite ones."""
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    cosine = float(a @ b)
    if cosine < -1 + 1e-9:
        raise ValueError("rotation_between: the directions are opposite, expected any other angle")
    v = cross(a, b)
    skew = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    result: Float64Array = np.eye(3) + skew + skew @ skew / (1 + cosine)
    return result


def quat_xyzw_from_rotation(R: Float64Array) -> Float64Array:
    """(4,) unit quaternion, ROS order."""
    result: Float64Array = Rotation.from_matrix(R).as_quat()
    return result


def rotation_from_quat_xyzw(quat_xyzw: Float64Array) -> Float64Array:
    """(3, 3) rotation of a quaternion in ROS order; it need not be of unit length."""
    result: Float64Array = Rotation.from_quat(quat_xyzw).as_matrix()
    return result
