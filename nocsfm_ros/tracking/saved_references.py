"""References that outlive the process: one folder each, of files that a person can also make by hand.

``<folder>/<object_id>/rgb.png`` (or a .jpg) and ``mask.png``, white on the object; with depth also ``depth.png`` and
``camera.json`` ("K" or fx, fy, cx, cy; "depth_scale" in metres; optional "T_cam_user", 4x4, the user's own frame).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from nocsfm_ros.data.pictures import (
    MILLIMETRE,
    PICTURE_SUFFIXES,
    pictures_by_stem,
    read_camera,
    read_depth_m,
    read_labels,
    read_rgb_or_rgba,
)
from nocsfm_ros.errors import ConfigError, NocsfmError
from nocsfm_ros.tracking.reference import checked_name, reference_from_arrays
from nocsfm_ros.types import Float64Array, Reference

STEMS, CAMERA = ("rgb", "mask", "depth"), "camera.json"
RGB, MASK, DEPTH = STEMS
FILES = (f"{RGB}.png", f"{MASK}.png", f"{DEPTH}.png", CAMERA)
DEPTH_STEP_M = 1e-4  # of a saved depth picture, where its 16 bits reach so far


def save_reference(folder: Path, reference: Reference) -> Path:
    """Write a reference, whole or not at all, in place of one of the same name; what else lies there is kept.

    Returns:
        Its own folder.

    Raises:
        ConfigError: its name cannot be one of a folder.
        OSError: the folder cannot be written.
    """
    target = folder / checked_name(reference.object_id)
    part, old = (folder / f".{target.name}.{ending}" for ending in ("part", "old"))
    for leftover in (part, old):
        shutil.rmtree(leftover, ignore_errors=True)
    part.mkdir(parents=True)
    _write_png(part / f"{RGB}.png", cv2.cvtColor(reference.rgb, cv2.COLOR_RGB2BGR))
    _write_png(part / f"{MASK}.png", reference.mask.astype(np.uint8) * 255)
    facts: dict[str, Any] = {}
    if reference.K is not None:
        facts["K"] = reference.K.ravel().tolist()
    if reference.T_cam_user is not None:
        facts["T_cam_user"] = reference.T_cam_user.tolist()
    if reference.depth_m is not None:
        step_m = max(DEPTH_STEP_M, float(reference.depth_m.max()) / np.iinfo(np.uint16).max)
        facts["depth_scale"] = step_m
        _write_png(part / f"{DEPTH}.png", np.rint(reference.depth_m / step_m).astype(np.uint16))
    if facts:
        (part / CAMERA).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    if target.exists():
        for other in [file for file in target.iterdir() if not _is_ours(file)]:
            other.rename(part / other.name)
        target.rename(old)
    part.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    return target


def saved_references(folder: Path) -> list[Path]:
    """The folders of the references in a folder, in the order of their names."""
    for old in folder.glob(".*.old"):  # a kill while it was being replaced
        target = folder / old.name[1 : -len(".old")]
        if not target.exists():
            old.rename(target)
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def read_reference(path: Path) -> Reference:
    """One of saved_references. Raises ConfigError where it cannot be used."""
    try:
        return _read(path)
    except NocsfmError as error:
        raise ConfigError(f"saved reference {path}", got=error, expected=f"a folder of {', '.join(FILES)}",
                          mend="mend it, or move it away") from error


def forget_reference(folder: Path, object_id: str) -> None:
    """Delete the files of a saved reference, and its folder where nothing else lies in it. Raises as save_reference."""
    path = folder / checked_name(object_id)
    if not path.is_dir():
        return
    # the colours first: without its mask what is left would be a reference of the whole picture
    for file in sorted(filter(_is_ours, path.iterdir()), key=lambda file: file.stem != RGB):
        file.unlink()
    if not any(path.iterdir()):
        path.rmdir()


def _is_ours(file: Path) -> bool:
    return file.name == CAMERA or (file.stem in STEMS and file.suffix.lower() in PICTURE_SUFFIXES)


def _read(path: Path) -> Reference:
    pictures = pictures_by_stem(path)
    if RGB not in pictures:
        raise ConfigError("picture", got="no rgb.png", expected="one")
    mask = read_labels(pictures[MASK]) > 0 if MASK in pictures else None
    K, depth_m, T_cam_user = None, None, None
    if (path / CAMERA).is_file():
        K, step_m, T_cam_user = _read_camera(path / CAMERA)
        depth_m = read_depth_m(pictures[DEPTH], step_m) if DEPTH in pictures else None
    elif DEPTH in pictures:
        raise ConfigError("depth", got="depth without camera.json", expected="the camera's K too")
    rgb = read_rgb_or_rgba(pictures[RGB])
    return reference_from_arrays(checked_name(path.name), rgb, mask, None, depth_m, K, T_cam_user)


def _read_camera(path: Path) -> tuple[Float64Array | None, float, Float64Array | None]:
    """K, metres per unit of depth, and the pose of the user's frame, as far as they are there. Raises ConfigError."""
    try:
        facts = dict(json.loads(path.read_text(encoding="utf-8")))
        T_cam_user = np.reshape(facts["T_cam_user"], (4, 4)).astype(np.float64) if "T_cam_user" in facts else None
    except (OSError, TypeError, ValueError) as error:
        raise ConfigError(f"camera file {path}", got=error,
                          expected="JSON; T_cam_user of 4 rows of 4 numbers") from error
    if facts.keys() <= {"T_cam_user"}:
        return None, MILLIMETRE, T_cam_user
    return *read_camera(path), T_cam_user


def _write_png(path: Path, picture: np.ndarray) -> None:  # type: ignore[type-arg]
    if not cv2.imwrite(str(path), picture):
        raise OSError(f"cannot write {path}")
