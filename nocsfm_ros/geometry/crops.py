"""Square crops of a picture, and back."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from nocsfm_ros.errors import ShapeError
from nocsfm_ros.geometry.transforms import rotation_between, transform
from nocsfm_ros.types import BoolArray, BoxXywh, Float32Array, Float64Array, ObjectCrop, Uint8Array

SHRINK_FOR_AREA = 2.0  # beyond it plain bilinear sampling skips pixels
MIN_SHARE = 0.1  # of the mask in a blurred pixel: enough of the object for a colour


def box_from_mask(mask: BoolArray) -> BoxXywh | None:
    """Tight box (x, y, width, height) of the True pixels, from pixel edge to pixel edge; None for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    width, height = float(columns[-1] - columns[0] + 1), float(rows[-1] - rows[0] + 1)
    return float(columns[0]) - 0.5, float(rows[0]) - 0.5, width, height


def square_box(box_xywh: BoxXywh, margin: float) -> BoxXywh:
    """The square about a box's centre with `margin` times its longer side."""
    x, y, w, h = box_xywh
    side = max(w, h) * margin
    return x + w / 2 - side / 2, y + h / 2 - side / 2, side, side


def crop_frame(
    rgb: Uint8Array, depth_m: Float32Array, K: Float64Array, box_xywh: BoxXywh, size: int
) -> ObjectCrop:
    """Cut a square out and resample it to size x size; what hangs out of the picture is black, without depth.

    Args:
        rgb: (H, W, 3) uint8.
        depth_m: (H, W) float32 metres.
        K: (3, 3).
        box_xywh: square, pixel edges as in box_from_mask.
        size: pixels along a side of the crop.
    """
    if rgb.shape[:2] != depth_m.shape or rgb.ndim != 3:
        raise ShapeError("picture and depth", got=(rgb.shape, depth_m.shape), expected="(H, W, 3) and (H, W)")
    x, y, side, _ = box_xywh
    s = size / side
    # u' = s (u - x) - 0.5 with x a pixel edge: edges map to edges
    A = np.array([[s, 0, -s * x - 0.5], [0, s, -s * y - 0.5], [0, 0, 1.0]])
    shrink = side / size
    if shrink > SHRINK_FOR_AREA:
        sigma = 0.5 * np.sqrt(shrink**2 / 4 - 1 / 4)
        left, top = max(0, int(x) - 8), max(0, int(y) - 8)
        right, bottom = min(rgb.shape[1], int(x + side) + 9), min(rgb.shape[0], int(y + side) + 9)
        if right > left and bottom > top:
            rgb = rgb.copy()
            rgb[top:bottom, left:right] = cv2.GaussianBlur(rgb[top:bottom, left:right], (0, 0), sigma)
    return ObjectCrop(
        rgb=cv2.warpAffine(rgb, A[:2], (size, size), flags=cv2.INTER_LINEAR).astype(np.uint8),
        depth_m=cv2.warpAffine(depth_m, A[:2], (size, size), flags=cv2.INTER_NEAREST).astype(np.float32),
        A_crop_image=A, K_crop=A @ K,
    )


def crop_mask(mask: BoolArray, crop: ObjectCrop) -> BoolArray:
    """A mask of the whole picture, seen through the crop's window."""
    side = crop.rgb.shape[0]
    warped = cv2.warpAffine(mask.astype(np.uint8), crop.A_crop_image[:2], (side, side), flags=cv2.INTER_NEAREST)
    result: BoolArray = warped > 0
    return result


def resized_mask(mask_crop: BoolArray, crop: ObjectCrop) -> BoolArray:
    """A mask of the flow's crop, at the size of another crop of the same window."""
    size_wh = crop.rgb.shape[1], crop.rgb.shape[0]
    result: BoolArray = cv2.resize(mask_crop.astype(np.uint8), size_wh, interpolation=cv2.INTER_NEAREST) > 0
    return result


def blurred(rgb: Uint8Array, mask: BoolArray | None, sigma_px: float) -> Float32Array:
    """(H, W, 3) [0, 1] of a (H, W, 3) uint8 picture, smoothed; in and just around a mask by the mask's pixels alone.

    So the colours along an object's border, and all of those of a thin one, have nothing of what lies behind.
    """
    values = rgb.astype(np.float32) / 255
    smooth = cv2.GaussianBlur(values, (0, 0), sigma_px)
    if mask is not None:
        share = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), sigma_px)[..., None]
        inside = cv2.GaussianBlur(values * mask[..., None], (0, 0), sigma_px) / np.maximum(share, MIN_SHARE)
        smooth = np.where(share > MIN_SHARE, inside, smooth)
    return np.asarray(smooth, np.float32)


def paste(
    crop_image: npt.NDArray[Any], A_crop_image: Float64Array, size_wh: tuple[int, int], nearest: bool = False
) -> npt.NDArray[Any]:
    """Undo a crop: (S, S[, C]) -> (H, W[, C]), zeros outside the crop's square."""
    flags = (cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR) | cv2.WARP_INVERSE_MAP
    result: npt.NDArray[Any] = cv2.warpAffine(crop_image, A_crop_image[:2], size_wh, flags=flags)
    return result


def R_ray_cam(K_crop: Float64Array, size: int) -> Float64Array:
    """(3, 3): the smallest turn that brings the crop's central viewing ray to +Z."""
    centre = (size - 1) / 2
    ray = np.array([(centre - K_crop[0, 2]) / K_crop[0, 0], (centre - K_crop[1, 2]) / K_crop[1, 1], 1.0])
    return rotation_between(ray, np.array([0.0, 0.0, 1.0]))


def coordinates(crop: ObjectCrop, T_obj_cam: Float64Array) -> Float32Array:
    """(S, S, 3) float32 metric object coordinates of every pixel of a crop, NaN where there is no depth."""
    side = crop.rgb.shape[0]
    v, u = np.mgrid[:side, :side]
    rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(crop.K_crop).T
    depth_m = np.where(crop.depth_m > 0, crop.depth_m, np.nan)
    return transform(T_obj_cam, (rays * depth_m[..., None]).reshape(-1, 3)).reshape(side, side, 3).astype(np.float32)
