"""Hands hold what they are given."""

from __future__ import annotations

import numpy as np
import pytest

from nocsfm_ros.data.hands import HAND, holding_hand

UP = np.array([0.0, -1.0, 0.0])


def _sphere(radius_m: float) -> np.ndarray:  # type: ignore[type-arg]
    directions = np.random.default_rng(0).normal(size=(2000, 3))
    return radius_m * directions / np.linalg.norm(directions, axis=1, keepdims=True) + (0.1, 0, 0.8)


@pytest.mark.parametrize("seed", range(8))
def test_hand_around_sphere_touches_it_without_reaching_far_in(seed: int) -> None:
    items = holding_hand(np.random.default_rng(seed), _sphere(0.04), None)
    phalanges = [item for item in items if item.scale_m[0] < 0.1]  # type: ignore[index]
    gaps = [_least_distance(item) - 0.04 for item in phalanges]
    assert len(phalanges) >= 8 and all(item.instance == HAND for item in items)
    assert min(gaps) > -0.01 and np.median(gaps) < 0.02


@pytest.mark.parametrize("seed", range(8))
def test_arm_over_a_table_comes_from_above_it(seed: int) -> None:
    arm = holding_hand(np.random.default_rng(seed), _sphere(0.05), UP)[-1]
    assert (arm.T_cam_obj[:3, 3] - (0.1, 0, 0.8)) @ UP > 0


def _least_distance(item) -> float:  # type: ignore[no-untyped-def]
    along = np.linspace(-0.4, 0.4, 20)[:, None] * item.scale_m[1] * item.T_cam_obj[:3, 1]
    return float(np.linalg.norm(item.T_cam_obj[:3, 3] + along - (0.1, 0, 0.8), axis=1).min()) - item.scale_m[0] * 0.12
