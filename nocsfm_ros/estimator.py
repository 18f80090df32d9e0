"""One frame, one object, straight down: crop -> flow -> NOCS and mask -> back-project -> register -> verify."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import numpy.typing as npt

from nocsfm_ros.colour_alignment import ColourPicture, align_colours, log_opponent
from nocsfm_ros.confidence import Scores, combine_looks, combine_scores
from nocsfm_ros.config import Config
from nocsfm_ros.flow.model import FEATURE_SIDE, FlowModel
from nocsfm_ros.geometry.camera import rolled, rolled_box
from nocsfm_ros.geometry.crops import (
    R_ray_cam,
    box_from_mask,
    coordinates,
    crop_frame,
    crop_mask,
    paste,
    resized_mask,
    square_box,
)
from nocsfm_ros.geometry.nocs import anchored_frame
from nocsfm_ros.geometry.transforms import invert, make_T, rotation_angle_deg, transform
from nocsfm_ros.hypotheses import flow_pose, guessed_poses, match_pose
from nocsfm_ros.masks import (
    SAME_SURFACE,
    colour_grid,
    large_components,
    near_surface,
    outside_empty_space,
    within_memory,
)
from nocsfm_ros.matching.backbone import Backbone, FeatureMap
from nocsfm_ros.matching.localiser import EncodedFrame, encode_frame, encode_reference, part_around
from nocsfm_ros.object_model import ObjectModel, View
from nocsfm_ros.registration import Registration, best_pose, held_to, object_points, refine
from nocsfm_ros.types import (
    BoolArray,
    BoxXywh,
    Float64Array,
    NocsMap,
    ObjectCrop,
    PoseEstimate,
    RgbdFrame,
    SimilarityPose,
)
from nocsfm_ros.verification import (
    chroma,
    colour_difference,
    coordinate_error,
    depth_agreement,
    is_new_side,
    look_similarity,
    mask_coverage,
    pose_similarity,
)

MIN_POINTS = 30
MAX_NEW = 0.75  # of the live points: where even more are on sides not seen yet, they count against the pose
REFINED_WHEN_TRACKED, REFINED_WHEN_SEARCHED = 1, 4  # hypotheses given to ICP beside the prior, 7 to 15 ms each
LOOK_WEIGHT = 2.0  # similarity against geometric fit, when refined poses are compared; measured on held-out renders
COLOUR_WEIGHT = 1.0  # misfit of the colours, likewise: features hardly see a turn of 20 degrees
COLOURS_DEG = 45.0  # further round, shading has changed too much for colours to be compared
UNREFINED_COVARIANCE = np.diag([0.01**2] * 3 + [0.2**2] * 3)  # a pose from the flow alone: 1 cm, 0.2 rad
# What the residuals do not see is how right the memory is, as a deviation: of scale_m, and radians. Fitted by
# benchmarks/fit_covariance.py to videos of training objects
MEMORY_SHIFT, MEMORY_TURN = 0.0017, 0.0049


@dataclass(frozen=True)
class _Look:
    """A crop of one frame with all that is computed of it before any pose."""

    frame: RgbdFrame
    view: View
    crop: ObjectCrop
    nocs_map: NocsMap
    mask: BoolArray  # what the flow takes for the object, stray pixels and all
    feature_crop: ObjectCrop
    features: FeatureMap
    colours: ColourPicture

    def likeness(self, pose: SimilarityPose) -> float:
        """What refined poses get for looking like the view: shape alone cannot tell the faces of a carton apart."""
        compared = self.colours.compare([self.view], pose)
        misfit = 0.0 if compared is None else compared.misfit
        similarity = pose_similarity(pose, self.view, self.feature_crop, self.features) or 0.0
        return LOOK_WEIGHT * similarity - COLOUR_WEIGHT * misfit


class Estimator:
    """Stateless but for the newest frame's features: what is remembered of an object is in the ObjectModel.

    Args:
        flow: the learned part.
        backbone: dense features.
        config: thresholds; may be replaced between frames.
        search_backbone: features by which the object is found in the whole frame; None takes the backbone's.
    """

    def __init__(
        self, flow: FlowModel, backbone: Backbone, config: Config, search_backbone: Backbone | None = None
    ) -> None:
        self.flow, self.backbone, self.config = flow, backbone, config
        self.search_backbone = search_backbone or backbone
        self.stage_ms: dict[str, float] = {}
        self._encoded: tuple[RgbdFrame, EncodedFrame] | None = None

    def encode_frame(self, frame: RgbdFrame) -> EncodedFrame:
        """Features of the whole frame: one backbone pass, however many objects are searched in it."""
        if self._encoded is None or self._encoded[0] is not frame:
            with self._timed("search"):
                self._encoded = frame, encode_frame(
                    frame.rgb, self.search_backbone, self.config.matching, frame.depth_m, float(frame.K[0, 0])
                )
        return self._encoded[1]

    def estimate(
        self, frame: RgbdFrame, box_xywh: BoxXywh, model: ObjectModel, priors: Sequence[SimilarityPose] = (),
        is_followed: bool = False,
    ) -> PoseEstimate:
        """The object's pose in the frame, looked for near a box.

        Args:
            frame: colour and registered depth.
            box_xywh: about the object's box, pixels of the frame.
            model: the object.
            priors: believable poses (the last one, the predicted one), best first.
            is_followed: the object is known to be here: it may turn a side to the camera that was not seen before.

        Returns:
            An estimate; its pose is None, with the reason, when there are not enough points or matches for one.
        """
        look = self._look(frame, box_xywh, [model.nearest_view(priors[0].R_cam_obj)] if priors else model.sights)
        estimate = self._from_mask(look, model, priors, is_followed)
        if model.cloud is None or estimate.confidence >= self.config.tracking.min_confidence:
            return estimate
        everywhere = np.ones(look.crop.depth_m.shape, bool)
        start = priors[0] if priors else self._match_pose(look, everywhere, model)
        if start is None:
            return estimate
        # where its pose fails, its mask is worth as little
        on_surface = self._from_surface(look, model, start, is_followed)
        return on_surface if on_surface.confidence >= self.config.tracking.min_confidence else estimate

    def second_look(self, frame: RgbdFrame, estimate: PoseEstimate, model: ObjectModel) -> PoseEstimate:
        """A searched box is rough: estimate again with the box of the mask it led to, and keep the better answer."""
        box_xywh = box_from_mask(estimate.mask)
        if estimate.pose is None or box_xywh is None:
            return estimate
        again = self.estimate(frame, box_xywh, model, [estimate.pose])
        return again if again.confidence >= estimate.confidence else estimate

    def _look(self, frame: RgbdFrame, box_xywh: BoxXywh, views: Sequence[View]) -> _Look:
        """Crop, features, flow: all that costs time and does not depend on a pose; by the likest of the views."""
        square = square_box(box_xywh, self.config.matching.crop_margin)
        with self._timed("crop"):
            crop = crop_frame(frame.rgb, frame.depth_m, frame.K, square, self.flow.crop_side)
        with self._timed("features"):
            feature_crop, features = self.encode_features(frame, square)
            view = views[0] if len(views) == 1 else max(views, key=lambda view: view.likeness(features))
        with self._timed("flow"):
            nocs_map = self.flow.predict(
                crop, view.encoded, view.anchor_scale_m, features.features, self.config.model.steps
            )
        mask = nocs_map.mask_prob > self.config.registration.mask_threshold
        return _Look(frame, view, crop, nocs_map, mask, feature_crop, features, ColourPicture(crop, mask))

    def _from_mask(
        self, look: _Look, model: ObjectModel, priors: Sequence[SimilarityPose], is_followed: bool = False
    ) -> PoseEstimate:
        """The usual way: the flow's mask says which depth pixels are the object."""
        mask_crop = large_components(look.mask)
        if mask_crop.sum() < self.config.tracking.min_mask_pixels:
            return self._answer(look, mask_crop, "the flow sees no object in the crop")
        points_cam, pixels_uv = object_points(look.crop.depth_m, mask_crop, look.crop.K_crop, self.config.registration)
        if len(points_cam) < MIN_POINTS:
            return self._answer(look, mask_crop, f"only {len(points_cam)} pixels of the mask have depth")
        with self._timed("hypotheses"):
            matched = self._match_pose(look, mask_crop, model)
            hypotheses = [
                *self._flow_poses(look, points_cam, pixels_uv, model), *([] if matched is None else [matched]),
                *(priors[1:] if priors else guessed_poses(look.crop, points_cam, look.view, model)),
            ]
        if not hypotheses and not priors:
            return self._answer(look, mask_crop, "no three correspondences agree on a pose")
        near = priors[0] if priors else None
        best, new_share = self._registered(look, model, hypotheses, points_cam, near, is_followed)
        confidence, reason, similarity, colour = self._verify(look, model, best, mask_crop)
        if confidence >= self.config.tracking.min_confidence:
            # a pose that holds knows better than the flow what cannot be the object and what lies on its known surface
            points_obj = coordinates(look.crop, invert(best.pose.T_cam_obj))
            on_surface = near_surface(points_obj, best.pose, model, SAME_SURFACE)
            mask_crop = within_memory(mask_crop & ~on_surface, points_obj, best.pose, model)
            mask_crop = outside_empty_space(mask_crop, points_obj, best.pose, model) | on_surface
        return self._answer(look, mask_crop, reason, best, confidence, similarity, colour, new_share)

    def _registered(
        self, look: _Look, model: ObjectModel, hypotheses: Sequence[SimilarityPose], points_cam: Float64Array,
        near: SimilarityPose | None, is_followed: bool,
    ) -> tuple[Registration, float]:
        """The best pose, and the share of the points on sides not seen yet, which do not count against it."""
        if model.cloud is None:  # a reference without depth: this frame gives the scale, and the cloud comes from it
            first = next(pose for pose in (*hypotheses, near) if pose is not None)
            return Registration(first, 1.0, 0.0, UNREFINED_COVARIANCE), 0.0
        is_new = partial(is_new_side, model=model) if is_followed else None
        with self._timed("registration"):
            best = best_pose(
                hypotheses, points_cam, model.cloud, self.config.registration, look.likeness,
                REFINED_WHEN_SEARCHED if near is None else REFINED_WHEN_TRACKED, is_new, near,
            )
        best = self._coloured(best, look, model)
        if near is not None and is_followed:
            best = held_to(best, near)
        if is_new is None:
            return best, 0.0
        new_share = float(is_new(best.pose, points_cam).mean())
        if new_share > MAX_NEW:
            return best, new_share
        return replace(best, inlier_ratio=min(best.inlier_ratio / (1 - new_share), 1.0)), new_share

    def _from_surface(
        self, look: _Look, model: ObjectModel, prior: SimilarityPose, is_followed: bool
    ) -> PoseEstimate:
        """When the mask misleads (an occluder, a hand): the depth pixels near the surface where it should be."""
        near = near_surface(coordinates(look.crop, invert(prior.T_cam_obj)), prior, model)
        points_cam, _ = object_points(look.crop.depth_m, near, look.crop.K_crop, self.config.registration)
        if model.cloud is None or len(points_cam) < MIN_POINTS:
            return self._answer(look, near, "nothing at the predicted pose")
        with self._timed("registration"):
            best = refine(prior, points_cam, model.cloud, self.config.registration)
        best = self._coloured(best, look, model)
        if is_followed:
            best = held_to(best, prior)
        near = near_surface(coordinates(look.crop, invert(best.pose.T_cam_obj)), best.pose, model)
        confidence, reason, similarity, colour = self._verify(look, model, best, near)
        return self._answer(look, near, reason, best, confidence, similarity, colour)

    def _coloured(self, best: Registration, look: _Look, model: ObjectModel) -> Registration:
        """Moved to where the colours fit: of the nearest view, and of the oldest, whose pose has the least error."""
        R_cam_obj = best.pose.R_cam_obj
        alike = [view for view in model.sights if rotation_angle_deg(view.R_cam_obj, R_cam_obj) < COLOURS_DEG]
        nearest = model.nearest_view(R_cam_obj)
        views = [view for view in alike if view is alike[0] or view is nearest]
        with self._timed("colours"):
            return align_colours(best, views, look.colours)

    def _verify(
        self, look: _Look, model: ObjectModel, best: Registration, mask_crop: BoolArray
    ) -> tuple[float, str, float, float | None]:
        """Confidence, the reason in words, similarity to the nearest view, difference in colour to the reference."""
        with self._timed("verify"):
            pose, features = best.pose, look.features
            view = model.nearest_view(pose.R_cam_obj)
            similarity = pose_similarity(pose, view, look.feature_crop, features)
            if similarity is None:
                similarity = look_similarity(view, features, resized_mask(mask_crop, look.feature_crop))
            colour = colour_difference(pose, view, look.crop, mask_crop)
            compared = look.colours.compare([view], pose)
            if model.cloud is None:
                confidence, reason = combine_looks(similarity, float(look.nocs_map.mask_prob[mask_crop].mean()))
            else:
                confidence, reason = combine_scores(Scores(
                    fit=best.inlier_ratio, agreement=depth_agreement(pose, model, look.frame), similarity=similarity,
                    correlation=None if compared is None else compared.correlation,
                    colour=colour, coverage=mask_coverage(pose, model, look.crop, look.nocs_map.mask_prob),
                    coordinates=coordinate_error(pose, look.view, look.crop, look.nocs_map, mask_crop),
                ))
            if view is not model.views[0]:  # a keyframe has the colours of whatever was followed
                colour = colour_difference(pose, model.views[0], look.crop, mask_crop)
            return confidence, reason, similarity, colour

    def _answer(
        self, look: _Look, mask_crop: BoolArray, reason: str, best: Registration | None = None,
        confidence: float = 0.0, similarity: float = 0.0, colour: float | None = None, new_share: float = 0.0,
    ) -> PoseEstimate:
        """Mask and NOCS pasted into the whole picture, NOCS only where there is a pose."""
        A, size_wh = look.crop.A_crop_image, look.frame.size_wh
        mask = paste(mask_crop.astype(np.uint8), A, size_wh, nearest=True) > 0
        if best is None:
            nocs = np.zeros((*mask.shape, 3), np.float32)
            return PoseEstimate(None, mask, nocs, crop=look.crop, nocs_map=look.nocs_map, reason=reason)
        in_object = look.view.nocs_in_object(look.nocs_map.nocs, best.pose.scale_m)
        return PoseEstimate(
            pose=best.pose, mask=mask, nocs=paste(in_object, A, size_wh).astype(np.float32) * mask[..., None],
            crop=look.crop, nocs_map=look.nocs_map, confidence=confidence, inlier_ratio=best.inlier_ratio,
            similarity=similarity, colour=colour, new_share=new_share, residual_m=best.residual_m,
            covariance=best.covariance + memory_covariance(best.pose.scale_m), reason=reason,
        )

    def mask_as_in(self, frame: RgbdFrame, box_xywh: BoxXywh, view: View) -> BoolArray:
        """(H, W) bool: what the flow takes for the object near a box when it is shown this view of it."""
        look = self._look(frame, box_xywh, [view])
        return paste(look.mask.astype(np.uint8), look.crop.A_crop_image, frame.size_wh, nearest=True) > 0

    def make_model(
        self, object_id: str, frame: RgbdFrame, mask: BoolArray, box_xywh: BoxXywh
    ) -> ObjectModel:
        """What one picture tells of an object; its scale and cloud are None where the depth shows no smooth surface.

        Args:
            object_id: its name.
            frame: the picture; depth_m may be all zeros.
            mask: (H, W) bool.
            box_xywh: about the object, the mask's or a wider one.
        """
        view = self.make_view(frame, mask, box_xywh, None)
        model = ObjectModel(object_id, [view], view.anchor_scale_m, None)
        T_cam_obj = view.T_cam_obj
        for _ in range(3):
            box_xywh, mask = rolled_box(box_xywh, frame.size_wh[0]), np.ascontiguousarray(np.rot90(mask))
            frame, T_rolled_cam = rolled(frame)
            T_cam_obj = T_rolled_cam @ T_cam_obj
            model.rolled.append(self.make_view(frame, mask, box_xywh, T_cam_obj))
        model.rebuild_cloud()
        return model

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
        crop = crop_frame(frame.rgb, frame.depth_m, frame.K, square, self.flow.crop_side)
        mask_crop = crop_mask(mask, crop)
        points_cam, _ = object_points(crop.depth_m, mask_crop, crop.K_crop, self.config.registration)
        has_depth = len(points_cam) >= MIN_POINTS
        m_per_pixel = float(np.median(points_cam[:, 2]) / frame.K[0, 0]) if has_depth else None
        R_anchor_cam = R_ray_cam(crop.K_crop, self.flow.crop_side)
        anchor = anchored_frame(points_cam, R_anchor_cam[2]) if has_depth else None
        T_cam_anchor = make_T(R_anchor_cam.T, np.zeros(3)) if anchor is None else anchor.T_cam_obj
        T_obj_cam = invert(T_cam_anchor if T_cam_obj is None else T_cam_obj)
        nocs = None if anchor is None else coordinates(crop, invert(T_cam_anchor)) / np.float32(anchor.scale_m)
        feature_crop, features = self.encode_features(frame, square)
        feature_mask = crop_mask(mask, feature_crop)
        feature_points = coordinates(feature_crop, T_obj_cam)
        feature_points[~feature_mask] = np.nan
        part, part_mask, shrink = part_around(frame.rgb, mask, box_xywh)
        coloured = colour_grid(mask_crop) & has_depth & (crop.depth_m > 0)
        return View(
            T_cam_obj=invert(T_obj_cam), T_obj_anchor=T_obj_cam @ T_cam_anchor,
            anchor_scale_m=None if anchor is None else anchor.scale_m,
            encoded=self.flow.encode_view(crop, mask_crop, nocs, features.features),
            search=cache(partial(
                encode_reference, part, part_mask, self.search_backbone, m_per_pixel and m_per_pixel * shrink,
            )),
            crop=crop,
            features=features,
            feature_mask=feature_mask,
            feature_points_obj=feature_points if has_depth else np.full_like(feature_points, np.nan),
            points_obj=transform(T_obj_cam, points_cam) if has_depth else np.zeros((0, 3)),
            colour_points_obj=coordinates(crop, T_obj_cam)[coloured].astype(np.float64),
            chroma=chroma(crop.rgb, mask_crop)[coloured], colours=log_opponent(crop.rgb, mask_crop)[coloured],
        )

    def encode_features(self, frame: RgbdFrame, square: BoxXywh) -> tuple[ObjectCrop, FeatureMap]:
        """The larger crop in which points are matched, and its features."""
        crop = crop_frame(frame.rgb, frame.depth_m, frame.K, square, FEATURE_SIDE)
        return crop, self.backbone.encode(crop.rgb)

    def _flow_poses(
        self, look: _Look, points_cam: Float64Array, pixels_uv: npt.NDArray[np.int_], model: ObjectModel
    ) -> list[SimilarityPose]:
        """By the network's coordinates, and by its own matches."""
        view = look.view
        dense = flow_pose(look.nocs_map, points_cam, pixels_uv, self.config.registration, view.anchor_scale_m)
        return [
            view.pose_from_anchor(anchor, anchor.scale_m if model.scale_m is None else model.scale_m)
            for anchor in (dense, look.nocs_map.matched) if anchor is not None
        ]

    def _match_pose(self, look: _Look, mask_crop: BoolArray, model: ObjectModel) -> SimilarityPose | None:
        if not self.config.matching.point_matches:
            return None
        mask = resized_mask(mask_crop, look.feature_crop)
        return match_pose(look.view, look.feature_crop, look.features, mask, model, self.config.registration)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.stage_ms[stage] = self.stage_ms.get(stage, 0.0) + (time.perf_counter() - begin) * 1e3


def memory_covariance(scale_m: float, shift: float = MEMORY_SHIFT, turn: float = MEMORY_TURN) -> Float64Array:
    """(6, 6) of the memory's own error: shift (share of scale_m) and turn (radians), alike in all directions."""
    return np.diag([(shift * scale_m) ** 2] * 3 + [turn**2] * 3)
