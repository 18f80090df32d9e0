"""What a stereo depth camera (as the RealSense D435) and a colour camera do to a clean rendering."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from nocsfm_ros.types import Float32Array, Float64Array, Uint8Array

BASELINE_M = 0.05
DISPARITY_NOISE_PX = 0.035
EDGE_STEP_M = 0.02
DISPARITY_STEP_PX = 1 / 5
MAX_RANGE_M = 2.0


def sensed_depth_mm(
    depth_m: Float32Array, K: Float64Array, rng: np.random.Generator
) -> npt.NDArray[np.uint16]:
    """(H, W) uint16 millimetres, 0 = none, from a perfect (H, W) depth in metres.

    Noise and steps are constant in disparity, so they grow with z squared, and the noise is smooth over some
    pixels as block matching makes it. Missing are pixels that the second imager cannot see (left of a nearer
    thing), most pixels at depth edges, and some spots.
    """
    height, width = depth_m.shape
    coarse = rng.normal(size=(height // 8, width // 8)).astype(np.float32)
    disparity_error = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * DISPARITY_NOISE_PX
    disparity = K[0, 0] * BASELINE_M / np.where(depth_m > 0, depth_m, np.inf) + disparity_error
    noisy = K[0, 0] * BASELINE_M / np.maximum(np.round(disparity / DISPARITY_STEP_PX), 1) / DISPARITY_STEP_PX
    missing = (depth_m <= 0) | (depth_m > MAX_RANGE_M) | _hidden_from_second_imager(depth_m, K)
    kernel = np.ones((3, 3), np.uint8)
    is_edge = cv2.dilate(depth_m, kernel) - cv2.erode(depth_m, kernel) > EDGE_STEP_M
    ragged = cv2.resize(rng.random((height // 3, width // 3)).astype(np.float32), (width, height)) < 0.6
    spots = cv2.resize(rng.random((height // 12, width // 12)).astype(np.float32), (width, height)) > 0.993
    missing |= (is_edge & ragged) | spots
    return np.where(missing, 0, np.clip(noisy * 1000 + 0.5, 0, 65535)).astype(np.uint16)


def sensed_rgb(rgb: Uint8Array, rng: np.random.Generator, noise: float = 0.8) -> Uint8Array:
    """Slight defocus, then shot noise of `noise` grey levels, as an 8-bit camera delivers it."""
    blurred = cv2.GaussianBlur(rgb, (0, 0), 0.6).astype(np.float64)
    return np.clip(blurred + rng.normal(0, noise, rgb.shape), 0, 255).astype(np.uint8)


def _hidden_from_second_imager(depth_m: Float32Array, K: Float64Array) -> npt.NDArray[np.bool_]:
    """Pixel u lands at u - d in the second imager; it is hidden where something to its right lands left of
    that.
    """
    disparity = K[0, 0] * BASELINE_M / np.where(depth_m > 0, depth_m, np.inf)
    landing = np.arange(depth_m.shape[1]) - disparity
    leftmost = np.minimum.accumulate(landing[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(leftmost < landing - 1.0)
