"""The figures of a tracking evaluation on frames whose answer is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nocsfm_ros.data.videos import RATE_HZ
from nocsfm_ros.evaluation.tracking_metrics import TrackedFrame, calibration, summarise_tracking, tracking_table
from nocsfm_ros.evaluation.tracking_plots import plot_calibration, plot_errors_over_time


def tracked(index: int, visible: float = 1.0, error_deg: float | None = 1.0, **changes: Any) -> TrackedFrame:
    facts: dict[str, Any] = {
        "video": "slow_0", "row": "product", "time_s": index / RATE_HZ, "visible_fraction": visible, "diameter_m": 0.2,
        "is_tracking": error_deg is not None, "confidence": 0.9, "ms": 50.0, "reason": "",
    }
    if error_deg is not None:
        facts |= {
            "has_pose": True, "rot_err_deg": error_deg, "trans_err_m": 0.01, "add_m": 0.005, "adds_m": 0.004,
            "sigma_deg": 1.0, "sigma_m": 0.01, "mahalanobis": 6.0,
        }
    return TrackedFrame(**(facts | changes))


def product(frames: list[TrackedFrame]) -> Any:
    return summarise_tracking(frames)["product"]


def test_frames_without_a_pose_are_misses_and_unclear_ones_do_not_count() -> None:
    row = product([tracked(0), tracked(1, error_deg=7.0), tracked(2, error_deg=None), tracked(3, visible=0.1)])
    assert row["visible"] == 3
    assert row["5deg5cm"] == pytest.approx(33.3) and row["10deg5cm"] == pytest.approx(66.7)
    assert row["add"] == pytest.approx(66.7) and row["adds_auc"] == pytest.approx(64.0)
    assert row["rate_hz"] == 20


def test_lost_is_judged_against_what_can_be_seen() -> None:
    gone = [tracked(index, visible=0.0, error_deg=None if index < 3 else 1.0) for index in range(4)]
    row = product([*gone, tracked(5), tracked(6, error_deg=None)])
    assert row["lost_recall"] == 75 and row["lost_precision"] == 75 and row["false_lost"] == 50
    assert row["wrong_object"] == 50  # one of the two poses is of nothing


def test_a_pose_far_from_the_object_is_the_wrong_object() -> None:
    assert product([tracked(0, trans_err_m=0.11), tracked(1, trans_err_m=0.09)])["wrong_object"] == 50


@pytest.mark.parametrize(("found_after", "expected"), [(10, 100.0), (20, 0.0)])
def test_return_counts_when_found_within_a_second(found_after: int, expected: float) -> None:
    frames = [tracked(0)] + [tracked(index, visible=0.0, error_deg=None) for index in range(1, 10)]
    frames += [tracked(10, visible=0.1, error_deg=None)]  # not clearly visible yet
    frames += [tracked(11 + n, error_deg=None if n < found_after else 3.0) for n in range(40)]
    row = product(frames)
    assert row["returns"] == 1 and row["reacquired_1s"] == expected


def test_object_that_was_never_seen_cannot_return() -> None:
    row = product([tracked(0, visible=0.0, error_deg=None), tracked(1)])
    assert row["returns"] == 0 and row["reacquired_1s"] is None


def test_drift_is_the_slope_after_frame_100() -> None:
    frames = [tracked(index, error_deg=30.0 if index < 100 else 1 + 0.02 * index) for index in range(300)]
    assert product(frames)["drift_deg_per_100"] == pytest.approx(2.0)


def test_table_and_plots_show_every_row(tmp_path: Path) -> None:
    frames = [tracked(index, row=row) for row in ("product", "no_memory") for index in range(40)]
    table = tracking_table(summarise_tracking(frames))
    assert "| product | 100 %" in table and "| no_memory | 100 %" in table and "| 5deg5cm | slow |" in table
    plot_errors_over_time(frames, tmp_path / "errors.png")
    plot_calibration(frames, tmp_path / "calibration.png")
    assert (tmp_path / "errors.png").stat().st_size > 10_000 < (tmp_path / "calibration.png").stat().st_size


def test_calibration_bins_by_confidence() -> None:
    frames = [tracked(0, confidence=0.5, error_deg=8.0), tracked(1, confidence=1.0), tracked(2, error_deg=None)]
    low, high = calibration(frames, np.array([0.4, 0.7, 1.0]))
    assert (low["n"], low["5deg5cm"], low["10deg5cm"]) == (1, 0.0, 100.0)
    assert (high["n"], high["5deg5cm"]) == (1, 100.0)
