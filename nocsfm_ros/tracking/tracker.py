"""Follows any number of objects from frame to frame; the only thing that remembers."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from nocsfm_ros.checkpoints import weights_folder
from nocsfm_ros.config import Config
from nocsfm_ros.data.pictures import depth_m_from_raw
from nocsfm_ros.device import choose_device
from nocsfm_ros.errors import ConfigError
from nocsfm_ros.estimator import Estimator
from nocsfm_ros.flow.model import FlowModel
from nocsfm_ros.geometry.crops import box_from_mask
from nocsfm_ros.geometry.transforms import invert
from nocsfm_ros.matching.backbone import load_backbone
from nocsfm_ros.matching.search_head import load_search_backbone
from nocsfm_ros.tracking.object_tracker import ObjectTracker, is_same_place, likeness
from nocsfm_ros.tracking.reference import MIN_FOREGROUND
from nocsfm_ros.types import Float64Array, PoseEstimate, Reference, RgbdFrame, Track, TrackState

MIN_SCALE_M = 0.01  # depth cameras cannot show a smaller object
NO_CAMERA_FOCAL = 1.2  # focal length over the longer side: a usual lens, for a reference picture without a camera

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReferenceReport:
    """What set_reference found: pixels of the object, its size along its axes and scale, metres (0 = not yet known)."""

    object_id: str
    foreground_pixels: int
    size_m: Float64Array
    scale_m: float


class Tracker:
    """Holds one ObjectTracker per reference. Not thread-safe: one thread owns it.

    Args:
        estimator: the per-frame pipeline.
        config: all settings.
    """

    def __init__(self, estimator: Estimator, config: Config) -> None:
        self.estimator, self.config = estimator, config
        self.objects: dict[str, ObjectTracker] = {}
        self.stage_ms: dict[str, float] = {}
        self.failing: frozenset[str] = frozenset()  # objects whose last update raised

    @property
    def object_ids(self) -> list[str]:
        """Names of the objects, in the order they were given."""
        return list(self.objects)

    def set_reference(self, reference: Reference) -> ReferenceReport:
        """Learn an object from one picture; an object of the same name is replaced.

        Raises:
            ConfigError: the mask is too small to describe an object, the depth shows none, or a pose is given without.
        """
        foreground = int(reference.mask.sum())
        box_xywh = box_from_mask(reference.mask)
        if box_xywh is None or foreground < MIN_FOREGROUND:
            raise ConfigError(
                f"reference of {reference.object_id!r}", got=f"{foreground} object pixels",
                expected=f"at least {MIN_FOREGROUND}", mend="give a mask or box that covers the object",
            )
        frame = _reference_frame(reference)
        model = self.estimator.make_model(reference.object_id, frame, reference.mask, box_xywh)
        if reference.depth_m is not None and (model.scale_m or 0.0) < MIN_SCALE_M:
            raise ConfigError(
                f"reference depth of {reference.object_id!r}",
                got="no smooth surface" if model.scale_m is None else "an object of a few millimetres",
                expected=f"the object's surface in metres, a scale of {MIN_SCALE_M:g} m or more",
                mend="check the unit (16UC1 is mm, 32FC1 is m) and the mask, or leave the depth out",
            )
        if reference.T_cam_user is not None:
            if model.scale_m is None:
                raise ConfigError(
                    f"reference of {reference.object_id!r}", got="an object pose without depth on the object",
                    expected="depth and camera with it", mend="give the reference's depth, or leave the pose out",
                )
            model.T_obj_user = invert(model.views[0].T_cam_obj) @ reference.T_cam_user
        self.objects[reference.object_id] = ObjectTracker(model, self.estimator, self.config)
        return ReferenceReport(reference.object_id, foreground, model.size_m, model.scale_m or 0.0)

    def remove_reference(self, object_id: str | None = None) -> list[str]:
        """Forget one object, or all for None; returns the names forgotten (none if there is no such object)."""
        names = self.object_ids if object_id is None else [name for name in self.objects if name == object_id]
        for name in names:
            del self.objects[name]
        return names

    def reset(self) -> None:
        """Back to SEARCHING, references kept, keyframes forgotten."""
        for tracker in self.objects.values():
            tracker.reset()

    def configure(self, config: Config) -> None:
        """Take new values of the live settings over; the models stay."""
        self.config = replace(config, model=replace(self.config.model, steps=config.model.steps))
        self.estimator.config = self.config
        for tracker in self.objects.values():
            tracker.config = self.config

    def update(self, frame: RgbdFrame) -> list[Track]:
        """One track per object for this frame, in the order of object_ids.

        What is followed, and most surely, comes first: another object is seen in its place only if much more surely.
        An object whose update raises counts as not found and is logged; the others have their answers.

        Raises:
            Exception: what the last one raised when no object had an answer: then it is the frame, or the models.
        """
        begin = time.perf_counter()
        frame = _with_clean_depth(frame)
        self.estimator.stage_ms = {}
        tracks: dict[str, Track] = {}
        taken: dict[str, PoseEstimate] = {}
        errors: dict[str, Exception] = {}
        for object_id, tracker in sorted(self.objects.items(), key=_sureness, reverse=True):
            try:
                self._advance(frame, object_id, taken, tracks)
            except Exception as error:
                errors[object_id] = error
                if object_id not in tracks:
                    tracks[object_id] = tracker.fail(frame, f"{type(error).__name__}: {error}")
        self._report(errors)
        self.stage_ms = {**self.estimator.stage_ms, "total": (time.perf_counter() - begin) * 1e3}
        return [tracks[object_id] for object_id in self.objects]

    def _advance(
        self, frame: RgbdFrame, object_id: str, taken: dict[str, PoseEstimate], tracks: dict[str, Track]
    ) -> None:
        """Put the object's track into `tracks`, with new ones of those whose place it takes; into `taken` who is where.

        Each as soon as it is true: an error in what comes after leaves it so.
        """
        tracker = self.objects[object_id]
        is_found_anew = tracker.state is not TrackState.TRACKING or tracker.failures > 0
        tracks[object_id] = track = tracker.update(frame, taken)
        if track.estimate.pose is None:
            return
        for other in [name for name, seen in taken.items() if is_same_place(track.estimate, seen)]:
            tracks[other] = self.objects[other].give_way(frame, object_id)
            del taken[other]
        taken[object_id] = track.estimate
        if is_found_anew:
            self._exchange(frame, track, taken, tracks)

    def _exchange(
        self, frame: RgbdFrame, found: Track, taken: dict[str, PoseEstimate], tracks: dict[str, Track]
    ) -> None:
        """Two look-alikes change places, if one was just found and so they fit better together.

        The one that is found first may have taken the other's place. The squares of both differences in colour added
        up tell, even where the lamp has changed both.
        """
        mine = self.objects[found.object_id]
        for name, seen in taken.items():
            if name == found.object_id:
                continue
            there, here = mine.seen_at(frame, seen), None
            if there is not None:
                here = self.objects[name].seen_at(frame, found.estimate)
            if there is None or here is None:
                continue
            if likeness(there) + likeness(here) > likeness(found.estimate) + likeness(seen):
                taken[found.object_id], taken[name] = there, here
                tracks[found.object_id] = mine.move(frame, there)
                tracks[name] = self.objects[name].move(frame, here)
                return

    def _report(self, errors: dict[str, Exception]) -> None:
        """Raise where every object failed; else log what has begun to fail, once until it works again."""
        if errors and len(errors) == len(self.objects):
            raise list(errors.values())[-1]
        for object_id in errors.keys() - self.failing:
            logger.error("object %s failed; the others go on", object_id, exc_info=errors[object_id])
        self.failing = frozenset(errors)


def _with_clean_depth(frame: RgbdFrame) -> RgbdFrame:
    """The frame, its depth 0 where it is NaN, infinite or negative."""
    if frame.depth_m.min() >= 0 and frame.depth_m.max() < np.inf:  # neither holds for NaN
        return frame
    return replace(frame, depth_m=depth_m_from_raw(frame.depth_m, 1.0))


def _sureness(named: tuple[str, ObjectTracker]) -> tuple[bool, float]:
    return named[1].state is TrackState.TRACKING, named[1].confidence


def build_tracker(config: Config | None = None) -> Tracker:
    """Load the weights and make a tracker.

    Raises:
        CheckpointError: weights missing or unusable.
        ConfigError: CUDA asked for and not there.
    """
    config = config or Config()
    device = choose_device(config.model.device)
    num_threads = config.model.num_threads or max(1, (os.cpu_count() or 2) // 2)
    torch.set_num_threads(num_threads)
    # NumPy's BLAS threads wait for work by spinning: on two cores they ate most of the one that camera and ROS need
    threadpool_limits(num_threads, user_api="blas")
    name, weights = config.model.backbone, weights_folder(config.model.weights)
    flow = FlowModel.from_folder(weights, device)
    flow.velocity.check_backbone(name)
    backbone = load_backbone(name, device)
    search_backbone = load_search_backbone(name, backbone, weights, device)
    return Tracker(Estimator(flow, backbone, config, search_backbone), config)


def _reference_frame(reference: Reference) -> RgbdFrame:
    """The reference as a frame; without depth it has zeros, without a camera a usual lens."""
    height, width = reference.mask.shape
    if reference.K is not None and reference.depth_m is not None:
        return RgbdFrame(reference.rgb, reference.depth_m, reference.K)
    focal = NO_CAMERA_FOCAL * max(width, height)
    K = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])
    return RgbdFrame(reference.rgb, np.zeros((height, width), np.float32), K if reference.K is None else reference.K)
