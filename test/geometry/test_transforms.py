"""Rigid transforms: inverses, angles and quaternions against analytic answers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from nocsfm_ros.errors import ShapeError
from nocsfm_ros.geometry.transforms import (
    cross,
    invert,
    make_T,
    motion_between,
    moved,
    nearest_rotation,
    quat_xyzw_from_rotation,
    rotation_angle_deg,
    rotation_between,
    rotation_from_quat_xyzw,
    transform,
)

R = Rotation.from_euler("xyz", [20, -50, 130], degrees=True).as_matrix()
T = make_T(R, np.array([1.0, -2, 3]))


def test_invert_undoes_the_transform() -> None:
    np.testing.assert_allclose(invert(T) @ T, np.eye(4), atol=1e-12)


def test_transform_is_the_matrix_product() -> None:
    points = np.random.default_rng(0).normal(size=(5, 3))
    np.testing.assert_allclose(transform(T, points), points @ R.T + [1, -2, 3], atol=1e-12)


def test_transform_of_wrong_shape_raises() -> None:
    with pytest.raises(ShapeError):
        transform(T, np.zeros((3, 4)))


@pytest.mark.parametrize("angle_deg", [0.0, 1e-6, 37.0, 179.99999, 180.0])
def test_rotation_angle_known_turn_is_found(angle_deg: float) -> None:
    turn = Rotation.from_rotvec(np.radians(angle_deg) * np.array([0.6, 0, 0.8])).as_matrix()
    assert rotation_angle_deg(R, R @ turn) == pytest.approx(angle_deg, abs=1e-6)


def test_motion_between_two_poses_is_shift_and_turn_along_the_outer_axes() -> None:
    turned = make_T(Rotation.from_rotvec([0, 0, 0.3]).as_matrix() @ R, T[:3, 3] + [0.1, 0, -0.2])
    np.testing.assert_allclose(motion_between(T, turned), [0.1, 0, -0.2, 0, 0, 0.3], atol=1e-12)


@pytest.mark.parametrize("angle_deg", [0.0, 1e-6, 80.0, 179.9999])
def test_moved_by_the_motion_between_arrives(angle_deg: float) -> None:
    turn = Rotation.from_rotvec(np.radians(angle_deg) * np.array([0.6, 0, 0.8])).as_matrix()
    T_to = make_T(turn @ R, np.array([0.3, 0.2, 0.1]))
    np.testing.assert_allclose(moved(T, motion_between(T, T_to)), T_to, atol=1e-9)


def test_quaternion_quarter_turn_about_z_is_in_ros_order() -> None:
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(quat_xyzw_from_rotation(quarter), [0, 0, 0.5**0.5, 0.5**0.5], atol=1e-12)


def test_quaternion_round_trip_returns_the_rotation() -> None:
    np.testing.assert_allclose(rotation_from_quat_xyzw(2 * quat_xyzw_from_rotation(R)), R, atol=1e-12)


def test_nearest_rotation_of_a_disturbed_one_is_a_rotation_nearby() -> None:
    found = nearest_rotation(R + 0.01 * np.random.default_rng(0).normal(size=(3, 3)))
    np.testing.assert_allclose(found @ found.T, np.eye(3), atol=1e-12)
    assert rotation_angle_deg(found, R) < 2


def test_nearest_rotation_of_a_mirror_is_no_mirror() -> None:
    assert np.linalg.det(nearest_rotation(R @ np.diag([1, 1, -1.0]))) == pytest.approx(1)


def test_cross_is_that_of_numpy() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 3))
    np.testing.assert_array_equal(cross(a, b), np.cross(a, b))
    np.testing.assert_array_equal(cross([1.0, 0, 0], [0.0, 1, 0]), [0, 0, 1])


def test_rotation_between_takes_the_smallest_turn() -> None:
    a, b = np.array([0.3, -2, 1]), np.array([1.0, 1, 4])
    turn = rotation_between(a, b)
    np.testing.assert_allclose(turn @ a / np.linalg.norm(a), b / np.linalg.norm(b), atol=1e-12)
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert rotation_angle_deg(np.eye(3), turn) == pytest.approx(np.degrees(np.arccos(cosine)))


def test_rotation_between_opposite_directions_raises() -> None:
    with pytest.raises(ValueError, match="opposite"):
        rotation_between(np.array([0, 0, 1.0]), np.array([0, 0, -2.0]))
