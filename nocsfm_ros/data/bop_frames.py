"""Labelled frames of BOP scenes: instances with masks and poses, in a centred frame whose y is the symmetry axis.

https://github.com/thodan/bop_toolkit/blob/master/docs/bop_datasets_format.md. Needs rgb/ (or gray/), depth/,
mask_visib/, scene_camera.json and scene_gt.json; scene_gt_info.json says how much of each instance is seen; the
models' sizes and symmetries are in models/models_info.json beside the split folders.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nocsfm_ros.data.folders import BopScene
from nocsfm_ros.data.pictures import MILLIMETRE
from nocsfm_ros.errors import ConfigError
from nocsfm_ros.geometry.transforms import make_T, rotation_between
from nocsfm_ros.types import BoolArray, Float64Array


@dataclass(frozen=True)
class BopModel:
    """What models_info.json says of an object.

    Attributes:
        T_model_obj: (4, 4) from the centred frame, y along a continuous symmetry's axis, to the mesh's own; metres.
        diagonal_m: of the tight box.
        symmetry: 0 with a continuous symmetry about y, else 1; see geometry.symmetry.
    """

    T_model_obj: Float64Array
    diagonal_m: float
    symmetry: int


@dataclass(frozen=True)
class BopInstance:
    """One object in a frame.

    Attributes:
        model: name of its mesh, "obj_000005".
        mask: (H, W) bool, where it is seen.
        T_cam_obj: (4, 4) of the centred frame, metres.
        diagonal_m: of the mesh's tight box.
        symmetry: see BopModel.
        visible: share of its silhouette that is seen, 1 where the data set does not say.
    """

    model: str
    mask: BoolArray
    T_cam_obj: Float64Array
    diagonal_m: float
    symmetry: int
    visible: float


class BopFrames(BopScene):
    """The labelled frames of one BOP scene.

    Raises:
        ConfigError: a file of the scene or models_info.json is missing or cannot be used.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._models = _read_models(path)
        has_info = (path / "scene_gt_info.json").is_file()
        self._info = self._read_json("scene_gt_info.json") if has_info else {}

    def models(self, index: int) -> list[str]:
        """Names of the objects that scene_gt.json lists in a frame."""
        return [_model_name(item) for item in self._items(index)]

    def instances(self, index: int) -> list[BopInstance]:
        """The objects in a frame that have a mask.

        Raises:
            ConfigError: an annotation cannot be used.
            FrameError: a mask cannot be read.
        """
        found = []
        info = self._info.get(str(int(self.name(index))), [])
        for number, item in enumerate(self._items(index)):
            mask = self._instance_mask(index, number)
            if mask is None or not mask.any():
                continue
            model = self._models.get(int(item["obj_id"]))
            if model is None:
                raise ConfigError(f"models_info.json of {self.path}", got=f"no object {item['obj_id']}",
                                  expected="every object of scene_gt.json")
            visible = float(info[number].get("visib_fract", 1.0)) if number < len(info) else 1.0
            T_cam_obj = self._T_cam_model(item) @ model.T_model_obj
            found.append(
                BopInstance(_model_name(item), mask, T_cam_obj, model.diagonal_m, model.symmetry, visible)
            )
        return found

    def _T_cam_model(self, item: dict[str, Any]) -> Float64Array:
        try:
            R = np.array(item["cam_R_m2c"], dtype=np.float64).reshape(3, 3)
            return make_T(R, np.array(item["cam_t_m2c"], dtype=np.float64).reshape(3) * MILLIMETRE)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{self.path}/scene_gt.json", got=error, expected="9 numbers cam_R_m2c and 3 numbers cam_t_m2c"
            ) from error


def _model_name(item: dict[str, Any]) -> str:
    return f"obj_{int(item['obj_id']):06d}"


def _read_models(scene: Path) -> dict[int, BopModel]:
    """By object id. The file lies beside the scene or beside its split folder."""
    folders = scene.resolve().parents[:2]
    files = [file for folder in folders for file in sorted(folder.glob("models*/models_info.json"))]
    if not files:
        raise ConfigError(f"BOP scene {scene}", got=f"no models/models_info.json in {folders[-1]}",
                          expected="the data set's model archive unpacked beside its splits")
    try:
        facts = json.loads(files[0].read_text(encoding="utf-8"))
        return {int(number): _model(model) for number, model in facts.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{files[0]}", got=repr(error), expected="min_x, size_x, ... of every object") from error


def _model(facts: dict[str, Any]) -> BopModel:
    low, size = (np.array([float(facts[f"{what}_{axis}"]) for axis in "xyz"]) for what in ("min", "size"))
    centre, R_model_obj, symmetry = low + size / 2, np.eye(3), 1
    if symmetries := facts.get("symmetries_continuous"):
        axis, offset = (np.array(symmetries[0][key], dtype=np.float64) for key in ("axis", "offset"))
        axis /= np.linalg.norm(axis) * (1 if axis[1] >= 0 else -1)  # both directions are the same axis
        R_model_obj, symmetry = rotation_between(np.array([0.0, 1.0, 0.0]), axis), 0
        centre = offset + ((centre - offset) @ axis) * axis
    return BopModel(make_T(R_model_obj, centre * MILLIMETRE), float(np.linalg.norm(size)) * MILLIMETRE, symmetry)
