"""Frames of a folder of pictures: plain (rgb/, depth/, camera.json), BOP scenes and NOCS scenes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from nocsfm_ros.data import pictures
from nocsfm_ros.errors import ConfigError, FrameError
from nocsfm_ros.types import BoolArray, Float32Array, Float64Array, RgbdFrame

NOMINAL_RATE_HZ = 30.0  # folders carry no clock: their stamps count frames at this rate
PLAIN_MASK_FOLDERS = ("masks", "mask", "semantic", "instance")
PLAIN_CAMERA_FILES = ("camera.json", "cam_K.txt")
NOCS_REAL_K = np.array([[591.0125, 0, 322.525], [0, 590.16775, 244.11084], [0, 0, 1]])
NOCS_CAMERA_K = np.array([[577.5, 0, 319.5], [0, 577.5, 239.5], [0, 0, 1]])
NOCS_COLOUR = "_color.png"
NOCS_BACKGROUND = 255
NOCS_CAMERA_NO_DEPTH = 32001


@dataclass(frozen=True)
class Entry:
    """One frame's files. `metres_per_unit` is of the depth picture; `order` counts skipped pictures too."""

    name: str
    rgb: Path
    depth: Path
    K: Float64Array
    metres_per_unit: float
    order: int


class PictureFolder:
    """Frames of a plain folder; the base of the other two.

    Masks: label pictures of the same stem in masks/, mask/, semantic/ or instance/; 0 is background, any
    other value an object's number.
    """

    rate_hz = NOMINAL_RATE_HZ

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []
        self._entries = self._read_entries()
        if not self._entries:
            raise ConfigError(
                f"source {path}",
                got="no colour picture with a depth picture",
                expected="at least one frame",
                mend="pairs share their file name: rgb/0001.jpg and depth/0001.png",
            )

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[RgbdFrame]:
        return (self.frame(index) for index in range(len(self)))

    def name(self, index: int) -> str:
        """File stem of a frame."""
        return self._entries[index].name

    def frame(self, index: int) -> RgbdFrame:
        """The frame at a 0-based index. Raises FrameError for an unreadable or unregistered one."""
        entry = self._entries[index]
        rgb, depth_m = pictures.read_rgb(entry.rgb), self._depth_m(entry)
        pictures.check_registered(rgb.shape[:2], depth_m.shape, f"frame {entry.name} of {self.path}")
        return RgbdFrame(
            rgb, depth_m, entry.K, stamp_ns=round(entry.order * 1e9 / self.rate_hz), frame_id="camera"
        )

    def objects(self, index: int) -> list[int]:
        """Numbers of the objects that have a mask in this frame."""
        labels = self._labels(self._entries[index])
        return [] if labels is None else [int(value) for value in np.unique(labels) if value != 0]

    def mask(self, index: int, object_number: int) -> BoolArray | None:
        """(H, W) bool mask of an object, or None where this frame has none.

        Several things of one kind in semantic/ are told apart by instance/ beside it: the largest is taken.
        """
        labels = self._labels(self._entries[index])
        mask = None if labels is None else labels == object_number
        if mask is None or not mask.any():
            return None
        instance_file = self.path / "instance" / f"{self.name(index)}.png"
        if instance_file.is_file():
            instances = pictures.read_labels(instance_file)
            mask &= instances == np.bincount(instances[mask]).argmax()
        return mask

    def _read_entries(self) -> list[Entry]:
        camera = next((self.path / name for name in PLAIN_CAMERA_FILES if (self.path / name).is_file()), None)
        if camera is None:
            raise ConfigError(
                f"source {self.path}", got="no camera file", expected='camera.json with {"K": [...]}'
            )
        K, metres_per_unit = pictures.read_camera(camera)
        return self._pair(lambda _: (K, metres_per_unit))

    def _pair(self, camera_of: Callable[[str], tuple[Float64Array, float]]) -> list[Entry]:
        colour_folder = "rgb" if (self.path / "rgb").is_dir() else "gray"
        colours = pictures.pictures_by_stem(self.path / colour_folder)
        depths = pictures.pictures_by_stem(self.path / "depth")
        self._note_skipped(len(colours.keys() - depths.keys()))
        entries = []
        for order, (stem, colour) in enumerate(colours.items()):
            if stem in depths:
                K, metres_per_unit = camera_of(stem)
                entries.append(Entry(stem, colour, depths[stem], K, metres_per_unit, order))
        return entries

    def _note_skipped(self, num_skipped: int) -> None:
        if num_skipped:
            self.notes.append(f"{num_skipped} colour pictures without depth were skipped")

    def _depth_m(self, entry: Entry) -> Float32Array:
        return pictures.read_depth_m(entry.depth, entry.metres_per_unit)

    def _labels(self, entry: Entry) -> np.ndarray | None:
        files = (self.path / folder / f"{entry.name}.png" for folder in PLAIN_MASK_FOLDERS)
        found = next((file for file in files if file.is_file()), None)
        return None if found is None else pictures.read_labels(found)


class BopScene(PictureFolder):
    """A BOP scene: rgb/ (or gray/), depth/, scene_camera.json, optional scene_gt.json with mask_visib/."""

    def _read_entries(self) -> list[Entry]:
        cameras = self._read_json("scene_camera.json")
        gt = self._read_json("scene_gt.json") if (self.path / "scene_gt.json").is_file() else {}
        self._gt: dict[int, list[dict[str, Any]]] = {int(image): items for image, items in gt.items()}
        by_number = {int(image): facts for image, facts in cameras.items()}

        def camera_of(stem: str) -> tuple[Float64Array, float]:
            facts = by_number.get(int(stem)) if stem.isdigit() else None
            if facts is None:
                raise ConfigError(
                    f"{self.path}/scene_camera.json", got=f"no image {stem}", expected="one entry each"
                )
            # BOP's depth_scale brings the picture to millimetres.
            K = pictures.K_from_facts(facts, f"{self.path}/scene_camera.json image {stem}")
            return K, float(facts.get("depth_scale", 1.0)) * pictures.MILLIMETRE

        return self._pair(camera_of)

    def objects(self, index: int) -> list[int]:
        """BOP object ids with a mask in this frame, each once."""
        if not (self.path / "mask_visib").is_dir():
            return []
        return sorted({int(item["obj_id"]) for item in self._items(index)})

    def mask(self, index: int, object_number: int) -> BoolArray | None:
        """The visible mask of the first instance of an object id that can be seen."""
        for instance, item in enumerate(self._items(index)):
            mask = self._instance_mask(index, instance) if int(item["obj_id"]) == object_number else None
            if mask is not None and mask.any():
                return mask
        return None

    def _items(self, index: int) -> list[dict[str, Any]]:
        return self._gt.get(int(self.name(index)), [])

    def _instance_mask(self, index: int, instance: int) -> BoolArray | None:
        file = self.path / "mask_visib" / f"{int(self.name(index)):06d}_{instance:06d}.png"
        return pictures.read_labels(file) > 0 if file.is_file() else None

    def _read_json(self, name: str) -> dict[str, Any]:
        try:
            tree = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{self.path / name}", got=error, expected="a readable BOP scene file"
            ) from error
        if not isinstance(tree, dict):
            raise ConfigError(
                f"{self.path / name}", got=type(tree).__name__, expected="a mapping of image numbers"
            )
        return tree


class NocsScene(PictureFolder):
    """A scene folder of CAMERA or REAL275 (Wang et al. 2019): NNNN_color.png, _depth.png, _mask.png.

    CAMERA depth knows only the pasted objects; where the composed depth of the whole scene lies beside the
    data set (camera_full_depths/<split>/<scene>/NNNN_composed.png) or in the scene folder, it is taken.

    Attributes:
        is_camera: the scene is of CAMERA, not of REAL275.
    """

    def _read_entries(self) -> list[Entry]:
        colours = sorted(self.path.glob(f"*{NOCS_COLOUR}"))
        self.is_camera = self._has_camera_depth()
        K = NOCS_CAMERA_K if self.is_camera else NOCS_REAL_K
        entries = []
        for order, colour in enumerate(colours):
            name = colour.name[: -len(NOCS_COLOUR)]
            depth = self._depth_file(name)
            if depth.is_file():
                entries.append(Entry(name, colour, depth, K, pictures.MILLIMETRE, order))
        self._note_skipped(len(colours) - len(entries))
        return entries

    def _depth_file(self, name: str) -> Path:
        tail = Path(self.path.parent.name, self.path.name, f"{name}_composed.png")
        beside = [root / "camera_full_depths" / tail for root in self._roots()]
        composed = [self.path / tail.name, *beside]
        return next((file for file in composed if file.is_file()), self.path / f"{name}_depth.png")

    def _roots(self) -> list[Path]:
        """Where the data set's other folders may lie: beside real_test/ and train/, or beside Real/ and CAMERA/."""
        return list(self.path.resolve().parents[1:3])

    def _has_camera_depth(self) -> bool:
        # Only CAMERA's own depth has several 8-bit channels: the scene's first one says which camera it is.
        first = min(self.path.glob("*_depth.png"), default=None)
        raw = None if first is None else cv2.imread(str(first), cv2.IMREAD_UNCHANGED)
        return raw is not None and raw.ndim == 3

    def _depth_m(self, entry: Entry) -> Float32Array:
        raw = cv2.imread(str(entry.depth), cv2.IMREAD_UNCHANGED)
        if raw is None or raw.ndim != 3:
            return pictures.read_depth_m(entry.depth, entry.metres_per_unit)
        if raw.dtype != np.uint8:
            raise FrameError(
                f"NOCS depth {entry.depth}", got=raw.dtype, expected="8-bit channels or one of 16 bit"
            )
        millimetres = 256 * raw[..., 1].astype(np.int32) + raw[..., 2]  # OpenCV order: green, red
        millimetres[millimetres == NOCS_CAMERA_NO_DEPTH] = 0
        return pictures.depth_m_from_raw(millimetres, entry.metres_per_unit)

    def _labels(self, entry: Entry) -> np.ndarray | None:
        file = self.path / f"{entry.name}_mask.png"
        if not file.is_file():
            return None
        labels = pictures.read_labels(file)
        return np.where(labels == NOCS_BACKGROUND, 0, labels)


def scene_folders(root: Path) -> list[Path]:
    """The NOCS and BOP scenes at or below a folder, in the order people count; those of no kind known are passed by."""
    scenes = []
    for folder, subfolders, files in os.walk(root, followlinks=True):
        if "scene_camera.json" in files or any(name.endswith(NOCS_COLOUR) for name in files):
            scenes.append(Path(folder))
            subfolders.clear()
    return sorted(scenes, key=lambda scene: [pictures.natural_key(part) for part in scene.parts])
