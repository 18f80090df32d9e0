"""One answer of the tracker against the truth, and what the rows change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from nocsfm_ros.config import Config
from nocsfm_ros.data.sequences import FrameTruth
from nocsfm_ros.errors import ConfigError
from nocsfm_ros.evaluation.tracking import VideoObject, _row_config, evaluate_tracking, score_track
from nocsfm_ros.evaluation.tracking_metrics import TrackedFrame
from nocsfm_ros.geometry.transforms import make_T
from nocsfm_ros.types import Float64Array, PoseEstimate, SimilarityPose, Track, TrackState

T_TRUE = make_T(Rotation.from_euler("xyz", (20, -40, 10), degrees=True).as_matrix(), np.array([0.02, 0.01, 0.6]))
T_OBJ_USER = make_T(Rotation.from_euler("xyz", (5, 60, 3), degrees=True).as_matrix(), np.array([0.01, -0.02, 0.03]))
POINTS_M = np.random.default_rng(0).uniform(-0.05, 0.05, (200, 3))
LABELS = np.full((12, 16), 255, np.uint8)


def scored(T_cam_user: Float64Array | None, symmetry: int = 1) -> TrackedFrame:
    pose = None
    if T_cam_user is not None:
        T_cam_obj = T_cam_user @ np.linalg.inv(T_OBJ_USER)
        pose = SimilarityPose(T_cam_obj[:3, :3], T_cam_obj[:3, 3], 0.2)
    covariance = np.diag([0.01**2] * 3 + [np.radians(2.0) ** 2] * 3)
    nocs = np.zeros((*LABELS.shape, 3), np.float32)
    estimate = PoseEstimate(pose, LABELS > 0, nocs, confidence=0.8, covariance=covariance)
    track = Track("slow_0", TrackState.TRACKING, 2 * 10**9, estimate, T_cam_user, np.ones(3), None, 1)
    truth, thing = FrameTruth(2 * 10**9, T_TRUE, LABELS), VideoObject(POINTS_M, 0.17, symmetry)
    return score_track("product", truth, 1.0, 10**9, track, 40.0, T_OBJ_USER, thing)


def turned(axis: str, degrees: float) -> Float64Array:
    return T_TRUE @ make_T(Rotation.from_euler(axis, degrees, degrees=True).as_matrix(), np.zeros(3))


def test_right_pose_has_no_error() -> None:
    frame = scored(T_TRUE)
    assert frame.has_pose and frame.time_s == 1.0 and frame.mask_iou == 1.0
    assert max(frame.rot_err_deg, frame.trans_err_m, frame.add_m, frame.mahalanobis) < 1e-4


def test_turn_is_measured_in_degrees_and_against_the_covariance() -> None:
    frame = scored(turned("x", 6.0))
    assert frame.rot_err_deg == pytest.approx(6.0, abs=1e-6) and frame.trans_err_m < 1e-9
    assert frame.mahalanobis > 9.0  # three sigma of the turn, and its lever arm to the object frame
    assert frame.sigma_deg == pytest.approx(2 * np.sqrt(3))


@pytest.mark.parametrize(("symmetry", "degrees", "left_deg"), [(0, 77.0, 0.0), (2, 180.0, 0.0), (2, 170.0, 10.0)])
def test_symmetry_takes_turns_about_y_out(symmetry: int, degrees: float, left_deg: float) -> None:
    frame = scored(turned("y", degrees), symmetry)
    assert frame.rot_err_deg == pytest.approx(left_deg, abs=1e-4)
    assert (frame.mahalanobis < 1e-6) == (left_deg == 0)


def test_no_pose_is_no_pose() -> None:
    frame = scored(None)
    assert not frame.has_pose and not frame.is_found and np.isinf(frame.rot_err_deg)


def test_rows_forget_what_they_should() -> None:
    config = Config()
    assert _row_config("product", config) == config
    for row in ("no_memory", "chained"):
        assert _row_config(row, config).tracking.max_keyframes == 0
    assert _row_config("per_frame", config).matching.candidates_per_frame == config.matching.max_candidates


@pytest.mark.parametrize("rows", [["product"], ["fastest"]])
def test_missing_videos_and_unknown_rows_are_refused(rows: list[str], tmp_path: Path) -> None:
    facts: dict[str, Any] = {}
    with pytest.raises(ConfigError, match="render --videos"):
        evaluate_tracking(tmp_path, tmp_path / "out", Config(), rows, 1, facts, print)
