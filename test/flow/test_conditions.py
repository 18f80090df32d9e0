"""Conditions: coordinates against the pinhole formula, dropped inputs give zeros."""

from __future__ import annotations

import numpy as np
import torch

from nocsfm_ros.flow.conditions import central_depth, guessed_scale, live_condition, ray_points, reference_condition
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
