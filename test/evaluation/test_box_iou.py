"""3D IoU on boxes whose overlap is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from nocsfm_ros.evaluation.box_iou import box_iou, released_box_iou
from nocsfm_ros.geometry.transforms import make_T
from nocsfm_ros.types import Float64Array

SIZE_M = np.array([0.2, 0.1, 0.1])


def posed(x_m: float = 0.0, turn_deg: float = 0.0, axis: str = "y") -> Float64Array:
    return make_T(Rotation.from_euler(axis, turn_deg, degrees=True).as_matrix(), np.array([x_m, 0.05, 0.6]))


@pytest.mark.parametrize(("x_m", "iou"), [(0.0, 1.0), (0.1, 1 / 3), (0.2, 0.0), (0.5, 0.0)])
def test_box_iou_of_shifted_boxes_is_the_shared_part(x_m: float, iou: float) -> None:
    assert box_iou(posed(), posed(x_m), SIZE_M, SIZE_M) == pytest.approx(iou)


def test_box_iou_of_a_box_within_the_other_is_the_ratio_of_volumes() -> None:
    assert box_iou(posed(), posed(), SIZE_M, SIZE_M / 2) == pytest.approx(1 / 8)


def test_box_iou_is_of_the_boxes_around_the_turned_ones() -> None:
    side = 0.3 / np.sqrt(2)  # of the square around a rectangle of 0.2 x 0.1 turned by 45 degrees
    shared = 0.2 * 0.1
    expected = shared / (0.2 * 0.1 + side * side - shared)
    assert box_iou(posed(), posed(turn_deg=45), SIZE_M, SIZE_M) == pytest.approx(expected)


def test_box_iou_takes_the_scale_of_a_similarity() -> None:
    half = posed() @ np.diag([0.5, 0.5, 0.5, 1])
    assert box_iou(half, posed(), SIZE_M, SIZE_M) == pytest.approx(1 / 8)


def test_box_iou_takes_the_best_turn_of_a_symmetric_object() -> None:
    quarter = posed(turn_deg=90)
    assert box_iou(quarter, posed(), SIZE_M, SIZE_M) == pytest.approx(1 / 3)
    assert box_iou(quarter, posed(), SIZE_M, SIZE_M, symmetry=4) == pytest.approx(1)
    assert box_iou(quarter, posed(), SIZE_M, SIZE_M, symmetry=0) == pytest.approx(1)
    assert box_iou(quarter, posed(), SIZE_M, SIZE_M, symmetry=2) == pytest.approx(1 / 3)


def test_released_box_iou_ranges_over_the_coordinates_of_each_corner() -> None:
    assert released_box_iou(posed(), posed(), SIZE_M, SIZE_M) == pytest.approx(1)
    a, b = posed(), posed(0.1)
    low_a, high_a = _ranges(a)
    low_b, high_b = _ranges(b)
    shared = np.prod((np.minimum(high_a, high_b) - np.maximum(low_a, low_b)).clip(0))
    expected = shared / (np.prod(high_a - low_a) + np.prod(high_b - low_b) - shared)
    assert released_box_iou(a, b, SIZE_M, SIZE_M) == pytest.approx(expected)
    assert expected != pytest.approx(box_iou(a, b, SIZE_M, SIZE_M), abs=0.05)


def _ranges(T: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Smallest and largest of x, y, z of each corner, written out."""
    signs = [(x, y, z) for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)]
    corners = [T[:3, :3] @ (np.array(sign) * SIZE_M) + T[:3, 3] for sign in signs]
    return np.array([min(corner) for corner in corners]), np.array([max(corner) for corner in corners])
