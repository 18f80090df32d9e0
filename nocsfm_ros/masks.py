"""Which pixels of a crop are the object."""

from __future__ import annotations

import cv2
import numpy as np

from nocsfm_ros.object_model import ObjectModel
from nocsfm_ros.registration import ObjectCloud
from nocsfm_ros.types import BoolArray, Float32Array, Float64Array, SimilarityPose

BOX_SLACK = 0.15  # of scale_m: room for the sides not seen yet
SURFACE_SLACK = 0.05  # of scale_m: the error of a predicted pose
SAME_SURFACE = 0.02  # of scale_m: the error of a refined pose
MIN_PART = 0.05  # of the largest part's pixels
COLOUR_STEP = 2  # every second pixel's colour is remembered


def large_components(mask: BoolArray) -> BoolArray:
    """The 8-connected parts of a mask, without those smaller than MIN_PART of the largest.

    Behind a finger an object is in two parts; a stray pixel is none of it.
    """
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    areas = stats[:, cv2.CC_STAT_AREA]
    is_large = areas >= MIN_PART * areas[1:].max(initial=0)
    is_large[0] = False  # what is not in the mask
    result: BoolArray = is_large[labels]
    return result


def colour_grid(mask: BoolArray) -> BoolArray:
    """Every COLOUR_STEP-th pixel of a mask without its border, where colours are a mixture."""
    grid = np.zeros_like(mask)
    grid[::COLOUR_STEP, ::COLOUR_STEP] = True
    return grid & (cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)


def within_memory(
    mask_crop: BoolArray, points_obj: Float32Array, pose: SimilarityPose, model: ObjectModel
) -> BoolArray:
    """The mask without the pixels whose depth lies well outside the box of what is known of the object.

    Cuts off occluders and hands that the flow took for the object; pixels without depth stay.

    Args:
        mask_crop: (S, S) bool.
        points_obj: (S, S, 3) the crop's coordinates under the pose, see `coordinates`.
        pose: gives the scale of the slack.
        model: the memory.
    """
    if model.cloud is None:
        return mask_crop
    low, high = _widened_box(model.cloud, BOX_SLACK * pose.scale_m)
    outside = ((points_obj < low) | (points_obj > high)).any(axis=2)  # False for NaN
    result: BoolArray = mask_crop & ~outside
    return result


def outside_empty_space(
    mask_crop: BoolArray, points_obj: Float32Array, pose: SimilarityPose, model: ObjectModel
) -> BoolArray:
    """The mask without the pixels whose place a view has looked through: nothing of the object is there.

    Cuts off the hand that holds the object; pixels without depth stay. Arguments as for within_memory.
    """
    known = mask_crop & np.isfinite(points_obj).all(axis=2)
    places = points_obj[known].astype(np.float64)
    is_empty = np.any([view.looks_through(places, pose.scale_m) for view in model.views], axis=0)
    result = mask_crop.copy()
    result[known] = ~is_empty
    return result


def near_surface(
    points_obj: Float32Array, pose: SimilarityPose, model: ObjectModel, slack: float = SURFACE_SLACK
) -> BoolArray:
    """(S, S) bool: the pixels whose depth lies on the known surface under a pose, within `slack` of scale_m."""
    near = np.zeros(points_obj.shape[:2], bool)
    if model.cloud is not None:
        reach_m = slack * pose.scale_m
        low, high = _widened_box(model.cloud, reach_m)  # only pixels in there can be that near
        inside = ((points_obj > low) & (points_obj < high)).all(axis=2)  # False for NaN
        near[inside] = model.cloud.nearest(points_obj[inside].astype(np.float64))[1] < reach_m
    return near


def _widened_box(cloud: ObjectCloud, by_m: float) -> tuple[Float64Array, Float64Array]:
    return cloud.points_obj.min(axis=0) - by_m, cloud.points_obj.max(axis=0) + by_m
