"""Where the object may be: poses from the flow, from feature matches, and from nothing but its reference."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from nocsfm_ros.config import RegistrationConfig
from nocsfm_ros.geometry.crops import R_ray_cam
from nocsfm_ros.matching.backbone import FeatureMap
from nocsfm_ros.object_model import ObjectModel, View
from nocsfm_ros.registration import ransac_umeyama
from nocsfm_ros.types import BoolArray, Float64Array, NocsMap, ObjectCrop, SimilarityPose

MIN_SIGMA = 0.01  # no coordinate is surer than this: a share of scale_m
MIN_MATCHES = 8
GUESSED_TURN_DEG = 25.0


def flow_pose(
    nocs_map: NocsMap, points_cam: Float64Array, pixels_uv: npt.NDArray[np.int_], config: RegistrationConfig,
    scale_m: float | None,
) -> SimilarityPose | None:
    """The pose of the frame in which the flow answers, from its coordinates at the given pixels of the crop.

    A pair counts by how surely it is object and how sure the flow is of its coordinates.
    """
    u, v = pixels_uv.T
    weights = nocs_map.mask_prob[v, u] / np.maximum(nocs_map.sigma[v, u], MIN_SIGMA) ** 2
    return ransac_umeyama(
        nocs_map.nocs[v, u].astype(np.float64), points_cam, weights.astype(np.float64), config, scale_m=scale_m
    )


def match_pose(
    view: View, crop: ObjectCrop, features: FeatureMap, mask: BoolArray, model: ObjectModel, config: RegistrationConfig
) -> SimilarityPose | None:
    """The pose that mutual nearest neighbours of features agree on, if they do.

    Args:
        view: the object.
        crop, features: the live crop for the backbone.
        mask: (S, S) bool of that crop: where matches are looked for.
        model: gives the scale.
        config: of RANSAC.
    """
    if model.scale_m is None:
        return None
    points_obj, pairs_live, similarity = view.matches(features, mask)
    live_uv = np.rint(pairs_live).astype(int)
    depth_m = crop.depth_m[live_uv[:, 1], live_uv[:, 0]].astype(np.float64)
    points_cam = np.column_stack([live_uv, np.ones(len(live_uv))]) @ np.linalg.inv(crop.K_crop).T * depth_m[:, None]
    known = np.isfinite(points_obj).all(axis=1) & (depth_m > 0)
    if known.sum() < MIN_MATCHES:
        return None
    return ransac_umeyama(
        points_obj[known] / model.scale_m, points_cam[known], similarity[known].clip(0).astype(np.float64), config,
        scale_m=model.scale_m,
    )


def guessed_poses(
    crop: ObjectCrop, points_cam: Float64Array, view: View, model: ObjectModel
) -> list[SimilarityPose]:
    """Where nothing else is known: seen as in the view itself, and turned GUESSED_TURN_DEG each way from there."""
    if model.scale_m is None or not len(view.points_obj):
        return []
    R_cam_anchor = R_ray_cam(crop.K_crop, crop.rgb.shape[0]).T
    middle_obj, middle_cam = np.median(view.points_obj, axis=0), np.median(points_cam, axis=0)
    turns = np.radians(GUESSED_TURN_DEG) * np.vstack([np.zeros(3), np.eye(3), -np.eye(3)])
    poses = []
    for turn in turns:
        R_cam_obj = R_cam_anchor @ cv2.Rodrigues(turn)[0] @ view.T_obj_anchor[:3, :3].T
        poses.append(SimilarityPose(R_cam_obj, middle_cam - R_cam_obj @ middle_obj, model.scale_m))
    return poses
