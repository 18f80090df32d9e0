"""The batched augmentation does what the one with OpenCV does: compared by its statistics over many pictures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nocsfm_ros.training.augmentation import MAX_RAGGED_PX, MAX_SHIFT_PX, augment_each_depth, augment_each_picture
from nocsfm_ros.training.augmentation_torch import _blurred, augment_depths, augment_pictures

COUNT, SIDE = 600, 48
MARGIN = math.ceil(MAX_SHIFT_PX + MAX_RAGGED_PX)


@pytest.fixture(scope="module")
def both_pictures() -> tuple[torch.Tensor, torch.Tensor]:
    """(COUNT, 3, S, S) of one colourful picture, augmented by OpenCV and by torch."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    rgb = np.repeat(np.repeat(coarse, SIDE // 6, axis=0), SIDE // 6, axis=1)
    by_cv = augment_each_picture(np.repeat(rgb[None], COUNT, axis=0), random)
    batch = torch.from_numpy(rgb).permute(2, 0, 1)[None].float().expand(COUNT, -1, -1, -1) / 255
    by_torch = augment_pictures(batch, torch.Generator().manual_seed(0))
    return torch.from_numpy(by_cv).permute(0, 3, 1, 2).float() / 255, by_torch


@pytest.fixture(scope="module")
def both_depths() -> tuple[torch.Tensor, torch.Tensor]:
    """(COUNT, S, S) of a step at one metre, augmented by OpenCV and by torch."""
    depth_m = np.full((COUNT, SIDE, SIDE), 1.0, np.float32)
    depth_m[:, :, SIDE // 2 :] = 0.9
    depth_m[:, :4] = 0
    by_cv = augment_each_depth(depth_m, np.random.default_rng(0))
    return torch.from_numpy(by_cv), augment_depths(torch.from_numpy(depth_m), torch.Generator().manual_seed(0))


def test_pictures_have_the_same_mean_and_spread_over_pictures(both_pictures: tuple[torch.Tensor, torch.Tensor]) -> None:
    by_cv, by_torch = both_pictures
    for of_picture in (lambda x: x.mean(dim=(2, 3)), lambda x: x.std(dim=(2, 3)), lambda x: x.std(dim=1).mean((1, 2))):
        cv, torch_ = of_picture(by_cv), of_picture(by_torch)
        assert abs(float(cv.mean() - torch_.mean())) < 0.02
        assert float(torch_.std() / cv.std()) == pytest.approx(1, abs=0.12)


def test_pictures_are_noisy_and_blurred_alike(both_pictures: tuple[torch.Tensor, torch.Tensor]) -> None:
    edges = [x.diff(dim=3).abs().flatten(1) for x in both_pictures]
    for share in (0.5, 0.95):  # inside the squares the noise, on their borders the sharpness
        cv, torch_ = (edge.quantile(share, dim=1).mean() for edge in edges)
        assert float(torch_ / cv) == pytest.approx(1, abs=0.1)


def test_depths_have_the_same_noise_and_the_same_holes(both_depths: tuple[torch.Tensor, torch.Tensor]) -> None:
    noises, holes, edge_holes = [], [], []
    for depth_m in both_depths:
        assert (depth_m >= 0).all()
        far = depth_m[:, 8:, 4 + MARGIN : SIDE // 2 - MARGIN]
        noises.append(float(far[far > 0].std()))
        holes.append(float((far == 0).float().mean()))
        edge_holes.append(float((depth_m[:, 8:, SIDE // 2 - 2 : SIDE // 2 + 2] == 0).float().mean()))
    assert noises[0] == pytest.approx(noises[1], rel=0.1)
    assert holes[0] == pytest.approx(holes[1], abs=0.03) and 0.02 < holes[0] < 0.3
    assert edge_holes[0] == pytest.approx(edge_holes[1], abs=0.04) and edge_holes[0] > holes[0] + 0.1


def test_depths_are_displaced_alike(both_depths: tuple[torch.Tensor, torch.Tensor]) -> None:
    displaced = []
    for depth_m in both_depths:
        known, near = depth_m > 0, (depth_m < 0.95) & (depth_m > 0)
        there = slice(SIDE // 2 - 3, SIDE // 2)  # within three pixels of the nearer side
        displaced.append(float((near & known)[:, :, there].sum() / known[:, :, there].sum()))
        assert not near[:, :, 4 + MARGIN : SIDE // 2 - MARGIN].any()
    assert displaced[0] == pytest.approx(displaced[1], abs=0.03) and displaced[0] > 0.1


def test_blurred_spreads_a_point_with_each_pictures_own_sigma() -> None:
    point = torch.zeros(2, 3, 21, 21)
    point[:, :, 10, 10] = 1
    sigma = torch.tensor([0.8, 1.2])
    blurred = _blurred(point, sigma.view(2, 1, 1, 1))
    offsets = torch.arange(21.0) - 10
    variance = (blurred.sum(dim=3) * offsets**2).sum(dim=2)
    torch.testing.assert_close(variance, (sigma**2)[:, None].expand(2, 3), rtol=0.03, atol=0)


def test_same_seed_gives_the_same() -> None:
    rgb, depth_m = torch.rand(2, 3, 32, 32), torch.rand(2, 32, 32)
    for augment, batch in ((augment_pictures, rgb), (augment_depths, depth_m)):
        one, two = (augment(batch, torch.Generator().manual_seed(3)) for _ in range(2))
        torch.testing.assert_close(one, two)
