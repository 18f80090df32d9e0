"""What `nocsfm import` does: cut training views, as `nocsfm render` stores them, from CAMERA25, REAL275 and BOP scenes.

One cluster per model: any two views of it make a pair. As on rendered views the depth is clean on the object: of NOCS
scenes it is that of the coordinate map under the instance's pose, of BOP scenes the sensor's with its holes closed.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt

from nocsfm_ros.config import RegistrationConfig
from nocsfm_ros.data.bop_frames import BopFrames, BopInstance
from nocsfm_ros.data.folders import scene_folders
from nocsfm_ros.data.meshes import write_mesh_list
from nocsfm_ros.data.nocs_frames import SYMMETRIC_CLASSES, NocsFrame, NocsFrames, NocsInstance
from nocsfm_ros.data.views import CROP_SIZE, FIELDS, MARGINS, MAX_SHIFT, View, save_shard, shard_path, stored_depth
from nocsfm_ros.data.workers import worker_pool
from nocsfm_ros.errors import ConfigError, FrameError, ShapeError
from nocsfm_ros.geometry.camera import backproject, pixel_rays
from nocsfm_ros.geometry.crops import box_from_mask, crop_frame, crop_mask, square_box
from nocsfm_ros.geometry.nocs import points_from_nocs
from nocsfm_ros.registration import object_points, ransac_umeyama
from nocsfm_ros.types import BoolArray, Float32Array, Float64Array, RgbdFrame, SimilarityPose

FRAMES_PER_SHARD = 100
INLIER_M = 0.01
MIN_INLIERS = 0.6  # share of an instance's depth points: below it depth and coordinate map show different things
MIN_PIXELS = 300
MIN_SURFACE = 0.7  # share of the mask where the object's depth is known; the rest is filled
SURFACE_SLACK = 0.1  # of the diagonal, by which a point of the object's surface may be off
CAMERA_DIAGONAL_M = 0.25  # CAMERA draws a model's size anew in every picture; a pair needs one size


@dataclass(frozen=True)
class ImportJob:
    """What a folder of imported views is: every `stride`-th frame of the scenes at or below `source`.

    `split` "train" leaves out scenes whose folder lies in one called test or val, "test" those in one called train.
    """

    source: Path
    out: Path
    split: str = "train"
    stride: int = 1


@dataclass(frozen=True)
class LabelledObject:
    """An object in a picture, ready to be cut out.

    Attributes:
        model: name of its mesh.
        rgbd: the whole picture; its depth has neither holes nor noise inside the mask.
        mask: (H, W) bool.
        T_cam_obj: (4, 4) centred tight box, metres, a symmetry axis along y.
        diagonal_m: of that box.
        symmetry: number of the object's group, see geometry.symmetry.
        visible: share of its silhouette that is seen.
    """

    model: str
    rgbd: RgbdFrame
    mask: BoolArray
    T_cam_obj: Float64Array
    diagonal_m: float
    symmetry: int
    visible: float = 1.0


FrameId = tuple[Path, int]  # scene folder, index in it


class _LeftOut(Exception):
    """Why an instance gives no view."""


def instance_pose(frame: NocsFrame, instance: NocsInstance) -> tuple[SimilarityPose, float] | None:
    """Where an instance is, from its coordinate map and the depth (the data sets' training splits publish no poses).

    Returns:
        The pose and the share of the instance's trustworthy depth points within INLIER_M of it, or None where the
        two do not agree at all.
    """
    config = RegistrationConfig()
    points_cam, uv = object_points(frame.rgbd.depth_m, instance.mask, frame.rgbd.K, config)
    points_nocs = instance.nocs[uv[:, 1], uv[:, 0]]
    pose = ransac_umeyama(points_nocs.astype(np.float64), points_cam, np.ones(len(points_cam)), config)
    if pose is None:
        return None
    off_m = np.linalg.norm(points_cam - _points_cam(points_nocs, pose), axis=1)
    return pose, float((off_m <= INLIER_M).mean())


def import_views(
    job: ImportJob, workers: int = 2, on_shard: Callable[[int, int], None] = lambda done, total: None
) -> Counter[str]:
    """Write all shards that are not there yet.

    Args:
        job: what to import.
        workers: processes.
        on_shard: called with (shards done, shards in all).

    Returns:
        How many "views" were written now, and how many instances and frames were left out, by reason.

    Raises:
        ConfigError: nothing to import in the source, or `out` holds other views.
    """
    frames, models, counts = _list_frames(job)
    _claim(job, len(frames))
    write_mesh_list(job.out / "meshes.json", [(name, job.split == "test") for name in models])
    mesh_of = {name: index for index, name in enumerate(models)}
    total = -(-len(frames) // FRAMES_PER_SHARD)
    missing = [index for index in range(total) if not shard_path(job.out, index).exists()]
    with worker_pool(min(workers, len(missing))) as pool:
        futures = [
            pool.submit(_import_shard, job, index, frames[index * FRAMES_PER_SHARD :][:FRAMES_PER_SHARD], mesh_of)
            for index in missing
        ]
        for done, future in enumerate(as_completed(futures), start=total - len(missing) + 1):
            counts += future.result()
            on_shard(done, total)
    if not any(shard_path(job.out, index).exists() for index in range(total)):
        raise ConfigError(
            f"frames of {job.source}", got=", ".join(f"{count} {reason}" for reason, count in counts.items()),
            expected="at least one instance that can be used",
        )
    return counts


def cut_view(rng: np.random.Generator, labelled: LabelledObject, mesh: int) -> View:
    """The object's crop, placed at random about it as the rendered ones are.

    Raises:
        ShapeError: empty mask, or another size than the picture's.
    """
    rgbd, box = labelled.rgbd, box_from_mask(labelled.mask)
    if box is None or labelled.mask.shape != rgbd.depth_m.shape:
        raise ShapeError("mask", got=labelled.mask.shape, expected=f"{rgbd.depth_m.shape} with the object in it")
    x, y, side, _ = square_box(box, rng.uniform(*MARGINS))
    dx, dy = rng.uniform(-MAX_SHIFT, MAX_SHIFT, 2) * side
    crop = crop_frame(rgbd.rgb, rgbd.depth_m, rgbd.K, (x + dx, y + dy, side, side), CROP_SIZE)
    return {
        "rgb": crop.rgb, "depth": stored_depth(crop.depth_m), "K": crop.K_crop,
        "mask": np.where(crop_mask(labelled.mask, crop), 255, 0), "T_cam_obj": labelled.T_cam_obj,
        "diagonal_m": labelled.diagonal_m, "mesh": mesh, "cluster": mesh, "symmetry": labelled.symmetry,
        "visible": labelled.visible,
    }


def _list_frames(job: ImportJob) -> tuple[list[FrameId], list[str], Counter[str]]:
    """Frames to import, names of all models in them, and what could not be read."""
    scenes = [scene for scene in scene_folders(job.source) if _split_of(scene) in (job.split, None)]
    if not scenes:
        raise ConfigError(
            f"source {job.source}", got=f"no scene of {job.split} data",
            expected="at or below it, folders with 0000_color.png (NOCS) or scene_camera.json (BOP)",
            mend="for scenes in folders called test or val add --split test",
        )
    frames: list[FrameId] = []
    models: set[str] = set()
    counts: Counter[str] = Counter()
    everything = ((path, index) for path in scenes for index in range(len(_open_scene(path))))
    for number, (path, index) in enumerate(everything):
        if number % job.stride == 0:
            try:
                models.update(_open_scene(path).models(index))
                frames.append((path, index))
            except FrameError:
                counts["frames that cannot be read"] += 1
    return frames, sorted(models), counts


def _split_of(scene: Path) -> str | None:
    words = re.findall("[a-z]+", scene.resolve().parent.name.lower())  # real_train, train_pbr, test_primesense, val
    if any(word.startswith("train") for word in words):
        return "train"
    return "test" if any(word.startswith(("test", "val")) for word in words) else None


def _claim(job: ImportJob, num_frames: int) -> None:
    """Write down what `out` is to hold. Raises ConfigError where it holds something else."""
    record = {
        "source": str(job.source.resolve()), "split": job.split, "stride": job.stride, "frames": num_frames
    }
    file = job.out / "import.json"
    job.out.mkdir(parents=True, exist_ok=True)
    if file.is_file() or next(job.out.glob("shard_*"), None) is not None:
        held = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else "rendered views"
        if held != record:
            raise ConfigError(f"--out {job.out}", got=held, expected=record, mend="name another folder")
    file.write_text(json.dumps(record), encoding="utf-8")


def _import_shard(job: ImportJob, index: int, frames: list[FrameId], mesh_of: dict[str, int]) -> Counter[str]:
    rng = np.random.default_rng(index)
    views: list[View] = []
    counts: Counter[str] = Counter()
    for path, number in frames:
        try:
            for labelled in _labelled_objects(_open_scene(path), number):
                try:
                    value = labelled()
                    views.append(cut_view(rng, value, mesh_of[value.model]))
                except _LeftOut as reason:
                    counts[str(reason)] += 1
        except FrameError:
            counts["frames that cannot be read"] += 1
    if views:  # a shard without views cannot be mapped into memory
        arrays = {name: np.stack([view[name] for view in views]).astype(dtype) for name, (_, dtype) in FIELDS.items()}
        save_shard(shard_path(job.out, index), arrays)
    counts["views"] = len(views)
    return counts


@lru_cache(maxsize=2)
def _open_scene(path: Path) -> NocsFrames | BopFrames:
    return BopFrames(path) if (path / "scene_camera.json").is_file() else NocsFrames(path)


def _labelled_objects(scene: NocsFrames | BopFrames, index: int) -> Iterator[Callable[[], LabelledObject]]:
    """Per instance of a frame, what labels it. Raises FrameError for a frame that cannot be read."""
    if isinstance(scene, NocsFrames):
        frame = scene.load(index)
        diagonal_m = CAMERA_DIAGONAL_M if scene.is_camera else None
        yield from (partial(_from_nocs, frame, instance, diagonal_m) for instance in frame.instances)
    else:
        rgbd = scene.frame(index)
        yield from (partial(_from_bop, rgbd, instance) for instance in scene.instances(index))


def _from_nocs(frame: NocsFrame, instance: NocsInstance, diagonal_m: float | None) -> LabelledObject:
    _require_size(instance.mask)
    found = instance_pose(frame, instance)
    if found is None or found[1] < MIN_INLIERS:
        raise _LeftOut("instances whose depth and coordinate map do not agree")
    pose, _ = found
    points_cam = _points_cam(instance.nocs[instance.mask], pose)
    z = points_cam[:, 2]
    rays = pixel_rays(frame.rgbd.size_wh, frame.rgbd.K)[instance.mask]
    on_ray = np.linalg.norm(points_cam - rays * z[:, None], axis=1) <= SURFACE_SLACK * pose.scale_m
    surface_m = np.zeros(instance.mask.shape, np.float32)
    surface_m[instance.mask] = np.where(on_ray, z, 0)
    symmetry = 0 if instance.class_name in SYMMETRIC_CLASSES else 1
    labelled = LabelledObject(
        instance.model, _with_surface(frame.rgbd, instance.mask, surface_m), instance.mask, pose.T_cam_obj,
        pose.scale_m, symmetry,
    )
    return labelled if diagonal_m is None else _resized(labelled, diagonal_m)


def _from_bop(rgbd: RgbdFrame, instance: BopInstance) -> LabelledObject:
    _require_size(instance.mask)
    points_cam, uv = backproject(rgbd.depth_m, rgbd.K, instance.mask)
    reach_m = (0.5 + SURFACE_SLACK) * instance.diagonal_m
    on_object = np.linalg.norm(points_cam - instance.T_cam_obj[:3, 3], axis=1) <= reach_m
    surface_m = np.zeros(instance.mask.shape, np.float32)
    surface_m[uv[on_object, 1], uv[on_object, 0]] = points_cam[on_object, 2]
    return LabelledObject(
        instance.model, _with_surface(rgbd, instance.mask, surface_m), instance.mask, instance.T_cam_obj,
        instance.diagonal_m, instance.symmetry, instance.visible,
    )


def _require_size(mask: BoolArray) -> None:
    if mask.sum() < MIN_PIXELS:
        raise _LeftOut("instances that are too small")


def _points_cam(points_nocs: Float32Array, pose: SimilarityPose) -> Float64Array:
    return points_from_nocs(points_nocs, pose.scale_m) @ pose.R_cam_obj.T + pose.t_cam_obj


def _with_surface(rgbd: RgbdFrame, mask: BoolArray, surface_m: Float32Array) -> RgbdFrame:
    """The frame with the object's own depth (H, W), 0 = unknown, inside the mask; unknown pixels take the nearest."""
    if (surface_m[mask] > 0).mean() < MIN_SURFACE:
        raise _LeftOut("instances with too little depth")
    nearest = distance_transform_edt(surface_m <= 0, return_distances=False, return_indices=True)
    return replace(rgbd, depth_m=np.where(mask, surface_m[tuple(nearest)], rgbd.depth_m))


def _resized(labelled: LabelledObject, diagonal_m: float) -> LabelledObject:
    """The same picture of a larger or smaller object: all distances grow with it."""
    gain = diagonal_m / labelled.diagonal_m
    T_cam_obj = labelled.T_cam_obj.copy()
    T_cam_obj[:3, 3] *= gain
    rgbd = replace(labelled.rgbd, depth_m=labelled.rgbd.depth_m * np.float32(gain))
    return replace(labelled, rgbd=rgbd, T_cam_obj=T_cam_obj, diagonal_m=diagonal_m)
