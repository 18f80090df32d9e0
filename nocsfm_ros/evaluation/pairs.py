"""One reference view, one live view of a mesh never trained on: what each way of estimating makes of it.

Every row runs the code of the node. The rows:
``identity``   ICP from the reference's own viewpoint, with the flow's mask: what every pose must beat;
``matches``    no training: mutual nearest neighbours of backbone features, depth, RANSAC;
``flow_paper`` the flow on the two pictures and the reference's mask alone: no depth, no matches, no backbone features
               (the pose then takes the live depth and the reference's scale, as every row does);
``flow``       RANSAC-Umeyama on the flow's coordinates, one Euler step; ``flow_4`` and ``flow_10``: more steps;
``product``    what the node does when it searches: all hypotheses, scored and refined, and a second look;
``diffusion_10`` and ``diffusion_50``: as ``flow``, by a network trained as a diffusion model, in DDIM steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from nocsfm_ros.data.views import DEPTH_UNIT_M, View, ViewDataset
from nocsfm_ros.errors import ConfigError
from nocsfm_ros.estimator import MIN_POINTS, Estimator
from nocsfm_ros.evaluation.box_iou import box_iou, released_box_iou
from nocsfm_ros.evaluation.point_errors import add_m, adds_m
from nocsfm_ros.evaluation.shapes import ObjectShape
from nocsfm_ros.flow.model import CROP_SIDE, EncodedView, FlowModel
from nocsfm_ros.geometry.crops import coordinates, crop_frame, crop_mask
from nocsfm_ros.geometry.symmetry import nearest_symmetry
from nocsfm_ros.geometry.transforms import invert, rotation_angle_deg
from nocsfm_ros.hypotheses import flow_pose, guessed_poses, match_pose
from nocsfm_ros.masks import large_components, near_surface
from nocsfm_ros.registration import object_points, refine
from nocsfm_ros.types import (
    BoolArray,
    BoxXywh,
    Float32Array,
    NocsMap,
    ObjectCrop,
    RgbdFrame,
    SimilarityPose,
)

MIN_VISIBLE = 0.8  # share of the reference's object in a pair


@dataclass(frozen=True)
class Answer:
    """mask (S, S) bool, pose or None, nocs (S, S, 3) in the reference's frame or None, milliseconds, confidence.

    The milliseconds are those of one live crop, backbone included where it is used.
    """

    mask: BoolArray
    pose: SimilarityPose | None
    nocs: Float32Array | None
    ms: float
    confidence: float = 0.0


@dataclass(frozen=True)
class RowResult:
    """One row's errors on a pair.

    Attributes:
        mask_iou: of the visible object.
        nocs_err: median, share of the diagonal of the object's box; NaN without coordinates.
        rot_err_deg, trans_err_m, add_m, adds_m: infinite without a pose.
        diameter_m: of the object: what ADD and ADD-S are compared with.
        box_iou, released_box_iou: see evaluation.box_iou; 0 without a pose. The box is the true one, at the estimated
            pose: the reference's depth fixes the size.
        ms: time of one live crop.
    """

    mask_iou: float
    nocs_err: float
    ms: float
    diameter_m: float
    rot_err_deg: float = float("inf")
    trans_err_m: float = float("inf")
    add_m: float = float("inf")
    adds_m: float = float("inf")
    box_iou: float = 0.0
    released_box_iou: float = 0.0


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
        self.frame = frame_of(live)
        self.crop = _crop(self.frame)  # the whole live view as the flow's crop
        self.mask = crop_mask(np.asarray(live["mask"]) > 0, self.crop)
        self.reference_frame, self.reference_mask = frame_of(reference), np.asarray(reference["mask"]) > 0
        box_xywh = whole_box(self.reference_frame.size_wh[0], self.margin)
        self.model = estimator.make_model("test", self.reference_frame, self.reference_mask, box_xywh)
        self.view = self.model.views[0]
        begin = time.perf_counter()
        self.feature_crop, self.features = estimator.encode_features(self.frame, (-0.5, -0.5, *self.frame.size_wh))
        self.features_ms = _ms(begin)

    @cached_property
    def answer_of_flow(self) -> tuple[NocsMap, float]:
        """The flow on the frame as it is, one step, and its milliseconds with those of the features."""
        begin = time.perf_counter()
        return self.flow(self.frame), _ms(begin) + self.features_ms

    def flow(self, frame: RgbdFrame, steps: int = 1) -> NocsMap:
        """The flow on a variant of the live frame with the live picture's features."""
        return self.estimator.flow.predict(
            _crop(frame), self.view.encoded, self.view.anchor_scale_m, self.features.features, steps
        )

    def pose_of(self, nocs_map: NocsMap) -> SimilarityPose | None:
        """RANSAC-Umeyama on a map, with the live depth."""
        config, crop = self.estimator.config.registration, self.crop
        points_cam, uv = object_points(crop.depth_m, mask_of(nocs_map), crop.K_crop, config)
        if len(points_cam) < MIN_POINTS:
            return None
        anchor = flow_pose(nocs_map, points_cam, uv, config, self.view.anchor_scale_m)
        return None if anchor is None else self.view.pose_from_anchor(anchor, anchor.scale_m)

    def encoded_by(self, model: FlowModel) -> EncodedView:
        """The reference as another model than the estimator's needs it."""
        crop, view = _crop(self.reference_frame), self.view
        nocs = None
        if view.anchor_scale_m is not None:
            T_anchor_cam = invert(view.T_cam_obj @ view.T_obj_anchor)
            nocs = coordinates(crop, T_anchor_cam) / np.float32(view.anchor_scale_m)
        return model.encode_view(crop, crop_mask(self.reference_mask, crop), nocs, view.features.features)

    def result(self, answer: Answer, shape: ObjectShape) -> RowResult:
        """An answer's errors, symmetry taken out."""
        mask_iou, nocs_err = iou(answer.mask, self.mask), self._nocs_error(answer.nocs)
        if answer.pose is None:
            return RowResult(mask_iou, nocs_err, answer.ms, shape.diameter_m)
        T_est = answer.pose.T_cam_obj @ invert(self.view.T_cam_obj) @ self.reference["T_cam_obj"]
        T_true, symmetry = self.live["T_cam_obj"], int(self.live["symmetry"])
        R_est, R_true = T_est[:3, :3], T_true[:3, :3]
        sizes = shape.size_m, shape.size_m
        return RowResult(
            mask_iou, nocs_err, answer.ms, shape.diameter_m,
            rot_err_deg=rotation_angle_deg(R_est @ nearest_symmetry(R_est, R_true, symmetry)[:3, :3], R_true),
            trans_err_m=float(np.linalg.norm(T_est[:3, 3] - T_true[:3, 3])),
            add_m=add_m(T_est, T_true, shape.points_m, symmetry), adds_m=adds_m(T_est, T_true, shape.points_m),
            box_iou=box_iou(T_est, T_true, *sizes, symmetry),
            released_box_iou=released_box_iou(T_est, T_true, *sizes, symmetry),
        )

    def _nocs_error(self, nocs: Float32Array | None) -> float:
        """Median distance of coordinates to the true ones over the true mask, as a share of the mesh's diagonal."""
        crop = self.crop
        where = self.mask & (crop.depth_m > 0)
        if nocs is None or not where.any():
            return float("nan")
        R_ref, R_live = self.reference["T_cam_obj"][:3, :3], self.live["T_cam_obj"][:3, :3]
        S = nearest_symmetry(R_ref, R_live, int(self.live["symmetry"]))
        T_obj_live = invert(self.view.T_cam_obj) @ self.reference["T_cam_obj"] @ S @ invert(self.live["T_cam_obj"])
        true = coordinates(crop, T_obj_live)[where]
        scale_m = self.view.anchor_scale_m or 1.0
        return float(np.median(np.linalg.norm(nocs[where] * scale_m - true, axis=1)) / float(self.live["diagonal_m"]))


def identity(case: Case) -> Answer:
    """See the module."""
    nocs_map, flow_ms = case.answer_of_flow
    begin, config = time.perf_counter(), case.estimator.config.registration
    mask = mask_of(nocs_map)
    points_cam, _ = object_points(case.crop.depth_m, mask, case.crop.K_crop, config)
    if case.model.cloud is None or len(points_cam) < MIN_POINTS:
        return Answer(mask, None, None, _ms(begin) + flow_ms)
    start = guessed_poses(case.crop, points_cam, case.view, case.model)[0]
    pose = refine(start, points_cam, case.model.cloud, config).pose
    return Answer(mask, pose, None, _ms(begin) + flow_ms)


def matches(case: Case) -> Answer:
    """See the module. Its mask is what lies on the reference's surface under its pose."""
    begin, config = time.perf_counter(), case.estimator.config.registration
    everywhere = np.ones(case.feature_crop.depth_m.shape, bool)
    pose = match_pose(case.view, case.feature_crop, case.features, everywhere, case.model, config)
    if pose is None:
        return Answer(np.zeros_like(case.mask), None, None, _ms(begin) + case.features_ms)
    mask = near_surface(coordinates(case.crop, invert(pose.T_cam_obj)), pose, case.model)
    return Answer(mask, pose, None, _ms(begin) + case.features_ms)


def flow_paper(case: Case) -> Answer:
    """See the module."""
    begin = time.perf_counter()
    blind = replace(case.frame, depth_m=np.zeros_like(case.frame.depth_m))
    crop = _crop(case.reference_frame)
    view = case.estimator.flow.encode_view(crop, crop_mask(case.reference_mask, crop), None, None)
    nocs_map = case.estimator.flow.predict(_crop(blind), view, None, None)
    return Answer(mask_of(nocs_map), case.pose_of(nocs_map), nocs_map.nocs, _ms(begin))


def flow(case: Case) -> Answer:
    """See the module."""
    nocs_map, flow_ms = case.answer_of_flow
    return _registered(case, nocs_map, flow_ms)


def flow_in_steps(case: Case, steps: int) -> Answer:
    """See the module."""
    begin = time.perf_counter()
    nocs_map = case.flow(case.frame, steps)
    return _registered(case, nocs_map, _ms(begin) + case.features_ms)


def diffusion(case: Case, model: FlowModel, steps: int) -> Answer:
    """See the module."""
    encoded, begin = case.encoded_by(model), time.perf_counter()
    nocs_map = model.predict(case.crop, encoded, case.view.anchor_scale_m, case.features.features, steps)
    return _registered(case, nocs_map, _ms(begin) + case.features_ms)


def _registered(case: Case, nocs_map: NocsMap, ms: float) -> Answer:
    """The map's own mask and pose; `ms` is what the map took."""
    begin = time.perf_counter()
    return Answer(mask_of(nocs_map), case.pose_of(nocs_map), nocs_map.nocs, ms + _ms(begin))


def product(case: Case) -> Answer:
    """See the module. Its mask is the flow's, cut and completed by the pose; its coordinates are the first look's."""
    begin, box_xywh = time.perf_counter(), whole_box(case.frame.size_wh[0], case.margin)
    first = case.estimator.estimate(case.frame, box_xywh, case.model)
    estimate = case.estimator.second_look(case.frame, first, case.model)
    nocs = None if first.nocs_map is None else first.nocs_map.nocs
    mask = crop_mask(estimate.mask, case.crop)
    return Answer(mask, estimate.pose, nocs, _ms(begin), estimate.confidence)


Row = Callable[[Case], Answer]
ROWS: dict[str, Row] = {
    "identity": identity, "matches": matches, "flow_paper": flow_paper, "flow": flow, "product": product,
    "flow_4": partial(flow_in_steps, steps=4), "flow_10": partial(flow_in_steps, steps=10),
}


def diffusion_rows(model: FlowModel) -> dict[str, Row]:
    """The rows of a network trained as a diffusion model."""
    return {f"diffusion_{steps}": partial(diffusion, model=model, steps=steps) for steps in (10, 50)}


def draw_pairs(views: ViewDataset, count: int, seed: int = 0, limit_deg: float = 90.0) -> list[tuple[int, int]]:
    """Fixed (live row, reference row) pairs of one cluster, with the object well visible, view change up to a limit.

    Raises ConfigError where the views hold no such pair.
    """
    random = np.random.default_rng(seed)
    clusters, visible = views.column("cluster"), views.column("visible")
    rows = np.arange(len(clusters))

    def is_pair(live: int, reference: int) -> bool:
        if live == reference or visible[reference] <= MIN_VISIBLE:
            return False
        return view_change_deg(views[live], views[reference]) <= limit_deg

    if not any(is_pair(live, int(reference)) for live in range(len(rows))
               for reference in np.flatnonzero(clusters == clusters[live])):
        raise ConfigError(
            f"pairs of {len(rows)} views", got="none", mend="render more views of each object",
            expected=f"{count} of one object up to {limit_deg:g} deg apart, over {MIN_VISIBLE:.0%} of the reference's "
            "visible",
        )
    pairs: list[tuple[int, int]] = []
    while len(pairs) < count:
        live = int(random.choice(rows))
        reference = int(random.choice(np.flatnonzero(clusters == clusters[live])))
        if is_pair(live, reference):
            pairs.append((live, reference))
    return pairs


def view_change_deg(live: View, reference: View) -> float:
    """Angle between the two views of the object, degrees, symmetry taken out."""
    R_ref, R_live = reference["T_cam_obj"][:3, :3], live["T_cam_obj"][:3, :3]
    return rotation_angle_deg(R_ref @ nearest_symmetry(R_ref, R_live, int(live["symmetry"]))[:3, :3], R_live)


def frame_of(view: View) -> RgbdFrame:
    """A rendered view as a frame."""
    depth_m = view["depth"].astype(np.float32) * np.float32(DEPTH_UNIT_M)
    return RgbdFrame(np.array(view["rgb"]), depth_m, np.array(view["K"]))


def mask_of(nocs_map: NocsMap) -> BoolArray:
    """The flow's own mask."""
    return large_components(nocs_map.mask_prob > 0.5)


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
