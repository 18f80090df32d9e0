"""The demo's numbers on cases whose answer is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nocsfm_ros.errors import ConfigError, ShapeError
from nocsfm_ros.evaluation.summary import (
    FrameResult,
    FrameTruth,
    mask_iou,
    score_frames,
    summarise,
    visible_fractions,
)
from nocsfm_ros.geometry.transforms import make_T
from nocsfm_ros.types import Float64Array, TrackState

PERIOD_NS = 100_000_000


def turned(degrees: float, shift_m: float = 0.0) -> Float64Array:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return make_T(np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]]), np.array([shift_m, 0, 1.0]))


def truth(index: int, visible: int = 100, hidden: int = 0) -> FrameTruth:
    labels = np.zeros((20, 40), np.uint8)
    inner = labels[4:14, 4:24].reshape(-1).copy()
    inner[:visible], inner[visible : visible + hidden] = 255, 128
    labels[4:14, 4:24] = inner.reshape(10, 20)
    return FrameTruth(index * PERIOD_NS, turned(0), labels)


def result(of: FrameTruth, degrees: float = 0.0, shift_m: float = 0.0, **changes: Any) -> FrameResult:
    values: dict[str, Any] = {
        "stamp_ns": of.stamp_ns,
        "state": TrackState.TRACKING,
        "T_cam_obj": turned(degrees, shift_m),
        "mask": of.labels == 255,
        "confidence": 0.9,
        "latency_ms": 50.0,
        "published_ns": of.stamp_ns + 7,
    }
    return FrameResult(**values | changes)


def lost(of: FrameTruth) -> FrameResult:
    return result(of, state=TrackState.LOST, T_cam_obj=None, mask=None)


def test_summary_of_perfect_run_has_no_errors() -> None:
    truths = [truth(index) for index in range(11)]
    summary = summarise(score_frames(truths, [result(item) for item in truths]))
    assert summary["frames"] == summary["tracked_frames"] == summary["visible_frames"] == 11
    assert summary["rate_hz"] == 10.0
    assert (summary["rot_err_deg_p50"], summary["trans_err_m_p50"], summary["mask_iou_p50"]) == (
        0.0,
        0.0,
        1.0,
    )
    assert summary["tracked_visible_ratio"] == summary["tracked_visible_ratio_all"] == 1.0
    assert summary["reacquired"] is None  # it never left


def test_summary_errors_are_medians_in_degrees_and_metres() -> None:
    truths = [truth(index) for index in range(3)]
    answers = [
        result(item, degrees, shift, latency_ms=latency)
        for item, degrees, shift, latency in zip(
            truths, (2, 8, 100), (0.01, 0.03, 0.5), (10, 20, 30), strict=True
        )
    ]
    summary = summarise(score_frames(truths, answers))
    assert summary["rot_err_deg_p50"] == pytest.approx(8, abs=1e-6)
    assert summary["trans_err_m_p50"] == pytest.approx(0.03, abs=1e-6)
    assert (summary["latency_ms_p50"], summary["latency_ms_p95"]) == (20.0, 29.0)
    assert summary["found_visible_ratio"] == 0.6667  # 100 degrees off is not found


def test_summary_dropped_frames_count_only_in_the_ratio_over_all_frames() -> None:
    truths = [truth(index) for index in range(10)]
    summary = summarise(score_frames(truths, [result(item) for item in truths[::2]]))
    assert (summary["results"], summary["dropped"]) == (5, 5)
    assert (summary["tracked_visible_ratio"], summary["tracked_visible_ratio_all"]) == (1.0, 0.5)


def test_summary_visible_frame_without_track_counts_as_iou_zero() -> None:
    truths = [truth(index) for index in range(3)]
    summary = summarise(score_frames(truths, [result(truths[0]), lost(truths[1]), lost(truths[2])]))
    assert summary["mask_iou_p50"] == 0.0
    assert summary["tracked_visible_ratio"] == pytest.approx(1 / 3, abs=1e-4)


@pytest.mark.parametrize(("degrees_after", "reacquired"), [(5.0, True), (90.0, False)])
def test_summary_reacquired_needs_a_right_pose_after_the_return(
    degrees_after: float, reacquired: bool
) -> None:
    truths = [truth(n, visible=0 if n in (1, 2, 3) else 100) for n in range(7)]
    answers = [
        result(truths[0]),
        result(truths[1]),
        result(truths[2], T_cam_obj=None),  # still TRACKING, but silent: no false pose
        lost(truths[3]),
        lost(truths[4]),
        result(truths[5], degrees_after),
        result(truths[6], degrees_after),
    ]
    summary = summarise(score_frames(truths, answers))
    assert summary["reacquired"] is reacquired
    assert (summary["false_poses_when_gone"], summary["gone_results"], summary["lost_when_gone"]) == (
        1,
        3,
        True,
    )
    assert summary["reacquired_after_s"] == [0.1 if reacquired else None]


def test_summary_object_that_never_returns_was_never_to_be_reacquired() -> None:
    truths = [truth(0), truth(1, visible=0)]
    assert summarise(score_frames(truths, [result(truths[0]), lost(truths[1])]))["reacquired"] is None


def test_summary_without_results_has_no_medians() -> None:
    summary = summarise(score_frames([truth(0)], []))
    assert summary["tracked_frames"] == 0
    assert summary["rot_err_deg_p50"] is None and summary["rate_hz"] is None


def test_visible_fractions_behind_occluder_is_share_of_silhouette() -> None:
    assert visible_fractions([truth(0, 100, 0), truth(1, 25, 75), truth(2, 0, 0)]) == [1.0, 0.25, 0.0]


def test_visible_fractions_at_border_takes_size_from_other_frames() -> None:
    cut = np.zeros((20, 40), np.uint8)
    cut[5:10, :5] = 255
    assert visible_fractions([truth(0, 100), FrameTruth(1, turned(0), cut)]) == [1.0, 0.25]


def test_score_frames_hidden_frames_judge_no_pose() -> None:
    truths = [truth(0), truth(1, 20, 80)]
    summary = summarise(score_frames(truths, [result(truths[0]), result(truths[1], 90)]))
    assert summary["visible_frames"] == 1 and summary["rot_err_deg_p50"] == pytest.approx(0, abs=1e-6)


def test_score_frames_result_of_unknown_stamp_raises() -> None:
    with pytest.raises(ConfigError, match="1 for stamps never played"):
        score_frames([truth(0)], [result(truth(5))])


def test_mask_iou_known_overlap_and_wrong_shape() -> None:
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert mask_iou(a, b) == 1.0
    a[:2], b[1:3] = True, True
    assert mask_iou(a, b) == pytest.approx(1 / 3)
    with pytest.raises(ShapeError, match="one size"):
        mask_iou(a, b[:3])
