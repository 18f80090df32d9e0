"""Windows: the same picture wherever the object is and however large; what is hidden or turned away is not drawn."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from nocsfm_ros.geometry.transforms import rotation_between
from nocsfm_ros.refinement.windows import SIDE, Surfaces, look_at, moved_poses, seen_surfaces

S = 96
K = torch.tensor([[[150.0, 0, 47.5], [0, 150.0, 47.5], [0, 0, 1]]])


def _picture(size: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A board with a step in it, half a metre away, in front of a wall: rgb, depth, mask."""
    v, u = torch.meshgrid(torch.arange(S), torch.arange(S), indexing="ij")
    mask = (u > 24) & (u < 72) & (v > 30) & (v < 66)
    depth_m = torch.where(mask, torch.where(u < 48, 0.50, 0.52), 0.7) * size
    rgb = torch.stack([u / S, v / S, ((u // 6 + v // 6) % 2).float()])
    return rgb[None].float(), depth_m[None].float(), mask[None]


def _surface(size: float = 1.0) -> Surfaces:
    rgb, depth_m, mask = _picture(size)
    return seen_surfaces(rgb, depth_m, mask, K, torch.eye(4, dtype=torch.float64)[None])


def _identity() -> torch.Tensor:
    return torch.eye(4, dtype=torch.float64)[None]


def test_rendered_at_its_own_pose_a_surface_lies_on_the_picture() -> None:
    rgb, depth_m, _ = _picture()
    seen = look_at(rgb, depth_m, K, _surface(), _identity()).seen[0]
    hit = seen[9] > 0
    assert 0.25 < hit.float().mean() < 0.8
    assert (seen[3] - seen[8])[hit].abs().median() < 0.02 and (seen[:3] - seen[5:8])[:, hit].abs().median() < 0.1


def test_an_object_twice_as_large_and_as_far_looks_the_same() -> None:
    seen = [look_at(*_picture(size)[:2], K, _surface(size), _identity()).seen for size in (1.0, 2.0)]
    assert (seen[0] - seen[1]).abs().mean() < 1e-3


def test_beside_the_optical_axis_it_is_looked_at_straight() -> None:
    rgb, depth_m, _ = _picture()
    surface = _surface()
    aside = _identity()
    aside[:, :3, 3] = torch.tensor([0.2, 0.1, 0.0])
    R_ray = look_at(rgb, depth_m, K, surface, aside).R_ray_cam[0].double()
    middle = surface.middle[0].double() + aside[0, :3, 3]
    direction = (R_ray @ middle / middle.norm()).numpy()
    assert direction == pytest.approx([0, 0, 1], abs=1e-6)
    assert torch.from_numpy(rotation_between((middle / middle.norm()).numpy(), direction)) == pytest.approx(
        R_ray.numpy(), abs=1e-6
    )


def test_the_nearer_point_hides_the_other_and_a_turned_away_one_is_not_drawn() -> None:
    rgb, depth_m, _ = _picture()
    facing, away = [0.0, 0.0, -1.0], [0.0, 0.0, 1.0]
    surface = Surfaces(
        points=torch.tensor([[[0, 0, 0.6], [0, 0, 0.5], [0.03, 0, 0.5], [-0.03, 0.03, 0.5]]]),
        normals=torch.tensor([[facing, facing, away, facing]]),
        rgb=torch.tensor([[[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [1.0, 1.0, 1.0]]]),
        known=torch.tensor([[True, True, True, False]]), middle=torch.tensor([[0, 0, 0.5]]),
        radius_m=torch.tensor([0.05]),
    )
    rendered = look_at(rgb, depth_m, K, surface, _identity()).seen[0, 5:]
    hit = rendered[4] > 0
    assert hit.sum() == 4  # one point, of four pixels
    assert (rendered[:3, hit] == torch.tensor([-1.0, 1.0, -1.0])[:, None]).all()
    assert hit[SIDE // 2 - 1 : SIDE // 2 + 1, SIDE // 2 - 1 : SIDE // 2 + 1].all()


def test_a_turn_goes_about_the_middle_and_a_shift_along_the_windows_axes() -> None:
    surface, T = _surface(), _identity()
    turn = torch.tensor([[[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]]])
    turned = moved_poses(T, surface, torch.eye(3)[None], turn)
    middle = surface.middle.double()
    assert (turned[:, :3, :3] @ middle[..., None])[..., 0] + turned[:, :3, 3] == pytest.approx(middle, abs=1e-6)
    shift = torch.tensor([[[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0.5]]])
    shifted = moved_poses(T, surface, torch.eye(3)[None], shift)
    assert (shifted - T)[0, 2, 3] == pytest.approx(0.5 * float(surface.radius_m), rel=1e-5)


def test_cells_lie_where_the_surface_is_seen() -> None:
    rgb, depth_m, _ = _picture()
    surface = _surface()
    windows = look_at(rgb, depth_m, K, surface, _identity())
    places, whole = windows.cells[0, :3].flatten(1).T, windows.cells[0, 3].flatten() > 0.99
    away = (surface.points[0][surface.known[0]] - surface.middle) @ windows.R_ray_cam[0].T / surface.radius_m
    assert whole.sum() > 40 and torch.cdist(places[whole], away).amin(dim=1).max() < 0.06


def test_a_thing_without_an_inside_keeps_its_points() -> None:
    rgb, depth_m, mask = _picture()
    thin = torch.zeros_like(mask)
    thin[:, 20:80, 40:42] = True
    surface = seen_surfaces(rgb, depth_m, thin, K, _identity())
    assert surface.known.sum() >= 20
    assert look_at(rgb, depth_m, K, surface, _identity()).seen[0, 9].sum() > 20


def test_repeated_keeps_each_surface_together() -> None:
    surface = _surface()
    two = replace(surface, middle=torch.tensor([[1.0, 0, 0]]))
    both = Surfaces(*(torch.cat([getattr(s, name) for s in (surface, two)]) for name in Surfaces.__dataclass_fields__))
    assert both.repeated(3).middle[:, 0].tolist() == [float(surface.middle[0, 0])] * 3 + [1.0] * 3
