"""The pinhole camera. An integer pixel coordinate is a pixel centre."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nocsfm_ros.errors import ShapeError
from nocsfm_ros.types import BoolArray, Float32Array, Float64Array


def backproject(
    depth_m: Float32Array, K: Float64Array, mask: BoolArray | None = None
) -> tuple[Float64Array, npt.NDArray[np.int64]]:
    """Every pixel with depth (and in the mask) as a point.

    Args:
        depth_m: (H, W) metres along the optical axis, 0 = invalid.
        K: (3, 3).
        mask: (H, W) bool.

    Returns:
        points_cam (N, 3) metres and pixels_uv (N, 2), x right, y down.
    """
    if depth_m.ndim != 2 or (mask is not None and mask.shape != depth_m.shape):
        raise ShapeError("depth and mask", got=(depth_m.shape, None if mask is None else mask.shape),
                         expected="(H, W) both")
    valid = depth_m > 0 if mask is None else (depth_m > 0) & mask
    v, u = np.nonzero(valid)
    z = depth_m[v, u].astype(np.float64)
    points_cam = np.stack([(u - K[0, 2]) / K[0, 0] * z, (v - K[1, 2]) / K[1, 1] * z, z], axis=1)
    return points_cam, np.stack([u, v], axis=1)


def project(points_cam: Float64Array, K: Float64Array) -> Float64Array:
    """(N, 3) metres -> (N, 2) pixels, not rounded; points at or behind the camera give NaN."""
    z = np.where(points_cam[:, 2:] > 0, points_cam[:, 2:], np.nan)
    result: Float64Array = (points_cam @ K.T)[:, :2] / z
    return result


def depth_at(depth_m: Float32Array, pixels_uv: Float64Array) -> Float64Array:
    """(N,) depth of (H, W) metres at the nearest pixels of (N, 2); 0 outside the picture and for NaN."""
    cells = np.rint(np.nan_to_num(pixels_uv, nan=-1e6)).astype(int)
    height, width = depth_m.shape
    inside = (cells >= 0).all(axis=1) & (cells[:, 0] < width) & (cells[:, 1] < height)
    values = np.zeros(len(cells))
    values[inside] = depth_m[cells[inside, 1], cells[inside, 0]]
    return values


def pixel_rays(size_wh: tuple[int, int], K: Float64Array) -> Float64Array:
    """(H, W, 3) the viewing ray of every pixel centre, z = 1: times the depth it is the point."""
    v, u = np.mgrid[: size_wh[1], : size_wh[0]]
    return np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(u.shape)], axis=-1)
