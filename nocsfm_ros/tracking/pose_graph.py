"""Keyframes pulled straight: each was placed by the model of its time, whose small errors add up on the way round.

A new keyframe is compared with the views it overlaps, cloud to cloud. Where that makes a loop, all keyframes move a
little until the comparisons agree best, the user's reference held fast (F. Lu and E. Milios, "Globally consistent range
scan alignment for environment mapping", Autonomous Robots 1997: one linear system, as the motions are small).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nocsfm_ros.colour_alignment import ColourPicture, align_colours
from nocsfm_ros.config import RegistrationConfig
from nocsfm_ros.geometry.transforms import invert, motion_between, moved, rotation_angle_deg, transform
from nocsfm_ros.object_model import ObjectModel, View
from nocsfm_ros.registration import ObjectCloud, refine
from nocsfm_ros.types import Float32Array, Float64Array, SimilarityPose

OVERLAP_DEG = 50.0  # viewpoints nearer than this see much of the same surface
NEIGHBOURS = 3  # views that a new one is compared with
MIN_INLIERS = 0.5  # of the new view's points on the other's surface
MAX_TURN_DEG, MAX_SHIFT = 10.0, 0.1  # a larger correction (of scale_m) is a wrong match, not an error that grew
SAME_MISFIT = 0.02  # deviations: no difference between two fits of the same colours
STAYING = 0.05  # weight of where a view was placed when it came, against one comparison


@dataclass(frozen=True)
class Link:
    """How two views should move against each other.

    Attributes:
        first, second: views of the model.
        motion: (6,) of the second's points, less that of the first's, so that their surfaces meet: shift and turn about
            the object's origin, metres and radians.
        information: (6, 6) inverse covariance of it.
    """

    first: View
    second: View
    motion: Float64Array
    information: Float64Array


class PoseGraph:
    """The comparisons between the views of one model.

    Args:
        model: gets moved keyframes.
    """

    def __init__(self, model: ObjectModel) -> None:
        self.model = model
        self.links: list[Link] = []

    def add(self, view: View, config: RegistrationConfig) -> bool:
        """Compare a view that has joined the model, and pull all keyframes straight if that closes a loop.

        Returns:
            Whether keyframes moved; the model's cloud is made anew then.
        """
        present = {id(other) for other in self.model.views}
        self.links = [link for link in self.links if {id(link.first), id(link.second)} <= present]
        links = [
            link for other in self._overlapping(view)
            if (link := compared(other, view, self.model.scale_m or 0.0, config)) is not None
        ]
        self.links += links
        if len(links) < 2:
            return False
        self._straighten()
        return True

    def _overlapping(self, view: View) -> list[View]:
        """The oldest view that a new one overlaps, to which the fewest errors have added up, and the nearest ones."""
        def turn_deg(other: View) -> float:
            return rotation_angle_deg(other.R_cam_obj, view.R_cam_obj)

        others = [
            other for other in self.model.views
            if other is not view and len(other.points_obj) and turn_deg(other) < OVERLAP_DEG
        ]
        return others[:1] + sorted(others[1:], key=turn_deg)[:NEIGHBOURS - 1]

    def _straighten(self) -> None:
        views = self.model.views
        motions = balanced(views, self.links)
        after = {id(view): moved_view(view, motion) for view, motion in zip(views, motions, strict=True)}
        index = {id(view): row for row, view in enumerate(views)}
        self.links = [
            replace(
                link, first=after[id(link.first)], second=after[id(link.second)],
                motion=link.motion - motions[index[id(link.second)]] + motions[index[id(link.first)]],
            )
            for link in self.links
        ]
        self.model.views = [after[id(view)] for view in views]
        self.model.rebuild_cloud()


def compared(first: View, second: View, scale_m: float, config: RegistrationConfig) -> Link | None:
    """Generalized ICP between the points of two views, then their colours, or None where they do not meet well.

    A round thing slides about its axis until the clouds' noise fits best: the colours must not fit worse than before.
    """
    T_cam_obj = second.T_cam_obj
    start = SimilarityPose(T_cam_obj[:3, :3], T_cam_obj[:3, 3], scale_m)
    cloud = ObjectCloud(first.points_obj, config.icp_voxel_m)
    # in the camera's frame: two clouds thinned on one grid would seem to fit where they are
    picture = ColourPicture.of_view(second)
    found = align_colours(refine(start, transform(T_cam_obj, second.points_obj), cloud, config), [first], picture)
    before, after = picture.compare([first], start), picture.compare([first], found.pose)
    if before is not None and (after is None or after.misfit > before.misfit + SAME_MISFIT):
        return None
    motion = motion_between(np.eye(4), invert(found.pose.T_cam_obj) @ T_cam_obj)
    shift_m, turn_rad = np.linalg.norm(motion[:3]), np.linalg.norm(motion[3:])
    if found.inlier_ratio < MIN_INLIERS or shift_m > MAX_SHIFT * scale_m or turn_rad > np.radians(MAX_TURN_DEG):
        return None
    to_camera = np.kron(np.eye(2), T_cam_obj[:3, :3])  # the covariance is along the camera's axes
    return Link(first, second, motion, to_camera.T @ np.linalg.inv(found.covariance) @ to_camera)


def balanced(views: list[View], links: list[Link]) -> Float64Array:
    """(N, 6) motions of the views that fit the links best; the first view stays, and one without links too."""
    size, index = 6 * len(views), {id(view): row for row, view in enumerate(views)}
    A, b = np.zeros((size, size)), np.zeros(size)
    for link in links:
        i, j = (slice(6 * index[id(view)], 6 * index[id(view)] + 6) for view in (link.first, link.second))
        pull = link.information @ link.motion
        A[i, i] += link.information
        A[j, j] += (1 + STAYING) * link.information
        A[i, j] -= link.information
        A[j, i] -= link.information
        b[j] += pull
        b[i] -= pull
    A += 1e-9 * max(float(np.trace(A)) / size, 1.0) * np.eye(size)
    motions = np.zeros(size)
    motions[6:] = np.linalg.solve(A[6:, 6:], b[6:])
    return motions.reshape(-1, 6)


def moved_view(view: View, motion: Float64Array) -> View:
    """A view whose points lie elsewhere in the object frame by a motion (6,)."""
    if not motion.any():
        return view
    T = moved(np.eye(4), motion)

    def shifted(points: Float32Array) -> Float32Array:
        return transform(T, points.reshape(-1, 3).astype(np.float64)).reshape(points.shape).astype(np.float32)

    return replace(
        view, T_cam_obj=view.T_cam_obj @ invert(T), T_obj_anchor=T @ view.T_obj_anchor,
        feature_points_obj=shifted(view.feature_points_obj), points_obj=transform(T, view.points_obj),
        colour_points_obj=transform(T, view.colour_points_obj),
    )
