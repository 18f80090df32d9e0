"""NOCS ranges and the frame a reference fixes."""

from __future__ import annotations

import numpy as np
import pytest

from nocsfm_ros.errors import ShapeError
from nocsfm_ros.geometry.nocs import (
    VISIBLE_TO_FULL_DIAGONAL,
    anchored_frame,
    nocs_from_nocs_rgb,
    nocs_rgb_from_nocs,
    points_from_nocs,
)
from nocsfm_ros.geometry.transforms import rotation_between


def test_nocs_rgb_round_trip_returns_the_coordinates() -> None:
    nocs = np.random.default_rng(0).uniform(-0.5, 0.5, (4, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(nocs_from_nocs_rgb(nocs_rgb_from_nocs(nocs)), nocs, atol=1e-6)


def test_nocs_rgb_out_of_range_is_cut() -> None:
    np.testing.assert_allclose(nocs_rgb_from_nocs(np.array([-0.7, 0, 0.9], np.float32)), [0, 0.5, 1])


def test_points_from_nocs_are_metres() -> None:
    points_obj = points_from_nocs(np.array([[0.5, -0.5, 0.1]], np.float32), 0.2)
    np.testing.assert_allclose(points_obj, [[0.1, -0.1, 0.02]], atol=1e-8)


def box_cloud() -> np.ndarray:
    return np.random.default_rng(0).uniform([-0.06, -0.04, 0.7], [0.06, 0.04, 0.8], (20000, 3))


def test_anchored_frame_straight_ahead_has_the_camera_axes() -> None:
    frame = anchored_frame(box_cloud(), np.array([0, 0, 2.0]))
    np.testing.assert_allclose(frame.R_cam_obj, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(frame.t_cam_obj, [0, 0, 0.75], atol=1e-3)
    robust = 0.96 * np.linalg.norm([0.12, 0.08, 0.1])
    assert frame.scale_m == pytest.approx(VISIBLE_TO_FULL_DIAGONAL * robust, rel=0.01)


def test_anchored_frame_to_the_side_looks_along_the_ray() -> None:
    ray = np.array([0.4, -0.2, 1.0])
    frame = anchored_frame(box_cloud() @ rotation_between(np.array([0, 0, 1.0]), ray).T, ray)
    np.testing.assert_allclose(frame.R_cam_obj[:, 2], ray / np.linalg.norm(ray), atol=1e-12)
    np.testing.assert_allclose(frame.R_cam_obj.T @ frame.t_cam_obj, [0, 0, 0.75], atol=1e-3)


def test_anchored_frame_one_stray_point_in_a_hundred_changes_little() -> None:
    cloud, clean = box_cloud(), anchored_frame(box_cloud(), np.array([0, 0, 1.0]))
    cloud[::100] = [0.5, 0.5, 3.0]
    dirty = anchored_frame(cloud, np.array([0, 0, 1.0]))
    assert np.linalg.norm(dirty.t_cam_obj - clean.t_cam_obj) < 0.003
    assert dirty.scale_m == pytest.approx(clean.scale_m, rel=0.03)


def test_anchored_frame_of_one_point_has_a_positive_scale() -> None:
    assert anchored_frame(np.array([[0, 0, 1.0]]), np.array([0, 0, 1.0])).scale_m > 0


def test_anchored_frame_of_nothing_raises() -> None:
    with pytest.raises(ShapeError):
        anchored_frame(np.zeros((0, 3)), np.array([0, 0, 1.0]))
