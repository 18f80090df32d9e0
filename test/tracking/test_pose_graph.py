"""Views around an object, each placed a little worse than the one before: a closed loop pulls them straight."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from nocsfm_ros.colour_alignment import log_opponent
from nocsfm_ros.config import RegistrationConfig
from nocsfm_ros.geometry.camera import backproject
from nocsfm_ros.geometry.transforms import invert, make_T, moved, rotation_angle_deg, transform
from nocsfm_ros.object_model import ObjectModel, View
from nocsfm_ros.registration import Registration
from nocsfm_ros.tracking import pose_graph
from nocsfm_ros.tracking.pose_graph import PoseGraph, moved_view
from nocsfm_ros.types import Float64Array, ObjectCrop, SimilarityPose

CONFIG, SCALE_M, AROUND = RegistrationConfig(), 0.3, 9
T_CAM_OBJ = make_T(np.eye(3), np.array([0, 0, 0.6]))
SIDE, K = 64, np.array([[150.0, 0, 31.5], [0, 150.0, 31.5], [0, 0, 1]])
GREY = ObjectCrop(np.full((SIDE, SIDE, 3), 120, np.uint8), np.full((SIDE, SIDE), 0.6, np.float32), np.eye(3), K)


def surface() -> tuple[Float64Array, Float64Array]:
    """Points (N, 3) of a lump that looks different from every side, and their outward directions."""
    random = np.random.default_rng(0)
    directions = random.normal(size=(9000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    bumps = random.normal(size=(14, 3))
    bumps /= np.linalg.norm(bumps, axis=1, keepdims=True)
    height = np.exp(6 * (directions @ bumps.T - 1)).sum(axis=1)
    return directions * (0.06 + 0.02 * height[:, None]) * (1.0, 1.2, 0.6), directions


def view_from(angle_deg: float, error_deg: float) -> View:
    """What a camera that has gone around by an angle sees, placed wrongly in the object frame by an error."""
    points, outward = surface()
    T_cam_obj = T_CAM_OBJ @ make_T(Rotation.from_euler("y", angle_deg, degrees=True).as_matrix(), np.zeros(3))
    seen = (outward @ T_cam_obj[:3, :3].T)[:, 2] < -0.2
    nothing: Any = None
    some = points[seen][::3]
    grid = np.full((2, 2, 3), np.nan, np.float32)
    grid[0, 0] = some[0]
    view = View(
        T_cam_obj, np.eye(4), SCALE_M, nothing, nothing, GREY, nothing, np.zeros((SIDE, SIDE), bool), grid, some,
        some[:5], nothing, np.zeros((5, 3), np.float32),
    )
    return moved_view(view, np.concatenate([np.zeros(3), np.radians([0, error_deg, 0])]))


def error_deg(view: View, angle_deg: float) -> float:
    R = T_CAM_OBJ[:3, :3] @ Rotation.from_euler("y", angle_deg, degrees=True).as_matrix()
    return rotation_angle_deg(view.R_cam_obj, R)


def walked(step_deg: float, drift_deg: float, count: int) -> tuple[ObjectModel, list[bool]]:
    """The model after `count` views, each `step_deg` further and `drift_deg` worse, and when it was pulled straight."""
    model = ObjectModel("lump", [view_from(0, 0)], SCALE_M, None)
    model.rebuild_cloud()
    graph, pulled = PoseGraph(model), []
    for number in range(1, count):
        view = view_from(number * step_deg, number * drift_deg)
        model.add_view(view)
        pulled.append(graph.add(view, CONFIG))
    return model, pulled


def test_moved_view_moves_all_its_points_alike() -> None:
    view, motion = view_from(30, 0), np.array([0.01, 0, 0.02, 0.1, 0.2, 0])
    after, T = moved_view(view, motion), moved(np.eye(4), motion)
    np.testing.assert_allclose(after.points_obj, transform(T, view.points_obj))
    np.testing.assert_allclose(after.colour_points_obj, transform(T, view.colour_points_obj))
    np.testing.assert_allclose(after.feature_points_obj[0, 0], after.points_obj[0], atol=1e-6)
    assert np.isnan(after.feature_points_obj[1, 1]).all()
    seen = transform(view.T_cam_obj, view.points_obj)
    np.testing.assert_allclose(transform(after.T_cam_obj, after.points_obj), seen, atol=1e-12)
    np.testing.assert_allclose(after.T_cam_obj @ after.T_obj_anchor, view.T_cam_obj @ view.T_obj_anchor, atol=1e-12)


def test_closed_loop_pulls_drifted_keyframes_straight_and_keeps_the_reference() -> None:
    model, pulled = walked(40, 0.8, AROUND)
    errors = [error_deg(view, 40 * number) for number, view in enumerate(model.views)]
    assert pulled[-1] and errors[0] == 0
    assert max(errors) < 0.5 * 0.8 * (AROUND - 1)  # the worst was 6.4 degrees off


def test_small_steps_drift_little_as_the_oldest_view_is_compared_too() -> None:
    model, _ = walked(6, 0.5, 8)
    # placed up to 3.5 degrees off; 0.67 are left where only the three nearest are compared
    assert max(error_deg(view, 6 * number) for number, view in enumerate(model.views)) < 0.45


def test_right_keyframes_stay_right() -> None:
    model, _ = walked(40, 0.0, AROUND)
    assert max(error_deg(view, 40 * number) for number, view in enumerate(model.views)) < 0.2


def test_views_that_do_not_overlap_are_left_alone() -> None:
    model, pulled = walked(60, 2.0, 4)
    assert not any(pulled)
    assert [error_deg(view, 60 * number) for number, view in enumerate(model.views)] == pytest.approx([0, 2, 4, 6])


@pytest.mark.parametrize(("slid_deg", "linked"), [(0.0, True), (8.0, False)])
def test_surfaces_that_meet_where_the_colours_do_not_are_no_link(
    slid_deg: float, linked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = np.random.default_rng(0).uniform(40, 220, (10, 10, 3)).astype(np.float32)
    rgb = cv2.resize(blobs, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)
    inside = np.zeros((SIDE, SIDE), bool)
    inside[16:48, 16:48] = True
    points_cam, uv = backproject(GREY.depth_m, K, inside)
    points_obj = transform(invert(T_CAM_OBJ), points_cam)
    plate = replace(view_from(0, 0), crop=replace(GREY, rgb=rgb), colour_points_obj=points_obj,
                    colours=log_opponent(rgb)[uv[:, 1], uv[:, 0]])
    R = Rotation.from_euler("z", slid_deg, degrees=True).as_matrix()
    slid = Registration(SimilarityPose(R, T_CAM_OBJ[:3, 3], SCALE_M), 1.0, 0.0, 1e-8 * np.eye(6))
    monkeypatch.setattr(pose_graph, "refine", lambda *_: slid)
    assert (pose_graph.compared(plate, plate, SCALE_M, CONFIG) is not None) == linked


def test_forgotten_keyframes_are_no_longer_compared() -> None:
    model, _ = walked(40, 0.5, 4)
    model.forget_keyframes()
    graph = PoseGraph(model)
    view = view_from(40, 0.5)
    model.add_view(view)
    graph.links = [link for link in graph.links if link.first is not view]
    assert not graph.add(view, CONFIG) and len(graph.links) <= 1
    assert invert(model.views[0].T_cam_obj) is not None
