"""Constant twists are followed exactly; without a velocity nothing moves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from nocsfm_ros.geometry.transforms import invert, make_T
from nocsfm_ros.tracking.prediction import Velocity, moved_on
from nocsfm_ros.types import Float64Array, PoseEstimate, SimilarityPose, Track, TrackState

STEP_NS, LIMIT_S = 50_000_000, 0.2
TWIST = np.array([0.3, -0.1, 0.2, 0.5, 1.0, -0.7])  # m/s and rad/s
CENTRE_M = np.array([0.02, -0.01, 0.15])  # the user's frame is at the object's foot
T_OBJ_USER = make_T(Rotation.from_euler("x", 40, degrees=True).as_matrix(), np.array([0.05, 0.0, -0.1]))


def T_cam_user_at(seconds: float) -> Float64Array:
    """A box whose middle flies straight and that spins about it."""
    R = Rotation.from_rotvec(seconds * TWIST[3:]).as_matrix() @ Rotation.from_euler("y", 30, degrees=True).as_matrix()
    middle = np.array([0.1, 0.0, 0.8]) + seconds * TWIST[:3]
    return make_T(R, middle) @ make_T(np.eye(3), -CENTRE_M)


def track_at(stamp_ns: int, twist: Float64Array | None) -> Track:
    T_cam_user = T_cam_user_at(stamp_ns * 1e-9)
    T_cam_obj = T_cam_user @ invert(T_OBJ_USER)
    mask, nocs = np.zeros((4, 4), bool), np.zeros((4, 4, 3), np.float32)
    estimate = PoseEstimate(SimilarityPose(T_cam_obj[:3, :3], T_cam_obj[:3, 3], 0.3), mask, nocs)
    return Track(
        "mug", TrackState.TRACKING, stamp_ns, estimate, T_cam_user, np.full(3, 0.2), None, 1, CENTRE_M, twist
    )


def followed(stamps_ns: list[int]) -> Track:
    """The track at the last stamp, its velocity found from the poses at all of them."""
    velocity = Velocity()
    for stamp_ns in stamps_ns:
        twist = velocity.update(T_cam_user_at(stamp_ns * 1e-9), CENTRE_M, stamp_ns)
    return track_at(stamps_ns[-1], twist)


def test_velocity_of_a_constant_twist_is_the_twist_from_the_second_pose_on() -> None:
    velocity = Velocity()
    found = [velocity.update(T_cam_user_at(n * 0.05), CENTRE_M, n * STEP_NS) for n in range(6)]
    assert found[0] is None
    np.testing.assert_allclose(np.array(found[1:]), np.tile(TWIST, (5, 1)), atol=1e-9)


@pytest.mark.parametrize("ahead_ns", [1, 30_000_000, 200_000_000])
def test_constant_twist_is_predicted_exactly_and_stamped_so(ahead_ns: int) -> None:
    track = followed([0, STEP_NS, 3 * STEP_NS])
    later = moved_on(track, track.stamp_ns + ahead_ns, LIMIT_S)
    assert later.stamp_ns == track.stamp_ns + ahead_ns
    assert later.T_cam_user is not None and later.estimate.pose is not None
    np.testing.assert_allclose(later.T_cam_user, T_cam_user_at(later.stamp_ns * 1e-9), atol=1e-9)
    np.testing.assert_allclose(later.estimate.pose.T_cam_obj @ T_OBJ_USER, later.T_cam_user, atol=1e-9)
    assert later.estimate.mask is track.estimate.mask and later.twist is track.twist


def test_prediction_stops_at_its_limit_and_says_so_in_the_stamp() -> None:
    track = followed([0, STEP_NS])
    later = moved_on(track, track.stamp_ns + 10**9, LIMIT_S)
    assert later.stamp_ns == track.stamp_ns + 200_000_000 and later.T_cam_user is not None
    np.testing.assert_allclose(later.T_cam_user, T_cam_user_at(later.stamp_ns * 1e-9), atol=1e-9)


@pytest.mark.parametrize("now_ns", [STEP_NS, STEP_NS - 10**9])
def test_clock_that_is_not_after_the_picture_moves_nothing(now_ns: int) -> None:
    track = followed([0, STEP_NS])
    assert moved_on(track, now_ns, LIMIT_S) is track


def test_limit_of_zero_moves_nothing() -> None:
    track = followed([0, STEP_NS])
    assert moved_on(track, 2 * STEP_NS, 0.0) is track


def test_just_acquired_or_lost_object_is_not_moved() -> None:
    acquired = followed([STEP_NS])
    assert acquired.twist is None and moved_on(acquired, 2 * STEP_NS, LIMIT_S) is acquired
    lost = replace(acquired, T_cam_user=None, estimate=replace(acquired.estimate, pose=None), twist=TWIST)
    assert moved_on(lost, 2 * STEP_NS, LIMIT_S) is lost


@pytest.mark.parametrize("last_ns", [2 * STEP_NS, STEP_NS, STEP_NS + 600_000_000 + STEP_NS])
def test_velocity_is_unknown_after_a_jump_back_an_equal_stamp_or_a_gap_and_known_again_then(last_ns: int) -> None:
    velocity = Velocity()
    for stamp_ns in (STEP_NS, 2 * STEP_NS):
        velocity.update(T_cam_user_at(stamp_ns * 1e-9), CENTRE_M, stamp_ns)
    assert velocity.update(T_cam_user_at(last_ns * 1e-9), CENTRE_M, last_ns) is None
    after_ns = last_ns + STEP_NS
    twist = velocity.update(T_cam_user_at(after_ns * 1e-9), CENTRE_M, after_ns)
    assert twist is not None
    np.testing.assert_allclose(twist, TWIST, atol=1e-9)


def test_box_that_grows_while_the_object_rests_has_no_velocity() -> None:
    velocity, T_cam_user = Velocity(), T_cam_user_at(0)
    velocity.update(T_cam_user, CENTRE_M, 0)
    twist = velocity.update(T_cam_user, 2 * CENTRE_M, STEP_NS)
    assert twist is not None
    np.testing.assert_allclose(twist, np.zeros(6), atol=1e-9)


def test_noise_of_the_poses_is_smoothed_in_the_velocity() -> None:
    rng, velocity, rate_hz, noise_m = np.random.default_rng(0), Velocity(), 30, 0.001
    twists = []
    for n in range(300):
        T_cam_user = make_T(np.eye(3), np.array([0, 0, 0.5]) + rng.normal(0, noise_m, 3))
        twists.append(velocity.update(T_cam_user, np.zeros(3), int(n * 1e9 / rate_hz)))
    spread = np.std([twist[:3] for twist in twists[1:] if twist is not None])
    assert spread < 0.4 * np.sqrt(2) * noise_m * rate_hz  # of the plain difference of two poses
