"""ADD and ADD-S where the answer is known: shifts, symmetric objects, the area under the curve."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from nocsfm_ros.evaluation.point_errors import add_m, adds_m, area_under_curve
from nocsfm_ros.geometry.transforms import make_T
from nocsfm_ros.types import Float64Array


def turn(degrees: float, axis: str = "y") -> Float64Array:
    return make_T(Rotation.from_euler(axis, degrees, degrees=True).as_matrix(), np.array([0.1, 0.0, 0.6]))


RING_M = 0.1 * np.stack([np.cos(t := np.linspace(0, 2 * np.pi, 720, endpoint=False)), 0 * t, np.sin(t)], axis=1)
TWO_POINTS_M = np.array([[0.1, 0, 0], [-0.1, 0, 0]])


def test_add_of_a_shift_is_its_length() -> None:
    shifted = turn(20)
    shifted[:3, 3] += (0.03, 0.0, 0.04)
    assert add_m(shifted, turn(20), RING_M) == pytest.approx(0.05)


def test_add_of_a_half_turn_is_the_mean_way_of_the_points() -> None:
    assert add_m(turn(180), turn(0), TWO_POINTS_M) == pytest.approx(0.2)
    assert adds_m(turn(180), turn(0), TWO_POINTS_M) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("symmetry", "degrees"), [(2, 180.0), (4, 90.0), (0, 37.3)])
def test_add_of_a_turn_within_the_symmetry_is_zero(symmetry: int, degrees: float) -> None:
    points = np.random.default_rng(0).normal(0, 0.05, (50, 3))
    assert add_m(turn(degrees), turn(0), points, symmetry) == pytest.approx(0, abs=1e-9)
    assert add_m(turn(degrees), turn(0), points, 1) > 0.02


def test_add_of_a_continuous_symmetry_still_sees_the_tilt_of_the_axis() -> None:
    tilted = turn(123)
    tilted[:3, :3] = Rotation.from_euler("x", 30, degrees=True).as_matrix() @ tilted[:3, :3]
    error = add_m(tilted, turn(0), RING_M, 0)
    assert error == pytest.approx(0.1 * 2 * np.sin(np.radians(15)) * 2 / np.pi, rel=0.02)


def test_adds_of_a_symmetric_cloud_forgives_any_turn_of_it() -> None:
    assert adds_m(turn(45), turn(0), RING_M) < 1e-3
    assert add_m(turn(45), turn(0), RING_M) > 0.05


def test_area_under_curve_is_one_without_errors_and_zero_beyond_the_limit() -> None:
    assert area_under_curve(np.zeros(3), 0.1) == 1
    assert area_under_curve(np.array([0.0, 0.05, 0.2, np.inf]), 0.1) == pytest.approx(1.5 / 4)
