"""A Reference from whatever the user has: one rule of what the object is, for command and ROS service."""

from __future__ import annotations

import logging
import re

import cv2
import numpy as np

from nocsfm_ros.data.pictures import checked_K, depth_m_from_raw
from nocsfm_ros.errors import ConfigError
from nocsfm_ros.types import BoolArray, BoxXywh, Float32Array, Float64Array, Reference, Uint8Array

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
MIN_SIDE, MAX_SIDE = 16, 8192  # pixels; smaller shows nothing, larger is a mistake that eats the memory
MIN_FOREGROUND = 16  # pixels
BORDER_SHARE = 0.1  # width of the ring the background is read from, over the box's shorter side
MIN_STEP_M, MIN_STEP_SHARE = (
    0.01,
    0.015,
)  # this far in front of the background is object: a centimetre, or 1.5 %
MIN_OBJECT_SHARE = 0.03  # of the box; less in front of the background is noise, and the box itself is taken
PLANE_SAMPLES = 64
LITTLE_DEPTH = 0.4  # of the object's pixels: below it much of the surface is not known
MAX_RING_HOLES = 0.2  # above it, pixels without depth are what the background looks like

logger = logging.getLogger(__name__)


def checked_name(object_id: str) -> str:
    """The name itself, if it can be part of a TF frame and of a path. Raises ConfigError."""
    if not NAME.fullmatch(object_id):
        raise ConfigError(
            "object_id",
            got=repr(object_id[:70]),
            expected="at most 64 letters, digits, '_', '-' and '.', a letter or digit first",
            mend="It becomes part of a TF frame's name",
        )
    return object_id


def reference_from_arrays(
    object_id: str,
    rgb: Uint8Array,
    mask: BoolArray | None = None,
    roi: BoxXywh | None = None,
    depth_m: Float32Array | None = None,
    K: Float64Array | None = None,
    T_cam_user: Float64Array | None = None,
) -> Reference:
    """Check a reference and find its object. What was found is logged (INFO) in one sentence.

    The object is, in this order: the mask (inside the roi if both are given); the opaque pixels of an RGBA
    picture; else with depth the connected surface in the roi (the whole picture without one) that stands in
    front of the plane behind it; else the whole roi or picture.

    Args:
        object_id: name, not empty.
        rgb: (H, W, 3) uint8 RGB or (H, W, 4) RGBA.
        mask: (H, W), non-zero on the object.
        roi: x, y, width, height in pixels around the object.
        depth_m: (H, W) metres, registered to rgb; needs K.
        K: (3, 3) intrinsics.
        T_cam_user: (4, 4) pose of the user's own object frame in the reference camera.

    Raises:
        ConfigError: what cannot be used, and the mend.
    """
    if not object_id.strip():
        raise ConfigError("reference, object_id", got=repr(object_id), expected="a name")
    rgb, alpha = _checked_picture(rgb)
    K = None if K is None else checked_K(K, "reference camera")
    depth_m = _checked_depth(depth_m, rgb.shape[:2], K)
    if mask is None and roi is None and alpha is not None:
        mask = alpha
    mask, rule = _foreground(rgb.shape[:2], mask, roi, depth_m)
    _check_foreground(mask, depth_m)
    logger.info("reference %s: %d foreground pixels (%s)", object_id, np.count_nonzero(mask), rule)
    return Reference(object_id, rgb, mask, depth_m, K, _checked_pose(T_cam_user))


def _check_foreground(mask: BoolArray, depth_m: Float32Array | None) -> None:
    num_pixels = int(np.count_nonzero(mask))
    if num_pixels < MIN_FOREGROUND:
        raise ConfigError(
            "reference, foreground",
            got=f"{num_pixels} pixels",
            expected=f"at least {MIN_FOREGROUND}",
            mend="give a mask or box that holds the object",
        )
    if depth_m is not None and np.count_nonzero(depth_m[mask]) < MIN_FOREGROUND:
        raise ConfigError(
            "reference depth",
            got="no valid depth on the object",
            expected="metres on its surface",
            mend="move the object into the sensor's range, or leave the depth out",
        )
    if depth_m is not None and np.mean(depth_m[mask] > 0) < LITTLE_DEPTH:
        logger.warning(
            "reference: only %.0f %% of the object has depth (too near, dark or shiny?); poses will be poor",
            100 * np.mean(depth_m[mask] > 0),
        )


def _checked_picture(rgb: Uint8Array) -> tuple[Uint8Array, BoolArray | None]:
    if rgb.ndim != 3 or rgb.shape[2] not in (3, 4) or rgb.dtype != np.uint8:
        raise ConfigError(
            "reference picture", got=f"{rgb.dtype} of shape {rgb.shape}", expected="uint8 (H, W, 3)"
        )
    height, width = rgb.shape[:2]
    if min(height, width) < MIN_SIDE or max(height, width) > MAX_SIDE:
        raise ConfigError(
            "reference picture",
            got=f"{width}x{height} pixels",
            expected=f"sides of {MIN_SIDE} to {MAX_SIDE} pixels",
            mend="crop or scale the picture",
        )
    alpha = rgb[..., 3] > 127 if rgb.shape[2] == 4 else None
    return np.ascontiguousarray(rgb[..., :3]), alpha if alpha is not None and not alpha.all() else None


def _checked_depth(
    depth_m: Float32Array | None, size_hw: tuple[int, ...], K: Float64Array | None
) -> Float32Array | None:
    if depth_m is None:
        return None
    if K is None:
        raise ConfigError(
            "reference depth",
            got="depth without a camera",
            expected="the intrinsics K too",
            mend="give the camera (--reference-camera, camera_info), or leave the depth out",
        )
    if depth_m.shape != tuple(size_hw):
        raise ConfigError(
            "reference depth",
            got=_size(depth_m.shape),
            expected=f"the picture's {_size(size_hw)}",
            mend="register depth to colour",
        )
    return depth_m_from_raw(depth_m, 1.0)


def _checked_pose(T_cam_user: Float64Array | None) -> Float64Array | None:
    if T_cam_user is None:
        return None
    T = np.asarray(T_cam_user, dtype=np.float64)
    rigid = T.shape == (4, 4) and np.all(np.isfinite(T)) and np.allclose(T[3], [0, 0, 0, 1])
    if not (
        rigid and np.allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-3) and np.linalg.det(T[:3, :3]) > 0
    ):
        raise ConfigError(
            "reference, object pose", got=T.tolist(), expected="a 4x4 rigid transform in metres"
        )
    return T


def _foreground(
    size_hw: tuple[int, ...], mask: BoolArray | None, roi: BoxXywh | None, depth_m: Float32Array | None
) -> tuple[BoolArray, str]:
    box = _box_mask(size_hw, roi)
    if mask is not None:
        if mask.shape != tuple(size_hw):
            raise ConfigError(
                "reference mask", got=_size(mask.shape), expected=f"the picture's {_size(size_hw)}"
            )
        found = (np.asarray(mask) != 0) & box
        if not found.any():
            raise ConfigError(
                "reference mask",
                got="a mask without a single object pixel" + (" inside the box" if roi else ""),
                expected="white on the object, black elsewhere",
            )
        return found, "the mask" if roi is None else "the mask inside the box"
    where = "the whole picture" if roi is None else "the box"
    if depth_m is None:
        return box, f"{where}; a mask or box is better"
    found = _in_front(depth_m, box)
    if np.count_nonzero(found) < max(MIN_OBJECT_SHARE * np.count_nonzero(box), MIN_FOREGROUND):
        return box, f"{where}: its depth shows nothing in front of a background"
    return found, f"what stands in front of the background of {where}"


def _box_mask(size_hw: tuple[int, ...], roi: BoxXywh | None) -> BoolArray:
    height, width = size_hw
    box = np.zeros((height, width), dtype=bool)
    x, y, w, h = roi if roi is not None else (0, 0, width, height)
    if not (np.all(np.isfinite([x, y, w, h])) and w > 0 and h > 0):
        raise ConfigError(
            "reference box", got=f"{x:g},{y:g},{w:g},{h:g}", expected="x,y,width,height in pixels"
        )
    x0, y0, x1, y1 = round(x), round(y), round(x + w), round(y + h)
    box[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = True
    if not box.any():
        raise ConfigError(
            "reference box", got=f"{x:g},{y:g},{w:g},{h:g}", expected=f"a box inside {_size(size_hw)}"
        )
    return box


def _in_front(depth_m: Float32Array, box: BoolArray) -> BoolArray:
    """Pixels of the box in front of the plane seen around it: the connected surface that fills the box best.

    Where the background has depth, pixels without any that touch the surface are object too: sensors lose
    shiny, dark and slanted sides.
    """
    ring, holes = _ring(box), depth_m <= 0
    surface = box & ~holes
    plane = _background_depth(depth_m, ring)
    if plane is not None:
        surface &= depth_m < plane - np.maximum(MIN_STEP_M, MIN_STEP_SHARE * plane)
    core = _best_component(surface, depth_m, box)
    if np.mean(holes[ring]) > MAX_RING_HOLES:
        return core | (_filled(core) & holes)  # a handle's opening has depth and is not filled
    _, labels = cv2.connectedComponents((core | (box & holes)).astype(np.uint8), connectivity=4)
    grown = core | np.isin(labels, np.unique(labels[core]))
    smooth = cv2.morphologyEx(grown.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    return np.asarray(core | smooth.astype(bool))


def _filled(mask: BoolArray) -> BoolArray:
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros(mask.shape, np.uint8), outlines, -1, 1, cv2.FILLED).astype(bool)


def _ring(box: BoolArray) -> BoolArray:
    """Just outside the box; where the box ends at the picture's border, just inside it."""
    rows, columns = np.flatnonzero(box.any(axis=1)), np.flatnonzero(box.any(axis=0))
    width = max(int(BORDER_SHARE * min(len(rows), len(columns))), 2)
    kernel = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    pixels = box.astype(np.uint8)
    ring = cv2.dilate(pixels, kernel) - pixels
    if not ring.any():
        ring = pixels - cv2.erode(pixels, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(ring, dtype=np.bool_)


def _background_depth(depth_m: Float32Array, ring: BoolArray) -> Float64Array | None:
    """(H, W) depth of the plane most of the ring lies on; None when the ring has no depth.

    A plane in space is linear in inverse depth over the picture: 1/z = a u + b v + c.
    """
    v, u = np.nonzero(ring & (depth_m > 0))
    if len(u) < MIN_FOREGROUND:
        return None
    inverse = 1.0 / depth_m[v, u].astype(np.float64)
    design = np.stack([u, v, np.ones_like(u)], axis=1).astype(np.float64)
    generator = np.random.default_rng(0)
    best = np.zeros(len(u), dtype=bool)
    for _ in range(PLANE_SAMPLES):
        picks = generator.choice(len(u), 3, replace=False)
        coefficients, *_ = np.linalg.lstsq(design[picks], inverse[picks], rcond=None)
        inliers = np.abs(design @ coefficients / inverse - 1.0) < MIN_STEP_SHARE
        best = inliers if inliers.sum() > best.sum() else best
    coefficients, *_ = np.linalg.lstsq(design[best], inverse[best], rcond=None)
    rows, columns = np.indices(depth_m.shape)
    return np.asarray(
        1.0 / np.maximum(columns * coefficients[0] + rows * coefficients[1] + coefficients[2], 0.05)
    )


def _best_component(surface: BoolArray, depth_m: Float32Array, box: BoolArray) -> BoolArray:
    """The connected part with most weight, pixels near the box's middle counting most; depth steps cut."""
    step = cv2.morphologyEx(depth_m, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    smooth = surface & (step < np.maximum(2 * MIN_STEP_M, 2 * MIN_STEP_SHARE * depth_m))
    _, labels = cv2.connectedComponents(smooth.astype(np.uint8), connectivity=4)
    rows, columns = np.nonzero(box)
    v, u = np.indices(depth_m.shape)
    half_h, half_w = max(np.ptp(rows) / 2, 1.0), max(np.ptp(columns) / 2, 1.0)
    weight = np.exp(-2 * (((v - rows.mean()) / half_h) ** 2 + ((u - columns.mean()) / half_w) ** 2))
    mass = np.bincount(labels.ravel(), weights=(weight * smooth).ravel())
    if len(mass) < 2:
        return np.asarray(smooth)
    core = (labels == 1 + int(np.argmax(mass[1:]))).astype(np.uint8)
    # The depth step itself was cut away with its pixels: grow back by one into the surface.
    return np.asarray(cv2.dilate(core, np.ones((3, 3), np.uint8)).astype(bool) & surface)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}" if len(shape) >= 2 else f"shape {shape}"
