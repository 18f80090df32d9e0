"""Reading colour, depth and camera files: the one place between files on a disk and arrays in metres."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from nocsfm_ros.errors import ConfigError, FrameError
from nocsfm_ros.types import Float32Array, Float64Array, Uint8Array

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
MILLIMETRE = 0.001


def read_rgb(path: Path) -> Uint8Array:
    """(H, W, 3) uint8 RGB of a picture file; grey and 16-bit pictures are converted, transparency is dropped.

    Raises:
        FrameError: no such file, or not a picture.
    """
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise FrameError(f"picture {path}", got=_why_unreadable(path), expected="a readable PNG or JPEG")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def read_rgb_or_rgba(path: Path) -> Uint8Array:
    """(H, W, 3) uint8 RGB, or (H, W, 4) RGBA where the file has transparency. Raises as read_rgb."""
    raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if raw is None or raw.ndim != 3 or raw.shape[2] != 4 or raw.dtype != np.uint8:
        return read_rgb(path)
    return np.asarray(cv2.cvtColor(raw, cv2.COLOR_BGRA2RGBA), dtype=np.uint8)


def read_depth_m(path: Path, metres_per_unit: float = MILLIMETRE) -> Float32Array:
    """(H, W) float32 metres of a one-channel depth picture, 0 = invalid.

    Raises:
        FrameError: no such file, not a picture, or of more than one channel.
    """
    raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if raw is None:
        raise FrameError(f"depth picture {path}", got=_why_unreadable(path), expected="a readable 16-bit PNG")
    if raw.ndim != 2 or raw.dtype == np.uint8:
        raise FrameError(
            f"depth picture {path}",
            got=f"{raw.dtype} of shape {raw.shape}",
            expected="one 16-bit or float channel",
            mend="8-bit depth is a picture for people: take the raw depth of the camera",
        )
    return depth_m_from_raw(raw, metres_per_unit)


def depth_m_from_raw(raw: np.ndarray, metres_per_unit: float) -> Float32Array:
    """Sensor values (H, W) to float32 metres; NaN, infinite and negative become 0 = invalid."""
    depth_m = raw.astype(np.float32) * np.float32(metres_per_unit)
    return np.where(np.isfinite(depth_m) & (depth_m > 0), depth_m, np.float32(0)).astype(np.float32)


def read_labels(path: Path) -> np.ndarray:
    """(H, W) integer labels of a mask picture; of a colour file its red channel, where NOCS stores them.

    Raises:
        FrameError: no such file, or not a picture.
    """
    raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if raw is None:
        raise FrameError(f"mask {path}", got=_why_unreadable(path), expected="a readable PNG")
    return raw if raw.ndim == 2 else raw[..., 2]


def read_camera(path: Path) -> tuple[Float64Array, float]:
    """K (3, 3) in pixels and metres per unit of depth, of a .json or a .txt of 9 numbers.

    JSON keys: "K" or "cam_K" (9 numbers), or fx, fy, cx, cy; optional "depth_scale" in metres (0.001).

    Raises:
        ConfigError: unreadable, or no usable K.
    """
    try:
        text = path.read_text(encoding="utf-8")
        facts = json.loads(text) if path.suffix == ".json" else {"K": [float(word) for word in text.split()]}
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"camera file {path}", got=error, expected='{"K": [9 numbers]} or 9 numbers'
        ) from error
    if not isinstance(facts, Mapping):
        raise ConfigError(f"camera file {path}", got=type(facts).__name__, expected='{"K": [9 numbers]}')
    return K_from_facts(facts, f"camera file {path}"), _checked_scale(
        facts.get("depth_scale", MILLIMETRE), path
    )


def K_from_facts(facts: Mapping[str, Any], what: str) -> Float64Array:
    """K (3, 3) of a mapping with "K" or "cam_K" or fx, fy, cx, cy. Raises ConfigError."""
    if {"fx", "fy", "cx", "cy"} <= facts.keys():
        numbers = [facts["fx"], 0, facts["cx"], 0, facts["fy"], facts["cy"], 0, 0, 1]
    else:
        numbers = facts.get("K", facts.get("cam_K"))
    try:
        return checked_K(np.asarray(numbers, dtype=np.float64).reshape(3, 3), what)
    except (TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(what, got=numbers, expected="9 numbers row by row, or fx, fy, cx, cy") from error


def checked_K(K: Float64Array, what: str) -> Float64Array:
    """K itself if it is a pinhole matrix in pixels. Raises ConfigError."""
    K = np.asarray(K, dtype=np.float64)
    good = K.shape == (3, 3) and np.all(np.isfinite(K)) and K[0, 0] > 0 and K[1, 1] > 0
    if not (good and np.allclose(K[2], [0, 0, 1])):
        raise ConfigError(
            f"{what}, intrinsics K",
            got=np.array2string(K.ravel(), separator=", "),
            expected="positive focal lengths in pixels and a last row of 0, 0, 1",
            mend="calibrate the camera, or take K from its driver's CameraInfo",
        )
    return K


def pictures_by_stem(folder: Path) -> dict[str, Path]:
    """The picture files of a folder, in the order people count (frame_2 before frame_10); {} without it."""
    if not folder.is_dir():
        return {}
    files = [path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES]
    return {path.stem: path for path in sorted(files, key=lambda path: natural_key(path.stem))}


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sort key under which digits count as numbers."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def check_registered(size_rgb: Iterable[int], size_depth: Iterable[int], what: str) -> None:
    """Both sizes (H, W) must agree. Raises FrameError."""
    rgb_hw, depth_hw = tuple(size_rgb), tuple(size_depth)
    if rgb_hw != depth_hw:
        raise FrameError(
            what,
            got=f"depth of {depth_hw[1]}x{depth_hw[0]} pixels",
            expected=f"the colour picture's {rgb_hw[1]}x{rgb_hw[0]}",
            mend="register depth to colour (camera driver: align_depth.enable, depth_registration)",
        )


def _why_unreadable(path: Path) -> str:
    return "a file that is no picture, or is cut off" if path.is_file() else "no such file"


def _checked_scale(value: Any, path: Path) -> float:
    if isinstance(value, (int, float)) and 0 < value < 10:
        return float(value)
    raise ConfigError(
        f"camera file {path}, depth_scale",
        got=value,
        expected="metres per unit of the depth picture",
        mend="0.001 for millimetres",
    )
