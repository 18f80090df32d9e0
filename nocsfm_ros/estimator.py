"""One frame, one object, straight down: crop -> flow -> NOCS and mask -> back-project -> register -> verify."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import cv2
import numpy as np
import numpy.typing as npt

from nocsfm_ros.config import Config
from nocsfm_ros.flow.model import CROP_SIDE, FlowModel
from nocsfm_ros.geometry.crops import R_ray_cam, crop_frame, paste, square_box
from nocsfm_ros.geometry.nocs import anchored_frame
from nocsfm_ros.geometry.transforms import invert, transform
from nocsfm_ros.matching.backbone import Backbone, FeatureMap
from nocsfm_ros.matching.matcher import match_points
from nocsfm_ros.object_model import ObjectModel, View
from nocsfm_ros.registration import Registration, best_pose, object_points, ransac_umeyama
from nocsfm_ros.verification import combine_scores, depth_agreement, pose_similarity
from nocsfm_ros.types import (
    BoolArray, BoxXywh, Float32Array, Float64Array, NocsMap, ObjectCrop, PoseEstimate, RgbdFrame, SimilarityPose,
)

FEATURE_SIDE = 224
MIN_POINTS = 30
MIN_MATCHES = 8


class Estimator:
    """Stateless: everything that is remembered is in the ObjectModel handed over.

    Args:
        flow: the learned part.
        backbone: dense features.
        config: thresholds; may be replaced between frames.
    """

    def __init__(self, flow: FlowModel, backbone: Backbone, config: Config) -> None:
        self.flow, self.backbone, self.config = flow, backbone, config
        self.stage_ms: dict[str, float] = {}

    def estimate(
        self, frame: RgbdFrame, box_xywh: BoxXywh, model: ObjectModel, priors: Sequence[SimilarityPose] = ()
    ) -> PoseEstimate:
        """The object's pose in the frame, looked for near a box.

        Args:
            frame: colour and registered depth.
            box_xywh: about the object's box, pixels of the frame.
            model: the object.
            priors: believable poses (the last one, the predicted one), best first.

        Returns:
            An estimate; its pose is None, with the reason, when there are not enough points or matches for one.
        """
        view = model.nearest_view(priors[0].R_cam_obj if priors else None)
        with self._timed("crop"):
            square = square_box(box_xywh, self.config.matching.crop_margin)
            crop = crop_frame(frame.rgb, frame.depth_m, frame.K, square, CROP_SIDE)
        with self._timed("flow"):
            nocs_map = self.flow.predict(crop, view.tokens, view.anchor_scale_m, self.config.model.steps)
        mask_crop = largest_component(nocs_map.mask_prob > self.config.registration.mask_threshold)
        mask = paste(mask_crop.astype(np.uint8), crop.A_crop_image, frame.size_wh, nearest=True) > 0
        points_cam, pixels_uv = object_points(crop.depth_m, mask_crop, crop.K_crop, self.config.registration)
        if mask_crop.sum() < self.config.tracking.min_mask_pixels:
            return self._without_pose(mask, crop, nocs_map, "the flow sees no object in the crop")
        if len(points_cam) < MIN_POINTS:
            return self._without_pose(mask, crop, nocs_map, f"only {len(points_cam)} pixels of the mask have depth")
        with self._timed("features"):
            feature_crop, features = self.encode_features(frame, square)
        with self._timed("hypotheses"):
            hypotheses = [
                *self._flow_pose(nocs_map, points_cam, pixels_uv, view, model),
                *self._match_pose(feature_crop, features, mask, view, model), *priors,
            ]
        if not hypotheses:
            return self._without_pose(mask, crop, nocs_map, "no three correspondences agree on a pose")
        if model.cloud is None:  # a reference without depth: this frame gives the scale, and the cloud comes from it
            best = Registration(hypotheses[0], 1.0, 0.0, np.eye(6) * 1e-4)
        else:
            with self._timed("registration"):
                best = best_pose(hypotheses, points_cam, model.cloud, self.config.registration)
        with self._timed("verify"):
            similarity = pose_similarity(best.pose, view, feature_crop, features)
            confidence, reason = combine_scores(
                best.inlier_ratio, depth_agreement(best.pose, model, frame), similarity,
                float(nocs_map.mask_prob[mask_crop].mean()),
            )
        nocs = view.nocs_in_object(nocs_map.nocs, best.pose.scale_m) * mask_crop[..., None]
        return PoseEstimate(
            pose=best.pose, mask=mask, nocs=paste(nocs, crop.A_crop_image, frame.size_wh) * mask[..., None], crop=crop,
            nocs_map=nocs_map, confidence=confidence, inlier_ratio=best.inlier_ratio, similarity=similarity or 0.0, residual_m=best.residual_m, covariance=best.covariance, reason=reason,
        )

    def make_view(
        self, frame: RgbdFrame, mask: BoolArray, box_xywh: BoxXywh, T_cam_obj: Float64Array | None
    ) -> View:
        """Everything computed once of a reference (T_cam_obj None: it defines the object frame) or a keyframe.

        Args:
            frame: picture; depth_m may be all zeros for a reference.
            mask: (H, W) bool.
            box_xywh: of the mask.
            T_cam_obj: (4, 4) pose of the object in this frame.
        """
        square = square_box(box_xywh, self.config.matching.crop_margin)
        crop = crop_frame(frame.rgb, frame.depth_m, frame.K, square, CROP_SIDE)
        mask_crop = _crop_mask(mask, crop)
        points_cam, _ = object_points(crop.depth_m, mask_crop, crop.K_crop, self.config.registration)
        has_depth = len(points_cam) >= MIN_POINTS
        anchor = anchored_frame(points_cam, R_ray_cam(crop.K_crop, CROP_SIDE)[2]) if has_depth else None
        T_obj_cam = invert(T_cam_obj if T_cam_obj is not None else (np.eye(4) if anchor is None else anchor.T_cam_obj))
        nocs = None if anchor is None else _coordinates(crop, invert(anchor.T_cam_obj)) / np.float32(anchor.scale_m)
        feature_crop, features = self.encode_features(frame, square)
        feature_mask = _crop_mask(mask, feature_crop)
        feature_points = _coordinates(feature_crop, T_obj_cam)
        feature_points[~feature_mask] = np.nan
        return View(
            T_cam_obj=invert(T_obj_cam), T_obj_anchor=np.eye(4) if anchor is None else T_obj_cam @ anchor.T_cam_obj,
            anchor_scale_m=None if anchor is None else anchor.scale_m,
            tokens=self.flow.encode_view(crop, mask_crop, nocs), features=features, feature_mask=feature_mask,
            feature_points_obj=feature_points if has_depth else np.full_like(feature_points, np.nan),
            points_obj=transform(T_obj_cam, points_cam) if has_depth else np.zeros((0, 3)),
        )

    def encode_features(self, frame: RgbdFrame, square: BoxXywh) -> tuple[ObjectCrop, FeatureMap]:
        """The larger crop in which points are matched, and its features."""
        crop = crop_frame(frame.rgb, frame.depth_m, frame.K, square, FEATURE_SIDE)
        return crop, self.backbone.encode(crop.rgb)

    def _flow_pose(
        self, nocs_map: NocsMap, points_cam: Float64Array, pixels_uv: npt.NDArray[np.int_], view: View,
        model: ObjectModel,
    ) -> list[SimilarityPose]:
        u, v = pixels_uv.T
        anchor = ransac_umeyama(
            nocs_map.nocs[v, u].astype(np.float64), points_cam, nocs_map.mask_prob[v, u].astype(np.float64),
            self.config.registration, scale_m=view.anchor_scale_m,
        )
        if anchor is None:
            return []
        return [view.pose_from_anchor(anchor, anchor.scale_m if model.scale_m is None else model.scale_m)]

    def _match_pose(
        self, crop: ObjectCrop, features: FeatureMap, mask: BoolArray, view: View, model: ObjectModel
    ) -> list[SimilarityPose]:
        if not self.config.matching.point_matches or model.scale_m is None:
            return []
        pairs_ref, pairs_live, similarity = match_points(
            view.features, view.feature_mask, features, _crop_mask(mask, crop)
        )
        reference_uv, live_uv = np.rint(pairs_ref).astype(int), np.rint(pairs_live).astype(int)
        points_obj = view.feature_points_obj[reference_uv[:, 1], reference_uv[:, 0]].astype(np.float64)
        points_cam = _coordinates(crop, np.eye(4))[live_uv[:, 1], live_uv[:, 0]].astype(np.float64)
        known = np.isfinite(points_obj).all(axis=1) & np.isfinite(points_cam).all(axis=1)
        if known.sum() < MIN_MATCHES:
            return []
        pose = ransac_umeyama(
            points_obj[known] / model.scale_m, points_cam[known], similarity[known].astype(np.float64),
            self.config.registration, scale_m=model.scale_m,
        )
        return [] if pose is None else [pose]

    def _without_pose(self, mask: BoolArray, crop: ObjectCrop, nocs_map: NocsMap, reason: str) -> PoseEstimate:
        return PoseEstimate(
            pose=None, mask=mask, nocs=np.zeros((*mask.shape, 3), np.float32), crop=crop, nocs_map=nocs_map,
            reason=reason,
        )

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.stage_ms[stage] = self.stage_ms.get(stage, 0.0) + (time.perf_counter() - begin) * 1e3


def largest_component(mask: BoolArray) -> BoolArray:
    """The biggest 8-connected part of a mask: the object is in one piece but for stray pixels."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count <= 1:
        return mask
    result: BoolArray = labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    return result


def _crop_mask(mask: BoolArray, crop: ObjectCrop) -> BoolArray:
    """A mask of the whole picture, seen through the crop's window."""
    side = crop.rgb.shape[0]
    warped = cv2.warpAffine(mask.astype(np.uint8), crop.A_crop_image[:2], (side, side), flags=cv2.INTER_NEAREST)
    result: BoolArray = warped > 0
    return result


def _coordinates(crop: ObjectCrop, T_obj_cam: Float64Array) -> Float32Array:
    """(S, S, 3) float32 metric object coordinates of every pixel of a crop, NaN where there is no depth."""
    side = crop.rgb.shape[0]
    v, u = np.mgrid[:side, :side]
    rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(crop.K_crop).T
    depth_m = np.where(crop.depth_m > 0, crop.depth_m, np.nan)
    return transform(T_obj_cam, (rays * depth_m[..., None]).reshape(-1, 3)).reshape(side, side, 3).astype(np.float32)
