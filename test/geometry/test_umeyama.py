"""Umeyama against known similarities, mirrors and degenerate sets."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from nocsfm_ros.errors import ShapeError
from nocsfm_ros.geometry.umeyama import squared_residuals, umeyama, umeyama_many

R = Rotation.from_euler("xyz", [20, -50, 130], degrees=True).as_matrix()
t = np.array([0.1, -0.2, 0.9])
SRC = np.random.default_rng(0).uniform(-0.5, 0.5, (40, 3))
DST = 0.3 * SRC @ R.T + t


def test_umeyama_of_exact_pairs_is_exact() -> None:
    fit = umeyama(SRC, DST)
    np.testing.assert_allclose(fit.R_cam_obj, R, atol=1e-9)
    np.testing.assert_allclose(fit.t_cam_obj, t, atol=1e-9)
    assert fit.scale_m == pytest.approx(0.3, abs=1e-9)


def test_umeyama_of_three_points_is_exact() -> None:
    fit = umeyama(SRC[:3], DST[:3])
    np.testing.assert_allclose(fit.R_cam_obj, R, atol=1e-9)


def test_umeyama_of_a_plane_is_exact() -> None:
    flat = SRC * [1, 1, 0]
    np.testing.assert_allclose(umeyama(flat, 2 * flat @ R.T + t).R_cam_obj, R, atol=1e-9)


def test_umeyama_without_scale_keeps_one() -> None:
    fit = umeyama(SRC, SRC @ R.T + t, with_scale=False)
    assert fit.scale_m == 1.0
    np.testing.assert_allclose(fit.t_cam_obj, t, atol=1e-9)


def test_umeyama_of_a_mirror_image_is_still_a_rotation() -> None:
    fit = umeyama(SRC, SRC * [1, 1, -1])
    assert np.linalg.det(fit.R_cam_obj) == pytest.approx(1)
    scales = np.linspace(0.5, 1.5, 101) * fit.scale_m
    errors = [((SRC * [1, 1, -1] - s * SRC @ fit.R_cam_obj.T - fit.t_cam_obj) ** 2).sum() for s in scales]
    assert int(np.argmin(errors)) == 50  # eq. 42: the scale of the constrained problem, not of the mirror


def test_umeyama_weight_zero_ignores_the_pair() -> None:
    dst = DST.copy()
    dst[5] += 9
    weights = np.ones(len(SRC))
    weights[5] = 0
    np.testing.assert_allclose(umeyama(SRC, dst, weights).R_cam_obj, R, atol=1e-9)


def test_umeyama_weight_two_counts_the_pair_twice() -> None:
    dst = DST + 0.01 * np.random.default_rng(1).normal(size=DST.shape)
    weights = np.ones(len(SRC))
    weights[7] = 2
    twice = umeyama(np.r_[SRC, SRC[7:8]], np.r_[dst, dst[7:8]])
    np.testing.assert_allclose(umeyama(SRC, dst, weights).T_cam_obj, twice.T_cam_obj, atol=1e-9)


@pytest.mark.parametrize("src, dst", [
    (np.outer(np.arange(9.0), [1, 2, 3]), SRC[:9]), (SRC[:9], np.outer(np.arange(9.0), [1, 2, 3])),
    (np.ones((9, 3)), SRC[:9]), (SRC[:2], DST[:2]), (SRC[:0], DST[:0]),
], ids=["source line", "target line", "one place", "two points", "nothing"])
def test_umeyama_degenerate_points_raise(src: np.ndarray, dst: np.ndarray) -> None:
    with pytest.raises(ShapeError):
        umeyama(src, dst)


@pytest.mark.parametrize("src, dst, weights", [
    (SRC, DST[:-1], None), (SRC[:, :2], DST[:, :2], None), (SRC, DST, np.ones(3)), (SRC, DST, -np.ones(40)),
])
def test_umeyama_wrong_input_raises(src: np.ndarray, dst: np.ndarray, weights: np.ndarray | None) -> None:
    with pytest.raises(ShapeError):
        umeyama(src, dst, weights)


@pytest.mark.parametrize("scale", [None, 0.3])
def test_umeyama_many_equals_one_at_a_time(scale: float | None) -> None:
    sets = np.random.default_rng(2).integers(0, 40, (20, 5))
    noisy = DST + 0.003 * np.random.default_rng(3).normal(size=DST.shape)
    R_all, t_all, s_all = umeyama_many(SRC[sets], noisy[sets], scale)
    for index, chosen in enumerate(sets):
        fit = umeyama((scale or 1.0) * SRC[chosen], noisy[chosen], with_scale=scale is None)
        np.testing.assert_allclose(R_all[index], fit.R_cam_obj, atol=1e-9)
        np.testing.assert_allclose(t_all[index], fit.t_cam_obj, atol=1e-9)
        assert s_all[index] == pytest.approx((scale or 1.0) * fit.scale_m)


def test_squared_residuals_equal_the_plain_formula() -> None:
    rotations = Rotation.random(6, random_state=0).as_matrix()
    shifts, scales = np.random.default_rng(4).normal(size=(6, 3)), np.linspace(0.2, 2, 6)
    plain = np.stack([
        ((DST - s * SRC @ turn.T - shift) ** 2).sum(axis=1)
        for turn, shift, s in zip(rotations, shifts, scales, strict=True)
    ])
    np.testing.assert_allclose(squared_residuals(rotations, shifts, scales, SRC, DST), plain, atol=1e-12)
