"""The 1-euro filter: rest, motion, gaps."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from nocsfm_ros.config import FilterConfig
from nocsfm_ros.geometry.transforms import make_T, rotation_angle_deg
from nocsfm_ros.tracking.pose_filter import PoseFilter
from nocsfm_ros.types import Float64Array

RATE_HZ, SCALE_M = 30, 0.2
CALM = FilterConfig(cutoff_hz=1.0, speed_gain=0.0)


def pose(x_m: float = 0.0, turn_deg: float = 0.0) -> Float64Array:
    R = Rotation.from_euler("y", turn_deg, degrees=True).as_matrix()
    return make_T(R, np.array([x_m, 0.0, 0.5]))


def smoothed(poses: list[Float64Array], config: FilterConfig) -> list[Float64Array]:
    pose_filter = PoseFilter()
    return [pose_filter.smooth(T, int(n * 1e9 / RATE_HZ), SCALE_M, config) for n, T in enumerate(poses)]


def test_filter_is_off_by_default() -> None:
    poses = [pose(0.01 * n, 3 * n) for n in range(5)]
    assert all(out is T for out, T in zip(smoothed(poses, FilterConfig()), poses, strict=True))


def test_noise_at_rest_is_taken_out() -> None:
    rng = np.random.default_rng(0)
    noisy = [pose(x, turn) for x, turn in zip(rng.normal(0, 0.002, 200), rng.normal(0, 1.0, 200), strict=True)]
    for of in (lambda T: T[0, 3], lambda T: np.degrees(np.arctan2(T[0, 2], T[0, 0]))):
        before, after = (np.std([of(T) for T in poses[30:]]) for poses in (noisy, smoothed(noisy, CALM)))
        assert after < 0.45 * before


@pytest.mark.parametrize("cutoff_hz", [0.5, 2.0])
def test_lag_in_steady_motion_is_what_the_cutoff_says(cutoff_hz: float) -> None:
    speed_m, speed_deg = 0.3, 60.0
    poses = [pose(speed_m * n / RATE_HZ, speed_deg * n / RATE_HZ) for n in range(150)]
    last = smoothed(poses, FilterConfig(cutoff_hz=cutoff_hz, speed_gain=0.0))[-1]
    lag_s = 1 / (2 * np.pi * cutoff_hz)
    assert poses[-1][0, 3] - last[0, 3] == pytest.approx(speed_m * lag_s, rel=0.02)
    assert rotation_angle_deg(poses[-1][:3, :3], last[:3, :3]) == pytest.approx(speed_deg * lag_s, rel=0.02)


def test_speed_gain_shortens_the_lag_of_quick_motion() -> None:
    poses = [pose(1.0 * n / RATE_HZ) for n in range(90)]
    lags = [poses[-1][0, 3] - smoothed(poses, FilterConfig(1.0, gain))[-1][0, 3] for gain in (0.0, 1.0)]
    assert lags[1] == pytest.approx(lags[0] / 6, rel=0.05)  # cutoff 1 + 1 m/s / 0.2 m


@pytest.mark.parametrize("gap_s", [0.6, 0.0, -1.0])
def test_pose_after_a_gap_or_from_the_past_passes_unchanged(gap_s: float) -> None:
    pose_filter, later = PoseFilter(), pose(0.1, 20.0)
    pose_filter.smooth(pose(), 10**9, SCALE_M, CALM)
    assert pose_filter.smooth(later, 10**9 + int(gap_s * 1e9), SCALE_M, CALM) is later


def test_half_turn_does_not_upset_it() -> None:
    out = smoothed([pose(0, 0), pose(0, 180.0), pose(0, 180.0)], CALM)
    assert all(np.isfinite(T).all() and abs(np.linalg.det(T[:3, :3]) - 1) < 1e-9 for T in out)
