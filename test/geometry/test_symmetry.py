"""Symmetry groups: their turns, and the one of them that leaves the least of a view change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from nocsfm_ros.geometry.symmetry import ABOUT, FLIPS, nearest_symmetries, nearest_symmetry, symmetry_turns
from nocsfm_ros.geometry.transforms import rotation_angle_deg

GROUPS = [0, 1, 4, 0 + FLIPS, 2 + FLIPS, 6 + ABOUT["z"], 4 + ABOUT["x"] + FLIPS, 0 + ABOUT["x"]]


def test_turns_of_a_fold_about_y() -> None:
    turns = symmetry_turns(4)
    assert len(turns) == 4 and len(symmetry_turns(1)) == 1 and len(symmetry_turns(0)) == 20
    np.testing.assert_allclose(turns[1] @ turns[3], np.eye(4), atol=1e-12)
    np.testing.assert_allclose(turns[1][:3, :3] @ [0, 0, 1], [1, 0, 0], atol=1e-12)


@pytest.mark.parametrize(("axis", "along"), [("x", [1, 0, 0]), ("y", [0, 1, 0]), ("z", [0, 0, 1])])
def test_turns_leave_their_axis_and_flips_reverse_it(axis: str, along: list[int]) -> None:
    turned = symmetry_turns(6 + ABOUT[axis] + FLIPS)[:, :3, :3] @ along
    np.testing.assert_allclose(turned, np.repeat([along, np.negative(along)], 6, axis=0), atol=1e-12)


@pytest.mark.parametrize("symmetry", GROUPS)
def test_turns_are_a_group_of_rotations(symmetry: int) -> None:
    turns = symmetry_turns(symmetry)
    np.testing.assert_allclose(turns[0], np.eye(4))
    np.testing.assert_allclose(np.linalg.det(turns[:, :3, :3]), 1)
    for product in (turns[1 % len(turns)] @ turns).reshape(-1, 4, 4):
        assert np.abs(turns - product).max(axis=(1, 2)).min() < 1e-9


@pytest.mark.parametrize(("symmetry", "turn_deg", "left_deg"), [(1, 90, 90), (4, 100, 10), (2, 170, 10), (0, 137, 0)])
def test_nearest_symmetry_leaves_the_smallest_view_change(symmetry: int, turn_deg: float, left_deg: float) -> None:
    R_ref = Rotation.random(random_state=1).as_matrix()
    R_live = R_ref @ Rotation.from_euler("y", turn_deg, degrees=True).as_matrix()
    S = nearest_symmetry(R_ref, R_live, symmetry)[:3, :3]
    assert rotation_angle_deg(R_ref @ S, R_live) == pytest.approx(left_deg, abs=1e-6)


@pytest.mark.parametrize("symmetry", [group for group in GROUPS if group % ABOUT["z"]])
def test_nearest_symmetry_is_the_best_of_all_turns(symmetry: int) -> None:
    for seed in range(10):
        R_ref, R_live = Rotation.random(2, random_state=seed).as_matrix()
        best = min(rotation_angle_deg(R_ref @ turn[:3, :3], R_live) for turn in symmetry_turns(symmetry))
        S = nearest_symmetry(R_ref, R_live, symmetry)[:3, :3]
        assert rotation_angle_deg(R_ref @ S, R_live) == pytest.approx(best, abs=1e-6)


def test_nearest_symmetries_of_mixed_groups_are_those_of_each() -> None:
    R_ref, R_live = (torch.from_numpy(Rotation.random(len(GROUPS), random_state=seed).as_matrix()) for seed in (0, 1))
    together = nearest_symmetries(R_ref, R_live, torch.tensor(GROUPS))
    for place, symmetry in enumerate(GROUPS):
        alone = nearest_symmetry(R_ref[place].numpy(), R_live[place].numpy(), symmetry)
        np.testing.assert_allclose(together[place].numpy(), alone, atol=1e-12)
