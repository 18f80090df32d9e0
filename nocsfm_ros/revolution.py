"""The axis about which an object is the same all round, as bowls, bottles and plain cans are: found in its memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from nocsfm_ros.colour_alignment import ColourPicture
from nocsfm_ros.geometry.transforms import transform
from nocsfm_ros.object_model import ObjectModel, View
from nocsfm_ros.types import Float64Array, SimilarityPose

MAX_POINTS = 400
MAX_SLANT = 0.08  # rms sine between normals and the planes through the axis: nine round things in videos have .02-.065
TRIMMED, REFITS = 0.9, 3  # share of the normals kept: a handle is not round, and tells it by its place
MIN_LEVER = 0.06  # of scale_m: rms distance from the axis under which turns about it can hardly be seen
FLAT = 0.02  # of the squared normals: where they all lie along one line they fix no axis
TURNS_DEG = range(30, 360, 30)  # after which the object must look the same
MAX_EMPTY = 0.04  # share of the turned points that lie where some view saw that nothing is
MIN_CORRELATION, MAX_MISFIT = 0.5, 0.6  # of a turned view's colours: a print is not the same all round
MIN_SEEN = 0.3  # share of its points that can be compared with itself


@dataclass(frozen=True)
class Axis:
    """direction (3,) of length 1 and point_m (3,), both in the object frame."""

    direction: Float64Array
    point_m: Float64Array

    def turn(self, angle: float) -> Float64Array:
        """(4, 4) turn of the object about the axis, radians."""
        T = np.eye(4)
        T[:3, :3] = cv2.Rodrigues(angle * self.direction)[0]
        T[:3, 3] = self.point_m - T[:3, :3] @ self.point_m
        return T


def find_axis(model: ObjectModel) -> Axis | None:
    """The axis of revolution of all that is remembered, or None where shape, outline or colours are not round.

    A print that covers little, or differs in lightness alone, is not noticed. Of a ball it is any axis.
    """
    if model.cloud is None or model.scale_m is None:
        return None
    step = 1 + len(model.cloud.points_obj) // MAX_POINTS
    points, normals = model.cloud.points_obj[::step], model.cloud.normals_obj[::step]
    axis = fit_axis(points, normals, model.scale_m)
    if axis is None or not _is_round(axis, points, model.views, model.scale_m):
        return None
    return axis


def fit_axis(points: Float64Array, normals: Float64Array, scale_m: float) -> Axis | None:
    """The line that all normals meet, nearly.

    Turning a surface about its axis moves no point along its normal: ``n . (w x p + v) = 0`` with ``w . v = 0``
    (H. Pottmann and J. Wallner, "Computational Line Geometry", 2001, the linear complex of a rotation).

    Args:
        points, normals: (N, 3) metres, and of length 1.
        scale_m: size of the object.

    Returns:
        None where no line is met by most of them, or where any is, as of a plane.
    """
    middle = points.mean(axis=0)
    arms = (points - middle) / scale_m
    kept = np.ones(len(points), bool)
    for _ in range(REFITS):
        n, moments = normals[kept], np.cross(arms[kept], normals[kept])
        spread, directions = np.linalg.eigh(n.T @ n / len(n))
        if spread[1] < FLAT:
            return None
        known = spread > FLAT  # along a cylinder no normal tells where the axis is, nor need it
        # the shift that explains most of what a turn w does: v = -E w
        E = (directions[:, known] / spread[known]) @ directions[:, known].T @ (n.T @ moments / len(n))
        w = np.linalg.eigh((moments - n @ E).T @ (moments - n @ E))[1][:, 0]
        v = -E @ w
        v -= w * (w @ v)  # no screw
        lever = np.linalg.norm(np.cross(w, arms) + v, axis=1)
        slant = np.abs(normals @ v + np.cross(arms, normals) @ w) / np.maximum(lever, MIN_LEVER)
        kept = slant <= np.quantile(slant, TRIMMED)
    if np.sqrt((lever**2).mean()) < MIN_LEVER or np.sqrt((slant[kept] ** 2).mean()) > MAX_SLANT:
        return None
    w, v = (w, v) if w[np.abs(w).argmax()] > 0 else (-w, -v)
    return Axis(w, middle + scale_m * np.cross(w, v))


def nearest_turn(pose: SimilarityPose, last: SimilarityPose, axis: Axis) -> SimilarityPose:
    """Of all poses that look the same, the one whose rotation is nearest to the last one's."""
    M, w = last.R_cam_obj.T @ pose.R_cam_obj, axis.direction
    # the trace of M and a turn by a is cosine * cos(a) + sine * sin(a) + what a does not change
    cosine, sine = np.trace(M) - w @ M @ w, np.trace(M @ np.cross(np.eye(3), w))
    T_cam_obj = pose.T_cam_obj @ axis.turn(float(np.arctan2(sine, cosine)))
    return SimilarityPose(T_cam_obj[:3, :3], T_cam_obj[:3, 3], pose.scale_m)


def _is_round(axis: Axis, points: Float64Array, views: Sequence[View], scale_m: float) -> bool:
    """Whether outline and colours stay the same in every turn that a view can judge."""
    turns = [axis.turn(np.radians(angle)) for angle in TURNS_DEG]
    return all(_is_in_outline(transform(turn, points), views, scale_m) for turn in turns) and all(
        _has_same_colours(turns, view, scale_m) for view in views
    )


def _is_in_outline(points_obj: Float64Array, views: Sequence[View], scale_m: float) -> bool:
    empty = np.any([view.looks_through(points_obj, scale_m) for view in views], axis=0)
    return float(empty.mean()) < MAX_EMPTY


def _has_same_colours(turns: Sequence[Float64Array], view: View, scale_m: float) -> bool:
    picture = ColourPicture.of_view(view)
    for turn in turns:
        T_cam_obj = view.T_cam_obj @ turn
        turned = SimilarityPose(T_cam_obj[:3, :3], T_cam_obj[:3, 3], scale_m)
        compared = picture.compare([view], turned)
        if compared is None or compared.seen < MIN_SEEN:
            continue
        is_alike = compared.correlation is None or compared.correlation >= MIN_CORRELATION
        if not is_alike or compared.misfit > MAX_MISFIT:
            return False
    return True
