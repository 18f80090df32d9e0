"""The pinhole camera. An integer pixel coordinate is a pixel centre."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from nocsfm_ros.errors import ShapeError
from nocsfm_ros.types import BoolArray, BoxXywh, Float32Array, Float64Array, RgbdFrame

# (x, y) -> (y, -x), of pixels and of the camera's axes alike: what np.rot90 does to a picture
_QUARTER_TURN = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


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


def rolled(frame: RgbdFrame) -> tuple[RgbdFrame, Float64Array]:
    """What the camera sees after a quarter turn about its axis: the picture as by np.rot90, and T_rolled_cam (4, 4)."""
    A = _QUARTER_TURN + np.array([[0, 0, 0], [0, 0, frame.size_wh[0] - 1], [0, 0, 0]])
    T_rolled_cam = np.eye(4)
    T_rolled_cam[:3, :3] = _QUARTER_TURN
    rgb, depth_m = np.ascontiguousarray(np.rot90(frame.rgb)), np.ascontiguousarray(np.rot90(frame.depth_m))
    return replace(frame, rgb=rgb, depth_m=depth_m, K=A @ frame.K @ _QUARTER_TURN.T), T_rolled_cam


def rolled_box(box_xywh: BoxXywh, width: int) -> BoxXywh:
    """A box of a picture `width` pixels wide, in the picture that `rolled` makes of it."""
    x, y, w, h = box_xywh
    return y, width - 1 - x - w, h, w
