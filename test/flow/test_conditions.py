"""Conditions: coordinates against the pinhole formula, dropped inputs give zeros."""

from __future__ import annotations

import numpy as np
import torch

from nocsfm_ros.flow.conditions import (
    central_depth,
    guessed_scale,
    live_condition,
    match_hints,
    ray_points,
    reference_cells,
    reference_condition,
)
from nocsfm_ros.geometry.crops import R_ray_cam

SIDE = 32
K = torch.tensor([[[40.0, 0, 60], [0, 40, -5], [0, 0, 1]]])


def test_ray_points_of_the_central_pixels_lie_on_the_z_axis() -> None:
    R = torch.from_numpy(R_ray_cam(K[0].double().numpy(), SIDE)).float()[None]
    points = ray_points(torch.ones(1, SIDE, SIDE), K, R)
    middle = points[0, :, SIDE // 2 - 1 : SIDE // 2 + 1, SIDE // 2 - 1 : SIDE // 2 + 1].mean(dim=(1, 2))
    assert abs(float(middle[0])) < 1e-3 and abs(float(middle[1])) < 1e-3
    ray = np.linalg.inv(K[0].numpy()) @ np.array([(SIDE - 1) / 2, (SIDE - 1) / 2, 1])
    assert abs(float(middle[2]) - np.linalg.norm(ray)) < 1e-3


def test_ray_points_turned_back_are_the_pinhole_back_projection() -> None:
    R = torch.from_numpy(R_ray_cam(K[0].double().numpy(), SIDE)).float()[None]
    depth_m = torch.rand(1, SIDE, SIDE) + 0.5
    points = R[0].T @ ray_points(depth_m, K, R)[0, :, 7, 20]
    expected = torch.tensor([(20 - 60) / 40, (7 + 5) / 40, 1.0]) * depth_m[0, 7, 20]
    torch.testing.assert_close(points, expected, atol=1e-5, rtol=0)


def test_central_depth_ignores_holes_and_falls_back() -> None:
    depth_m = torch.zeros(3, SIDE, SIDE)
    depth_m[0] = 0.7
    depth_m[0, ::2] = 0
    depth_m[1, 0] = 0.4
    torch.testing.assert_close(central_depth(depth_m), torch.tensor([0.7, 0.4, 1.0]))


def test_live_condition_without_depth_has_no_coordinates() -> None:
    rgb = torch.rand(1, 3, SIDE, SIDE)
    condition = live_condition(rgb, torch.zeros(1, SIDE, SIDE), K, torch.eye(3)[None], torch.ones(1))
    assert condition.shape == (1, 8, SIDE, SIDE)
    assert condition[:, 3:].abs().max() == 0
    torch.testing.assert_close(condition[:, :3], rgb * 2 - 1)


def test_live_condition_coordinates_halve_when_the_scale_doubles() -> None:
    rgb, depth_m = torch.rand(1, 3, SIDE, SIDE), torch.full((1, SIDE, SIDE), 0.5)
    K_near = torch.tensor([[[200.0, 0, 15.5], [0, 200, 15.5], [0, 0, 1]]])
    one, two = (
        live_condition(rgb, depth_m, K_near, torch.eye(3)[None], torch.full((1,), s))[:, 3:6] for s in (0.2, 0.4)
    )
    torch.testing.assert_close(one, 2 * two)
    assert float(one[0, 0, 0, -1]) > 0 > float(one[0, 0, 0, 0])


def test_reference_condition_shows_coordinates_only_where_known_and_masked() -> None:
    mask, valid = torch.zeros(1, 1, SIDE, SIDE), torch.zeros(1, 1, SIDE, SIDE)
    mask[..., :16], valid[..., 8:] = 1, 1
    condition = reference_condition(torch.rand(1, 3, SIDE, SIDE), mask, torch.full((1, 3, SIDE, SIDE), 0.3), valid)
    assert (condition[0, 3, :, 8:16] == torch.tensor(0.3)).all()
    assert condition[0, 3:7, :, :8].abs().max() == 0 and condition[0, 3:7, :, 16:].abs().max() == 0
    torch.testing.assert_close(condition[:, 7:], mask)


def test_guessed_scale_grows_with_distance_and_crop_width() -> None:
    near, far = (guessed_scale(torch.full((1, SIDE, SIDE), d), K) for d in (0.5, 1.0))
    torch.testing.assert_close(far, 2 * near)


def unit_features(seed: int) -> torch.Tensor:
    features = torch.randn(1, 64, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(features, dim=1)


def test_match_hints_carry_the_coordinates_of_the_moved_cells() -> None:
    reference, nocs = unit_features(0), torch.rand(1, 3, 4, 4) - 0.5
    live = torch.roll(reference, 1, dims=3)
    everywhere = torch.ones(1, 1, 4, 4)
    hints = match_hints(live, reference, everywhere, nocs, everywhere)
    torch.testing.assert_close(hints[:, :3], torch.roll(nocs, 1, dims=3))
    torch.testing.assert_close(hints[:, 3:], torch.ones(1, 2, 4, 4))


def test_match_hints_use_object_cells_only_and_no_unknown_coordinates() -> None:
    reference, nocs = unit_features(0), torch.full((1, 3, 4, 4), 0.3)
    mask, known = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    mask[..., :2], known[..., 0] = 1, 1
    hints = match_hints(reference, reference, mask, nocs, known)
    assert (hints[:, :3, :, 0] == 0.3).all() and hints[:, :3, :, 1:].abs().max() == 0
    assert (hints[:, 4, :, :2] > 0.999).all() and (hints[:, 4, :, 2:] < 0.6).all()


def test_match_hints_without_any_object_cell_are_zeros() -> None:
    none = torch.zeros(1, 1, 4, 4)
    hints = match_hints(unit_features(0), unit_features(0), none, torch.rand(1, 3, 4, 4), none)
    assert hints.abs().max() == 0


def test_reference_cells_average_known_object_pixels() -> None:
    mask, valid = torch.zeros(1, 1, SIDE, SIDE), torch.ones(1, 1, SIDE, SIDE)
    mask[..., :14] = 1  # 8-pixel cells: the second column is three quarters object
    valid[..., :4] = 0
    nocs = torch.zeros(1, 3, SIDE, SIDE)
    nocs[..., 4:] = 0.25
    of_object, mean, known = reference_cells(mask, nocs, valid, 4)
    assert of_object[0, 0, 0].tolist() == [1, 1, 0, 0] and known[0, 0, 0].tolist() == [1, 1, 0, 0]
    torch.testing.assert_close(mean[0, :, :, :2], torch.full((3, 4, 2), 0.25))
