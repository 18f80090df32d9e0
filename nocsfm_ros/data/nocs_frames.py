"""Labelled frames of CAMERA and REAL275: instances with their coordinate maps, and the published poses.

H. Wang et al., "Normalized Object Coordinate Space for Category-Level 6D Object Pose and Size Estimation", CVPR 2019.
A scene is a folder with NNNN_color.png, _depth.png, _mask.png, _coord.png and _meta.txt. Three layouts are known, and
``folders.scene_folders`` finds the scenes of each:

* official: real_train/scene_1, real_test/scene_1, train/00000, val/00000
* sorted: Real/train/scene_1, Real/test/scene_1, CAMERA/train/00000, CAMERA/val/00000
* flat: the files of one scene, side by side in a folder

camera_full_depths/<split>/<scene>/NNNN_composed.png and gts/<split>/results_<split>_<scene>_NNNN.pkl lie beside the
splits (official), beside Real/ and CAMERA/ (sorted), or in the scene folder under their last name (flat).
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nocsfm_ros.data import pictures
from nocsfm_ros.data.folders import NocsScene
from nocsfm_ros.errors import FrameError
from nocsfm_ros.geometry.nocs import nocs_from_nocs_rgb
from nocsfm_ros.geometry.transforms import nearest_rotation
from nocsfm_ros.types import BoolArray, Float32Array, Float64Array, RgbdFrame, SimilarityPose

CLASS_NAMES = ("distractor", "bottle", "bowl", "camera", "can", "laptop", "mug")
SYMMETRIC_CLASSES = frozenset({"bottle", "bowl", "can"})  # any turn about y looks the same


@dataclass(frozen=True)
class NocsInstance:
    """One object of one of the six classes in a frame.

    Attributes:
        number: its value in the mask picture, unique in the frame.
        class_name: one of CLASS_NAMES.
        model: name of its mesh, "mug_daniel_norm" (REAL) or "03797390/73b8..." (CAMERA).
        mask: (H, W) bool, where it is seen.
        nocs: (H, W, 3) float32, centred, 0 outside the mask.
    """

    number: int
    class_name: str
    model: str
    mask: BoolArray
    nocs: Float32Array


@dataclass(frozen=True)
class NocsFrame:
    """One labelled frame; distractors (class 0) and instances that are not seen are left out.

    Attributes:
        name: of the frame in its scene, "0000".
        rgbd: picture, depth and intrinsics.
        instances: in ascending number.
    """

    name: str
    rgbd: RgbdFrame
    instances: tuple[NocsInstance, ...]


@dataclass(frozen=True)
class NocsTruth:
    """The published pose of one instance.

    Attributes:
        pose: centred NOCS to the camera.
        has_visible_handle: False where a mug's handle is hidden, which makes the mug symmetric about y.
    """

    pose: SimilarityPose
    has_visible_handle: bool


class NocsFrames(NocsScene):
    """The labelled frames of one scene folder, read when they are asked for.

    Raises:
        ConfigError: no colour picture with a depth picture in the folder.
    """

    def load(self, index: int) -> NocsFrame:
        """The frame at a 0-based index. Raises FrameError for a missing, unreadable or corrupt file."""
        entry = self._entries[index]
        rgbd, classes = self.frame(index), self._classes(entry.name)
        labels = pictures.read_labels(self._file(entry.name, "mask.png"))
        nocs = _read_nocs(self._file(entry.name, "coord.png"))
        for what, array in (("mask", labels), ("coordinates", nocs)):
            if array.shape[:2] != rgbd.depth_m.shape:
                raise FrameError(
                    f"{what} of frame {entry.name} of {self.path}", got=array.shape[:2], expected=rgbd.depth_m.shape
                )
        instances = []
        for number in np.intersect1d(labels, list(classes)):
            mask: BoolArray = labels == number
            nocs_in_mask = np.where(mask[..., None], nocs, np.float32(0))
            instances.append(NocsInstance(int(number), *classes[int(number)], mask, nocs_in_mask))
        return NocsFrame(entry.name, rgbd, tuple(instances))

    def models(self, index: int) -> list[str]:
        """Names of the meshes that the frame's meta.txt lists, seen or not. Raises FrameError as load does."""
        return [model for _, model in self._classes(self.name(index)).values()]

    def truth(self, frame: NocsFrame) -> dict[int, NocsTruth]:
        """Published poses by instance number; empty where the data set has none (all training frames).

        Raises:
            FrameError: the file cannot be used, or is of other instances.
        """
        file = self._truth_file(frame.name)
        if file is None:
            return {}
        facts = load_arrays(file)
        poses = _poses(facts.get("gt_RTs"), file)
        # The rows follow the instance numbers; the file itself names neither.
        if len(poses) != len(frame.instances):
            raise FrameError(
                f"poses {file}", got=f"{len(poses)} of them",
                expected=f"one for each of the {len(frame.instances)} instances of frame {frame.name}",
            )
        handles = np.asarray(facts.get("handle_visibility", np.ones(len(poses))))
        if handles.shape != (len(poses),):
            raise FrameError(f"poses {file}, handle_visibility", got=handles.shape, expected=(len(poses),))
        return {
            instance.number: NocsTruth(pose, bool(handle))
            for instance, pose, handle in zip(frame.instances, poses, handles, strict=True)
        }

    def _file(self, name: str, kind: str) -> Path:
        return self.path / f"{name}_{kind}"

    def _classes(self, name: str) -> dict[int, tuple[str, str]]:
        """(class name, model) by instance number, distractors left out."""
        file = self._file(name, "meta.txt")
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeError) as error:
            raise FrameError(f"meta file {file}", got=error, expected="a line for each instance") from error
        classes = {}
        for row, words in enumerate((line.split() for line in lines), start=1):
            if not words:
                continue
            if not (len(words) in (3, 4) and all(word.isdigit() for word in words[:2])
                    and int(words[1]) < len(CLASS_NAMES)):
                raise FrameError(
                    f"meta file {file}, line {row}", got=repr(" ".join(words)),
                    expected=f"an instance number, a class from 0 to {len(CLASS_NAMES) - 1} and a model's name",
                )
            if words[1] != "0":
                classes[int(words[0])] = (CLASS_NAMES[int(words[1])], "/".join(words[2:]))
        return classes

    def _truth_file(self, name: str) -> Path | None:
        split, scene = self.path.resolve().parts[-2:]
        if not (self.is_camera or split.startswith("real_")):
            split = f"real_{split}"  # the sorted layout: Real/test
        beside = [root / "gts" / split / f"results_{split}_{scene}_{name}.pkl" for root in self._roots()]
        return next((file for file in [*beside, *self.path.glob(f"results_*_{name}.pkl")] if file.is_file()), None)


def load_arrays(path: Path) -> dict[str, Any]:
    """A pickled mapping of numbers, text, lists and arrays, as Python 2 or 3 wrote it; nothing else is unpickled.

    A pickle can name any function to be called on loading. This one calls only those that rebuild NumPy arrays.

    Raises:
        FrameError: unreadable, no mapping, or it asks for more.
    """
    try:
        facts = _ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except Exception as error:  # a corrupt pickle raises whatever its bytes happen to say
        raise FrameError(f"pickle {path}", got=error, expected="a mapping of arrays, text and numbers") from error
    if not isinstance(facts, dict):
        raise FrameError(f"pickle {path}", got=type(facts).__name__, expected="a mapping")
    return facts


class _ArrayUnpickler(pickle.Unpickler):
    _MULTIARRAY = {"_reconstruct": np.zeros(0).__reduce__()[0], "scalar": np.float64(0).__reduce__()[0]}
    _KNOWN = {
        "numpy": {"ndarray": np.ndarray, "dtype": np.dtype},
        "numpy.core.multiarray": _MULTIARRAY, "numpy._core.multiarray": _MULTIARRAY,
    }

    def find_class(self, module: str, name: str) -> Any:
        """What rebuilds arrays; anything else is refused."""
        try:
            return self._KNOWN[module][name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name}, which is no part of an array") from None


def _read_nocs(file: Path) -> Float32Array:
    """(H, W, 3) centred coordinates. The files hold z mirrored."""
    nocs_rgb = (pictures.read_rgb(file) / 255).astype(np.float32)
    nocs_rgb[..., 2] = 1 - nocs_rgb[..., 2]
    return nocs_from_nocs_rgb(nocs_rgb)


def _poses(matrices: Any, file: Path) -> list[SimilarityPose]:
    try:
        T_cam_nocs = np.asarray(matrices, dtype=np.float64)
    except (TypeError, ValueError):
        T_cam_nocs = np.zeros(0)
    if T_cam_nocs.ndim != 3 or T_cam_nocs.shape[1:] != (4, 4) or not np.isfinite(T_cam_nocs).all() or not (
        np.linalg.det(T_cam_nocs[:, :3, :3]) > 0
    ).all():
        raise FrameError(f"poses {file}, gt_RTs", got=T_cam_nocs.shape, expected="(N, 4, 4) scaled rotations")
    return [_similarity(T) for T in T_cam_nocs]


def _similarity(T_cam_nocs: Float64Array) -> SimilarityPose:
    scale_m = float(np.cbrt(np.linalg.det(T_cam_nocs[:3, :3])))
    return SimilarityPose(nearest_rotation(T_cam_nocs[:3, :3] / scale_m), T_cam_nocs[:3, 3], scale_m)
