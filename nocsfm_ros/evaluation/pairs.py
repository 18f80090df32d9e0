"""One reference view, one live view of a mesh never trained on: what each way of estimating makes of it.

Every row runs the code of the node. The rows:
``identity``   ICP from the reference's own viewpoint, with the flow's mask: what every pose must beat;
``matches``    no training: mutual nearest neighbours of backbone features, depth, RANSAC;
``flow_paper`` the flow on the two pictures alone: no live depth, no matches, no backbone features;
``flow``       RANSAC-Umeyama on the flow's coordinates, one Euler step; ``flow_4`` and ``flow_10``: more steps;
``product``    what the node does when it searches: all hypotheses, scored and refined, and a second look.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from nocsfm_ros.data.views import DEPTH_UNIT_M, View, ViewDataset
from nocsfm_ros.estimator import MIN_POINTS, Estimator, largest_component, near_surface
from nocsfm_ros.flow.model import CROP_SIDE
from nocsfm_ros.geometry.crops import coordinates, crop_frame
from nocsfm_ros.geometry.transforms import invert, rotation_angle_deg
from nocsfm_ros.hypotheses import flow_pose, guessed_poses, match_pose
from nocsfm_ros.matching.backbone import FeatureMap
from nocsfm_ros.matching.localiser import encode_reference
from nocsfm_ros.object_model import ObjectModel
from nocsfm_ros.registration import object_points, refine
from nocsfm_ros.training.pairs import nearest_symmetry
from nocsfm_ros.types import (
    BoolArray,
    BoxXywh,
    Float32Array,
    NocsMap,
    ObjectCrop,
    RgbdFrame,
    SimilarityPose,
)


@dataclass(frozen=True)
class Answer:
    """mask (S, S) bool, pose or None, nocs (S, S, 3) in the reference's frame or None, milliseconds it took."""

    mask: BoolArray
    pose: SimilarityPose | None
    nocs: Float32Array | None
    ms: float


@dataclass(frozen=True)
class RowResult:
    """One row's errors on one pair; infinite where there is no pose. `nocs_err` is a share of the diagonal."""

    mask_iou: float
    nocs_err: float
    rot_err_deg: float
    trans_err_m: float
    ms: float


class Case:
    """One pair, ready to be estimated. Views are crops: each is taken as a whole picture.

    Args:
        live: where the pose is wanted.
        reference: what the object is learned from.
        estimator: the node's.
    """

    def __init__(self, live: View, reference: View, estimator: Estimator) -> None:
        self.live, self.reference, self.estimator = live, reference, estimator
        self.margin = estimator.config.matching.crop_margin
        self.frame, self.mask = frame_of(live), np.asarray(live["mask"]) > 0
        reference_frame, mask_ref = frame_of(reference), np.asarray(reference["mask"]) > 0
        box_xywh = whole_box(mask_ref.shape[0], self.margin)
        self.view = estimator.make_view(reference_frame, mask_ref, box_xywh, None)
        search = encode_reference(reference_frame.rgb, mask_ref, estimator.backbone)
        self.model = ObjectModel("test", search, [self.view], self.view.anchor_scale_m, None)
        self.model.rebuild_cloud()

    @cached_property
    def feature_crop(self) -> tuple[ObjectCrop, FeatureMap]:
        """The crop for the backbone and its features."""
        return self.estimator.encode_features(self.frame, (-0.5, -0.5, *self.frame.size_wh))

    @cached_property
    def one_step(self) -> NocsMap:
        """The flow as the node runs it."""
        return self.flow(self.frame)

    @property
    def crop(self) -> ObjectCrop:
        """The whole live view as the flow's crop."""
        return _crop(self.frame)

    def flow(self, frame: RgbdFrame, steps: int = 1, features: FeatureMap | None = None) -> NocsMap:
        """The flow on a variant of the live frame; features default to the live picture's own."""
        features = features or self.feature_crop[1]
        return self.estimator.flow.predict(
            _crop(frame), self.view.encoded, self.view.anchor_scale_m, features.features, steps
        )

    def pose_of(self, nocs_map: NocsMap) -> SimilarityPose | None:
        """RANSAC-Umeyama on a map, with the live depth."""
        config, crop = self.estimator.config.registration, self.crop
        points_cam, uv = object_points(crop.depth_m, mask_of(nocs_map), crop.K_crop, config)
        if len(points_cam) < MIN_POINTS:
            return None
        anchor = flow_pose(nocs_map, points_cam, uv, config, self.view.anchor_scale_m)
        return None if anchor is None else self.view.pose_from_anchor(anchor, anchor.scale_m)

    def result(self, answer: Answer) -> RowResult:
        """An answer's errors."""
        rot_err_deg, trans_err_m = self._pose_errors(answer.pose)
        mask_iou, nocs_err = iou(answer.mask, self.mask), self._nocs_error(answer.nocs)
        return RowResult(mask_iou, nocs_err, rot_err_deg, trans_err_m, answer.ms)

    def _pose_errors(self, pose: SimilarityPose | None) -> tuple[float, float]:
        """Rotation (deg) and translation (m, of the mesh's centre) error, symmetry taken out."""
        if pose is None:
            return float("inf"), float("inf")
        T_est = pose.T_cam_obj @ invert(self.view.T_cam_obj) @ self.reference["T_cam_obj"]
        T_true = self.live["T_cam_obj"]
        S = nearest_symmetry(T_est[:3, :3], T_true[:3, :3], int(self.live["fold"]))
        trans_err_m = float(np.linalg.norm(T_est[:3, 3] - T_true[:3, 3]))
        return rotation_angle_deg(T_est[:3, :3] @ S[:3, :3], T_true[:3, :3]), trans_err_m

    def _nocs_error(self, nocs: Float32Array | None) -> float:
        """Median distance of coordinates to the true ones over the true mask, as a share of the mesh's diagonal."""
        crop = self.crop
        where = self.mask & (crop.depth_m > 0)
        if nocs is None or not where.any():
            return 1.0
        R_ref, R_live = self.reference["T_cam_obj"][:3, :3], self.live["T_cam_obj"][:3, :3]
        S = nearest_symmetry(R_ref, R_live, int(self.live["fold"]))
        T_obj_live = invert(self.view.T_cam_obj) @ self.reference["T_cam_obj"] @ S @ invert(self.live["T_cam_obj"])
        true = coordinates(crop, T_obj_live)[where]
        scale_m = self.view.anchor_scale_m or 1.0
        return float(np.median(np.linalg.norm(nocs[where] * scale_m - true, axis=1)) / float(self.live["diagonal_m"]))


def identity(case: Case) -> Answer:
    """See the module."""
    begin, mask, config = time.perf_counter(), mask_of(case.one_step), case.estimator.config.registration
    points_cam, _ = object_points(case.crop.depth_m, mask, case.crop.K_crop, config)
    if case.model.cloud is None or len(points_cam) < MIN_POINTS:
        return Answer(mask, None, None, _ms(begin))
    start = guessed_poses(case.crop, points_cam, case.view, case.model)[0]
    return Answer(mask, refine(start, points_cam, case.model.cloud, config).pose, None, _ms(begin))


def matches(case: Case) -> Answer:
    """See the module. Its mask is what lies on the reference's surface under its pose."""
    begin, (crop, features) = time.perf_counter(), case.feature_crop
    everywhere = np.ones(crop.depth_m.shape, bool)
    poses = match_pose(case.view, crop, features, everywhere, case.model, case.estimator.config.registration)
    if not poses:
        return Answer(np.zeros_like(case.mask), None, None, _ms(begin))
    points_obj = coordinates(case.crop, invert(poses[0].T_cam_obj))
    return Answer(near_surface(points_obj, poses[0], case.model), poses[0], None, _ms(begin))


def flow_paper(case: Case) -> Answer:
    """See the module."""
    begin = time.perf_counter()
    blind = replace(case.frame, depth_m=np.zeros_like(case.frame.depth_m))
    view = replace(case.view.encoded, features=None)
    nocs_map = case.estimator.flow.predict(_crop(blind), view, case.view.anchor_scale_m, None)
    return Answer(mask_of(nocs_map), case.pose_of(nocs_map), nocs_map.nocs, _ms(begin))


def flow(case: Case, steps: int = 1) -> Answer:
    """See the module."""
    begin = time.perf_counter()
    nocs_map = case.flow(case.frame, steps)
    return Answer(mask_of(nocs_map), case.pose_of(nocs_map), nocs_map.nocs, _ms(begin))


def product(case: Case) -> Answer:
    """See the module. Its mask is the flow's, cut and completed by the pose; its coordinates are the first look's."""
    begin, box_xywh = time.perf_counter(), whole_box(case.mask.shape[0], case.margin)
    first = case.estimator.estimate(case.frame, box_xywh, case.model)
    estimate = case.estimator.second_look(case.frame, first, case.model)
    nocs = None if first.nocs_map is None else first.nocs_map.nocs
    return Answer(estimate.mask, estimate.pose, nocs, _ms(begin))


ROWS: dict[str, Callable[[Case], Answer]] = {
    "identity": identity, "matches": matches, "flow_paper": flow_paper, "flow": flow,
    "flow_4": partial(flow, steps=4), "flow_10": partial(flow, steps=10), "product": product,
}


def draw_pairs(views: ViewDataset, count: int, seed: int = 0, limit_deg: float = 90.0) -> list[tuple[int, int]]:
    """Fixed (live row, reference row) pairs of one cluster, with the object well visible, view change up to a limit."""
    random = np.random.default_rng(seed)
    clusters, visible = views.column("cluster"), views.column("visible")
    rows = np.arange(len(clusters))
    pairs: list[tuple[int, int]] = []
    while len(pairs) < count:
        live = int(random.choice(rows))
        reference = int(random.choice(np.flatnonzero(clusters == clusters[live])))
        if live == reference or visible[reference] <= 0.8:
            continue
        if view_change_deg(views[live], views[reference]) <= limit_deg:
            pairs.append((live, reference))
    return pairs


def view_change_deg(live: View, reference: View) -> float:
    """Angle between the two views of the object, degrees, symmetry taken out."""
    R_ref, R_live = reference["T_cam_obj"][:3, :3], live["T_cam_obj"][:3, :3]
    return rotation_angle_deg(R_ref @ nearest_symmetry(R_ref, R_live, int(live["fold"]))[:3, :3], R_live)


def frame_of(view: View) -> RgbdFrame:
    """A rendered view as a frame."""
    depth_m = view["depth"].astype(np.float32) * np.float32(DEPTH_UNIT_M)
    return RgbdFrame(np.array(view["rgb"]), depth_m, np.array(view["K"]))


def mask_of(nocs_map: NocsMap) -> BoolArray:
    """The flow's own mask."""
    return largest_component(nocs_map.mask_prob > 0.5)


def iou(a: BoolArray, b: BoolArray) -> float:
    """Intersection over union; 1 for two empty masks."""
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 1.0


def _crop(frame: RgbdFrame) -> ObjectCrop:
    return crop_frame(frame.rgb, frame.depth_m, frame.K, (-0.5, -0.5, *frame.size_wh), CROP_SIDE)


def whole_box(side: int, margin: float) -> BoxXywh:
    """The box whose crop is the whole view."""
    inner = side / margin
    return (side - inner) / 2 - 0.5, (side - inner) / 2 - 0.5, inner, inner


def _ms(begin_s: float) -> float:
    return (time.perf_counter() - begin_s) * 1e3
