"""The axis of round things: found in normals, outline and colours, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from test_verification import features_of, view_of

from nocsfm_ros.colour_alignment import log_opponent
from nocsfm_ros.geometry.camera import pixel_rays
from nocsfm_ros.geometry.transforms import rotation_angle_deg, transform
from nocsfm_ros.object_model import ObjectModel, View
from nocsfm_ros.registration import ObjectCloud
from nocsfm_ros.revolution import Axis, find_axis, fit_axis, nearest_turn
from nocsfm_ros.types import BoolArray, Float32Array, Float64Array, ObjectCrop, SimilarityPose, Uint8Array

SIDE, RANGE_M, RADIUS_M, HALF_M = 224, 0.6, 0.05, 0.06
K_CROP = np.array([[600.0, 0, 111.5], [0, 600.0, 111.5], [0, 0, 1]])
GREY = np.full((SIDE, SIDE, 3), 110, np.uint8)
RAYS = pixel_rays((SIDE, SIDE), K_CROP)


def can_depth_m() -> Float32Array:
    """An upright can before a wall, its axis through (0, 0, RANGE_M)."""
    x, _, z = np.moveaxis(RAYS, 2, 0)
    a, b, c = x**2 + z**2, RANGE_M * z, RANGE_M**2 - RADIUS_M**2
    root = b**2 - a * c
    hit = (b - np.sqrt(np.maximum(root, 0))) / a
    on_can = (root > 0) & (np.abs(hit * RAYS[..., 1]) < HALF_M)
    return np.where(on_can, hit, 1.0).astype(np.float32)


def model_of(depth_m: Float32Array, mask: BoolArray, rgb: Uint8Array = GREY) -> ObjectModel:
    points = RAYS[mask] * depth_m[mask][:, None].astype(np.float64)
    view: View = replace(
        view_of(features_of(0), mask), crop=ObjectCrop(rgb, depth_m, np.eye(3), K_CROP), points_obj=points,
        colour_points_obj=points, colours=log_opponent(rgb)[mask],
    )
    return ObjectModel("can", [view], 0.15, ObjectCloud(points, viewpoints_obj=np.zeros_like(points)))


def checked(seed: int) -> Uint8Array:
    """A print of large coloured fields."""
    fields = np.random.default_rng(seed).integers(0, 255, (8, 8, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(fields, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST), np.uint8)


def test_axis_of_a_plain_can_is_found() -> None:
    depth_m = can_depth_m()
    axis = find_axis(model_of(depth_m, depth_m < 1))
    assert axis is not None and abs(axis.direction[1]) > np.cos(np.radians(3))
    aside = np.cross(axis.direction, axis.point_m - np.array([0, 0, RANGE_M]))
    assert np.linalg.norm(aside) < 0.003


def test_printed_can_has_none() -> None:
    depth_m = can_depth_m()
    assert find_axis(model_of(depth_m, depth_m < 1, checked(0))) is None


def test_can_with_a_handle_has_none() -> None:
    depth_m = can_depth_m()
    handle = np.zeros((SIDE, SIDE), bool)
    handle[85:135, 165:180] = True  # too small to keep the normals from meeting the axis
    depth_m[handle] = RANGE_M
    assert find_axis(model_of(depth_m, depth_m < 1)) is None


def test_object_without_a_scale_yet_has_none() -> None:
    depth_m = can_depth_m()
    model = model_of(depth_m, depth_m < 1)
    model.scale_m, model.cloud = None, None
    assert find_axis(model) is None


def box_surface(sides: int) -> tuple[Float64Array, Float64Array]:
    """Points and normals of some sides of a cube of 8 cm."""
    points, normals = np.random.default_rng(0).uniform(-0.04, 0.04, (sides, 200, 3)), np.zeros((sides, 200, 3))
    for side in range(sides):
        points[side, :, side], normals[side, :, side] = 0.04, 1
    return points.reshape(-1, 3), normals.reshape(-1, 3)


@pytest.mark.parametrize("sides", [1, 2, 3])
def test_boxes_and_planes_have_none(sides: int) -> None:
    assert fit_axis(*box_surface(sides), 0.1) is None


def test_axis_of_a_noisy_half_cone_is_found_in_any_frame() -> None:
    rng = np.random.default_rng(0)
    angle, along = rng.uniform(-1.3, 1.3, 500), rng.uniform(0, 0.1, 500)
    points = np.stack([(0.02 + 0.3 * along) * np.sin(angle), along, -(0.02 + 0.3 * along) * np.cos(angle)], axis=1)
    normals = np.stack([np.sin(angle), np.full(500, -0.3), -np.cos(angle)], axis=1)
    normals = normals / np.linalg.norm(normals, axis=1, keepdims=True) + rng.normal(0, 0.05, (500, 3))
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = cv2.Rodrigues(np.array([0.5, 0.3, -0.8]))[0], (0.1, 0.2, 0.7)
    axis = fit_axis(transform(T, points), normals @ T[:3, :3].T, 0.12)
    assert axis is not None and abs(axis.direction @ T[:3, 1]) > np.cos(np.radians(2))
    assert np.linalg.norm(np.cross(axis.direction, axis.point_m - T[:3, 3])) < 0.003


@pytest.mark.parametrize("angle", [0.7, -2.0, 3.0])
def test_nearest_turn_undoes_a_spin_and_keeps_the_axis(angle: float) -> None:
    axis = Axis(np.array([0.0, 1.0, 0.0]), np.array([0.01, 0.0, 0.0]))
    R = np.asarray(cv2.Rodrigues(np.array([0.5, 0.3, -0.8]))[0], np.float64)
    last = SimilarityPose(R, np.array([0.1, 0.2, 0.7]), 0.1)
    T = last.T_cam_obj @ axis.turn(angle)
    found = nearest_turn(SimilarityPose(T[:3, :3], T[:3, 3], 0.1), last, axis)
    assert rotation_angle_deg(found.R_cam_obj, last.R_cam_obj) < 1e-4
    assert np.allclose(found.t_cam_obj, last.t_cam_obj)
