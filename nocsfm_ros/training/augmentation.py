"""What a real camera does to clean renders: light, colour, blur and noise; depth noise, holes, lost and shifted edges.

One picture at a time with OpenCV: measured six times faster on a CPU than batched tensor operations, which
augmentation_torch has for a GPU.
"""

from __future__ import annotations

import cv2
import numpy as np

from nocsfm_ros.types import Float32Array, Uint8Array

LUMA = np.array([0.299, 0.587, 0.114])
EDGE_JUMP_M = 0.02
# Depth lies beside its colour: by all of these pixels where the registration is off, by some more at ragged outlines
MAX_SHIFT_PX, MAX_RAGGED_PX = 2.0, 2.5
HOLE_CELLS = (4, 8, 16)  # bumps along a side: from a glossy face lost as a whole to speckles
# Drawing fresh normal noise for every pixel is slow; a picture gets a random square of one big sheet instead.
NOISE_SHEET = np.random.default_rng(0).normal(size=(1024, 1024, 3)).astype(np.float32)


def augment_each_picture(rgb: Uint8Array, random: np.random.Generator) -> Uint8Array:
    """augment_picture of (B, S, S, 3)."""
    return np.stack([augment_picture(x, random) for x in rgb])


def augment_each_depth(depth_m: Float32Array, random: np.random.Generator) -> Float32Array:
    """augment_depth of (B, S, S)."""
    return np.stack([augment_depth(x, random) for x in depth_m])


def augment_picture(rgb: Uint8Array, random: np.random.Generator) -> Uint8Array:
    """(S, S, 3) uint8 -> the same with random saturation, contrast, gamma, white balance, blur and noise."""
    saturation = 0.0 if random.random() < 0.06 else random.uniform(0.5, 1.4)
    mix = saturation * np.eye(3) + (1 - saturation) * np.ones((3, 1)) * LUMA
    picture = cv2.transform(rgb, mix)
    level = np.linspace(0, 1, 256)[:, None] ** random.uniform(0.6, 1.6)
    level = (level - 0.5) * random.uniform(0.7, 1.3) + 0.5 + random.uniform(-0.1, 0.15)
    table = np.clip(level * random.uniform(0.88, 1.12, 3) * 255, 0, 255).astype(np.uint8)
    picture = cv2.LUT(picture, table[None])
    if random.random() < 0.5:
        picture = cv2.GaussianBlur(picture, (0, 0), random.uniform(0.3, 1.2))
    noisy = picture + _noise(rgb.shape[0], random) * np.float32(random.uniform(0, 10))
    result: Uint8Array = np.clip(noisy, 0, 255).astype(np.uint8)
    return result


def augment_depth(depth_m: Float32Array, random: np.random.Generator) -> Float32Array:
    """(S, S) metres -> the same displaced, with noise that grows with the square of the range, lost edges and holes."""
    side = depth_m.shape[0]
    shifted = _displaced(depth_m, random)
    waves = (_blobs(24, side, random) - 0.5) * np.float32(random.uniform(0, 0.012))
    noise = _noise(side, random)[..., 0] * np.float32(random.uniform(0, 0.003)) + waves
    square = np.ones((3, 3), np.uint8)
    jump = cv2.dilate(shifted, square) - cv2.erode(shifted, square)
    edge_lost = (jump > EDGE_JUMP_M) & (_blobs(20, side, random) < random.uniform(0, 0.9))
    hole = _blobs(int(random.choice(HOLE_CELLS)), side, random) < random.uniform(-0.3, 0.35)
    lost = edge_lost | hole | (shifted <= 0)
    result: Float32Array = np.where(lost, np.float32(0), shifted + noise * shifted**2)
    return result


def _displaced(depth_m: Float32Array, random: np.random.Generator) -> Float32Array:
    """Taken from a few pixels aside: a registration that is off, and outlines as ragged as stereo draws them."""
    side = depth_m.shape[0]
    ragged = random.uniform(0, 2 * MAX_RAGGED_PX)
    u, v = (
        pixel + np.float32(random.uniform(-MAX_SHIFT_PX, MAX_SHIFT_PX)) + (_blobs(24, side, random) - 0.5) * ragged
        for pixel in np.meshgrid(np.arange(side, dtype=np.float32), np.arange(side, dtype=np.float32))
    )
    return np.asarray(cv2.remap(
        depth_m, u.astype(np.float32), v.astype(np.float32), cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE
    ), np.float32)


def _noise(side: int, random: np.random.Generator) -> Float32Array:
    y, x = random.integers(0, NOISE_SHEET.shape[0] - side, 2)
    return NOISE_SHEET[y : y + side, x : x + side]


def _blobs(cells: int, side: int, random: np.random.Generator) -> Float32Array:
    """(side, side) smooth uniform noise of about `cells` bumps along a side."""
    coarse = random.random((cells, cells), dtype=np.float32)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_LINEAR).astype(np.float32)
