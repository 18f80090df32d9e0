"""What is known of one object: its views (the user's reference first) and the cloud they add up to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np

from nocsfm_ros.flow.model import EncodedView
from nocsfm_ros.geometry.camera import depth_at, project
from nocsfm_ros.geometry.transforms import invert, rotation_angle_deg, transform
from nocsfm_ros.matching.backbone import FeatureMap
from nocsfm_ros.matching.localiser import ReferenceFeatures
from nocsfm_ros.matching.matcher import cell_mask, centred_cosine, match_points
from nocsfm_ros.registration import ObjectCloud
from nocsfm_ros.types import BoolArray, Float32Array, Float64Array, ObjectCrop, SimilarityPose

DEPTH_TOLERANCE = 0.06  # of scale_m: what lies further before or behind a measured surface contradicts it
MIN_TOLERANCE_M = 0.01
EMPTY_REACH = 3  # pixels about a place where all must lie behind it: pose and outline are no better


def depth_tolerance_m(scale_m: float) -> float:
    """Metres by which a right pose's points may differ from the measured depth."""
    return max(DEPTH_TOLERANCE * scale_m, MIN_TOLERANCE_M)


@dataclass(frozen=True)
class View:
    """One picture of the object with everything that is computed of it once.

    Attributes:
        T_cam_obj: (4, 4) the object's pose in this view.
        T_obj_anchor: (4, 4) the frame in which the flow answers for this view -> object frame.
        anchor_scale_m: metres per NOCS unit of that frame; None for a reference without depth.
        encoded: as the flow needs it.
        search: gives what is looked for in a whole frame, computed when it is first asked for.
        crop: what the camera saw there.
        features: of the feature crop.
        feature_mask: (S, S) bool, the object in the feature crop.
        feature_points_obj: (S, S, 3) object coordinates of its pixels in metres, NaN where unknown.
        points_obj: (N, 3) metres: the view's share of the cloud.
        colour_points_obj: (M, 3) metres: points inside its outline.
        chroma: (M, 2) float32 their colours, see verification.chroma.
        colours: (M, 3) float32 the same as colour_alignment compares them.
    """

    T_cam_obj: Float64Array
    T_obj_anchor: Float64Array
    anchor_scale_m: float | None
    encoded: EncodedView
    search: Callable[[], ReferenceFeatures]
    crop: ObjectCrop
    features: FeatureMap
    feature_mask: BoolArray
    feature_points_obj: Float32Array
    points_obj: Float64Array
    colour_points_obj: Float64Array
    chroma: Float32Array
    colours: Float32Array

    @property
    def R_cam_obj(self) -> Float64Array:
        """(3, 3) the viewpoint."""
        return self.T_cam_obj[:3, :3]

    def looks_through(self, points_obj: Float64Array, scale_m: float) -> BoolArray:
        """Which of the points (N, 3), metres, lie where the camera saw that nothing is."""
        points_cam = transform(self.T_cam_obj, points_obj)
        measured_m = depth_at(self._nearest_around_m, project(points_cam, self.crop.K_crop))
        result: BoolArray = (points_cam[:, 2] > 0) & (points_cam[:, 2] < measured_m - depth_tolerance_m(scale_m))
        return result

    @cached_property
    def _nearest_around_m(self) -> Float32Array:
        """(S, S) the crop's smallest depth within EMPTY_REACH of each pixel, 0 where one is unknown."""
        return np.asarray(cv2.erode(self.crop.depth_m, np.ones((2 * EMPTY_REACH + 1,) * 2, np.uint8)), np.float32)

    def matches(self, features: FeatureMap, mask: BoolArray) -> tuple[Float64Array, Float64Array, Float32Array]:
        """Points of the object that are seen in another picture too.

        Args:
            features: of that picture.
            mask: (H, W) bool of it: where matches are looked for.

        Returns:
            (P, 3) object coordinates in metres, NaN where unknown, (P, 2) pixels there, (P,) cosine similarities.
        """
        pairs_view, pairs_live, similarity = match_points(self.features, self.feature_mask, features, mask)
        u, v = np.rint(pairs_view).astype(int).T
        return self.feature_points_obj[v, u].astype(np.float64), pairs_live, similarity

    def likeness(self, features: FeatureMap) -> float:
        """How alike another picture of the same size is, laid over this one cell by cell, [-1, 1].

        Of a thing turned in the picture the features are much the same, but not in the same places.
        """
        inside = cell_mask(self.features, self.feature_mask)
        if not inside.any():
            return 0.0
        return centred_cosine(self.features.features[inside], features.features[inside])

    def pose_from_anchor(self, anchor: SimilarityPose, scale_m: float) -> SimilarityPose:
        """The object's pose from that of this view's anchored frame."""
        T_cam_obj = anchor.T_cam_obj @ invert(self.T_obj_anchor)
        return SimilarityPose(T_cam_obj[:3, :3], T_cam_obj[:3, 3], scale_m)

    def nocs_in_object(self, nocs: Float32Array, scale_m: float) -> Float32Array:
        """(..., 3) coordinates in this view's anchored frame -> object NOCS, cut to [-0.5, 0.5]."""
        anchor_scale_m = scale_m if self.anchor_scale_m is None else self.anchor_scale_m
        points = transform(self.T_obj_anchor, nocs.reshape(-1, 3).astype(np.float64) * anchor_scale_m) / scale_m
        return np.clip(points, -0.5, 0.5).reshape(nocs.shape).astype(np.float32)


@dataclass
class ObjectModel:
    """The memory of one object. The first view is the user's reference and is never dropped.

    Attributes:
        object_id: its name.
        views: reference, then keyframes.
        rolled: the reference's picture turned by one to three quarters: the network knows views up to 90 degrees
            apart, and a thing on a table lies any way round. They add nothing to what is remembered.
        scale_m: metres per unit of NOCS; None until a reference without depth has met its first live frame.
        cloud: all views' points together; None as long as scale_m is.
        T_obj_user: (4, 4) the user's own object frame -> object frame, or None.
        size_m, centre_m: (3,) box of the cloud along the axes of the user's frame (the object's own without one).
    """

    object_id: str
    views: list[View]
    scale_m: float | None
    cloud: ObjectCloud | None
    T_obj_user: Float64Array | None = None
    rolled: list[View] = field(default_factory=list)
    size_m: Float64Array = field(default_factory=lambda: np.zeros(3))
    centre_m: Float64Array = field(default_factory=lambda: np.zeros(3))

    @property
    def references(self) -> list[View]:
        """The user's picture, as it is and rolled."""
        return [*self.views[:1], *self.rolled]

    @property
    def sights(self) -> list[View]:
        """All pictures that a live one may look like: references, then keyframes."""
        return [*self.references, *self.views[1:]]

    def nearest_view(self, R_cam_obj: Float64Array) -> View:
        """The sight whose viewpoint is nearest."""
        return _nearest(self.sights, R_cam_obj)

    def nearest_reference(self, R_cam_obj: Float64Array) -> View:
        """The same of the references alone."""
        return _nearest(self.references, R_cam_obj)

    def add_view(self, view: View) -> None:
        """Take a keyframe in and rebuild the cloud."""
        self.views.append(view)
        self.rebuild_cloud()

    def drop_most_redundant(self) -> None:
        """Forget the keyframe with the nearest neighbour, of two the younger; the reference stays."""
        def distance_deg(index: int) -> float:
            others = (view for i, view in enumerate(self.views) if i != index)
            return min(rotation_angle_deg(view.R_cam_obj, self.views[index].R_cam_obj) for view in others)

        del self.views[min(range(len(self.views) - 1, 0, -1), key=distance_deg)]

    def forget_keyframes(self) -> None:
        """Back to the user's reference alone."""
        self.views = self.views[:1]
        self.scale_m = self.views[0].anchor_scale_m
        self.cloud, self.size_m, self.centre_m = None, np.zeros(3), np.zeros(3)
        self.rebuild_cloud()

    def rebuild_cloud(self) -> None:
        """Cloud and size from the points of all views."""
        clouds = [view.points_obj for view in self.views if len(view.points_obj)]
        if not clouds or self.scale_m is None:
            return
        points_obj = np.concatenate(clouds)
        viewpoints_obj = np.concatenate([
            np.broadcast_to(invert(view.T_cam_obj)[:3, 3], view.points_obj.shape) for view in self.views
        ])
        self.cloud = ObjectCloud(points_obj, viewpoints_obj=viewpoints_obj)
        points = points_obj if self.T_obj_user is None else transform(invert(self.T_obj_user), points_obj)
        low, high = np.percentile(points, [1, 99], axis=0)
        self.size_m, self.centre_m = high - low, (low + high) / 2


def _nearest(views: Sequence[View], R_cam_obj: Float64Array) -> View:
    return min(views, key=lambda view: rotation_angle_deg(view.R_cam_obj, R_cam_obj))
