"""Writes tiny NOCS scenes: ellipsoids seen by the data sets' cameras, in the data sets' own encodings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from nocsfm_ros.data.folders import NOCS_CAMERA_K, NOCS_REAL_K
from nocsfm_ros.geometry.camera import pixel_rays

SIZE_WH = (440, 330)  # the upper left part of the data sets' pictures, principal point included
SEMI_AXES = np.array([0.3, 0.35, 0.1957]) / (2 * np.linalg.norm([0.3, 0.35, 0.1957]))  # box diagonal 1
GREY = 90


@dataclass(frozen=True)
class Thing:
    """An ellipsoid: its line in meta.txt, its size and where it is."""

    number: int
    class_and_model: str
    T_cam_obj: npt.NDArray[np.float64]
    diagonal_m: float = 0.2


def pose(turn_deg: tuple[float, float, float], t_m: tuple[float, float, float]) -> npt.NDArray[np.float64]:
    """(4, 4) from Euler angles xyz and a translation."""
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = Rotation.from_euler("xyz", turn_deg, degrees=True).as_matrix(), t_m
    return T


def seen(thing: Thing, K: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Depth (H, W) metres, 0 beside the ellipsoid, and centred coordinates (H, W, 3)."""
    R, t, semi = thing.T_cam_obj[:3, :3], thing.T_cam_obj[:3, 3], SEMI_AXES * thing.diagonal_m
    rays, start = pixel_rays(SIZE_WH, K) @ R / semi, -(t @ R) / semi
    a, b, c = (rays**2).sum(-1), rays @ start, start @ start - 1
    root = b**2 - a * c
    depth_m = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, 0)
    return depth_m, (start + rays * depth_m[..., None]) * SEMI_AXES * (depth_m > 0)[..., None]


def write_frame(folder: Path, name: str, things: list[Thing], is_camera: bool = False) -> None:
    """The five files of a frame, things in front of a wall at 1.5 m; later things hide earlier ones."""
    folder.mkdir(parents=True, exist_ok=True)
    K = NOCS_CAMERA_K if is_camera else NOCS_REAL_K
    width, height = SIZE_WH
    rgb = np.full((height, width, 3), GREY, np.uint8)
    depth_mm = np.full((height, width), 32001 if is_camera else 1500, np.int64)
    mask = np.full((height, width), 255, np.uint8)
    coord_rgb = rgb.copy()  # the photo itself, as in REAL275's test scenes
    for thing in things:
        depth_m, nocs = seen(thing, K)
        on = depth_m > 0
        nocs_rgb = np.stack([nocs[..., 0] + 0.5, nocs[..., 1] + 0.5, 0.5 - nocs[..., 2]], axis=-1)
        depth_mm[on], mask[on] = np.rint(1000 * depth_m[on]), thing.number
        coord_rgb[on] = np.rint(255 * nocs_rgb[on])
        rgb[on] = 50 * thing.number
    if is_camera:
        zero, full = np.zeros_like(mask), np.full_like(mask, 255)
        depth = np.dstack([zero, depth_mm // 256, depth_mm % 256, full]).astype(np.uint8)  # OpenCV order
        mask, coord = np.dstack([zero, zero, mask, full]), np.dstack([coord_rgb[..., ::-1], full])
    else:
        depth, coord = depth_mm.astype(np.uint16), coord_rgb[..., ::-1]
    for kind, picture in (("color", rgb[..., ::-1]), ("depth", depth), ("mask", mask), ("coord", coord)):
        cv2.imwrite(str(folder / f"{name}_{kind}.png"), picture)
    lines = [f"{thing.number} {thing.class_and_model}\n" for thing in things]
    (folder / f"{name}_meta.txt").write_text("".join(lines), encoding="utf-8")
