"""From tracked frames to the figures of a row.

The words:

* *visible*: at least summary.VISIBLE_FRACTION of the silhouette is seen; *gone*: nothing of it. What lies between is
  judged neither way.
* Accuracies are of all visible frames; one without a pose is a miss.
* *LOST*: no pose is published. Precision: share of the LOST frames (visible or gone) in which the object is gone;
  recall: share of the gone frames that are LOST.
* ``false_lost``: share of the visible frames that are LOST.
* ``reacquired_1s``: share of the returns after which a pose within FOUND_DEG and FOUND_M comes within a second.
* ``wrong_object``: share of the frames with a pose in which it lies further than half the object's diagonal from the
  object, or nothing of the object is seen.
* ``drift_deg_per_100``: slope of the rotation error from frame 100 on, in degrees per 100 frames; mean over videos.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from nocsfm_ros.data.videos import RATE_HZ
from nocsfm_ros.evaluation.metrics import ADD_DIAMETERS, ADDS_LIMIT_M, LIMITS
from nocsfm_ros.evaluation.point_errors import area_under_curve
from nocsfm_ros.evaluation.summary import FOUND_DEG, FOUND_M, VISIBLE_FRACTION

DRIFT_FROM_S = 100 / RATE_HZ
REACQUIRED_S = 1.0
TABLE = {
    "5deg5cm": "5deg5cm", "10deg5cm": "10deg5cm", "add": "ADD", "adds_auc": "ADD-S AUC",
    "drift_deg_per_100": "drift, deg per 100 frames", "lost_precision": "LOST precision", "lost_recall": "LOST recall",
    "false_lost": "LOST though visible", "reacquired_1s": "back within 1 s", "wrong_object": "wrong object",
    "rate_hz": "Hz",
}


@dataclass(frozen=True)
class TrackedFrame:
    """One frame of one row against the truth; the errors count only with a pose.

    Attributes:
        video, row: which.
        time_s: since the video's first frame.
        visible_fraction: [0, 1] of the silhouette.
        diameter_m: of the object: the largest distance between two of its points.
        is_tracking, has_pose, confidence, ms, reason: what the tracker said, and how long it took.
        mask_iou: of visible frames.
        rot_err_deg, trans_err_m, add_m, adds_m: errors.
        sigma_deg, sigma_m: what the covariance expects them to be.
        mahalanobis: squared error in units of the covariance, 6 on average for an honest one.
    """

    video: str
    row: str
    time_s: float
    visible_fraction: float
    diameter_m: float
    is_tracking: bool
    confidence: float
    ms: float
    reason: str
    mask_iou: float | None = None
    has_pose: bool = False
    rot_err_deg: float = np.inf
    trans_err_m: float = np.inf
    add_m: float = np.inf
    adds_m: float = np.inf
    sigma_deg: float = np.inf
    sigma_m: float = np.inf
    mahalanobis: float = np.inf

    @property
    def is_visible(self) -> bool:
        """Enough is seen to demand a pose."""
        return self.visible_fraction >= VISIBLE_FRACTION

    @property
    def is_gone(self) -> bool:
        """Nothing of the object is seen."""
        return self.visible_fraction == 0

    @property
    def is_found(self) -> bool:
        """There is a pose, and the object is there."""
        return self.rot_err_deg <= FOUND_DEG and self.trans_err_m <= FOUND_M

    def is_within(self, limits: str) -> bool:
        """Whether there is a pose with errors inside one of metrics.LIMITS."""
        degrees, metres = LIMITS[limits]
        return self.rot_err_deg <= degrees and self.trans_err_m <= metres

    @property
    def is_wrong_object(self) -> bool:
        """There is a pose, and it is of something else."""
        return self.has_pose and (self.is_gone or self.trans_err_m > self.diameter_m / 2)


def summarise_tracking(frames: Sequence[TrackedFrame]) -> dict[str, Any]:
    """row -> the figures of the module's docstring in percent, and 5deg5cm by kind of video."""
    rows = {}
    for row in dict.fromkeys(frame.row for frame in frames):
        of_row = [frame for frame in frames if frame.row == row]
        kinds = sorted({_kind(frame) for frame in of_row})
        by_kind = {kind: _accuracies([f for f in of_row if _kind(f) == kind])["5deg5cm"] for kind in kinds}
        rows[row] = {**_accuracies(of_row), **_states(of_row), "5deg5cm_by_kind": by_kind}
    return rows


def tracking_table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Two markdown tables: the figures, and 5deg5cm by kind of video."""
    lines = [f"| row | {' | '.join(TABLE.values())} |", "|---" * (len(TABLE) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(_shown(row[key], key) for key in TABLE)} |" for name, row in rows.items()]
    kinds = next(iter(rows.values()))["5deg5cm_by_kind"]
    lines += ["", f"| 5deg5cm | {' | '.join(kinds)} |", "|---" * (len(kinds) + 1) + "|"]
    for name, row in rows.items():
        lines.append(f"| {name} | {' | '.join(_shown(row['5deg5cm_by_kind'][kind], '5deg5cm') for kind in kinds)} |")
    return "\n".join(lines) + "\n"


def calibration(frames: Sequence[TrackedFrame], edges: npt.NDArray[np.float64]) -> list[dict[str, float]]:
    """Bins of confidence: mean confidence, count, and percent within 5deg5cm and 10deg5cm, of visible poses."""
    posed = [frame for frame in frames if frame.has_pose and frame.is_visible]
    bins = []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        chosen = [f for f in posed if low <= f.confidence < high or (high == edges[-1] and f.confidence == high)]
        if chosen:
            bins.append({
                "confidence": float(np.mean([f.confidence for f in chosen])), "n": len(chosen),
                **{name: _percent([f.is_within(name) for f in chosen]) or 0.0 for name in ("5deg5cm", "10deg5cm")},
            })
    return bins


def _accuracies(frames: Sequence[TrackedFrame]) -> dict[str, Any]:
    visible = [frame for frame in frames if frame.is_visible]
    adds, ious = np.array([frame.adds_m for frame in visible]), [f.mask_iou for f in visible if f.mask_iou is not None]
    return {
        "frames": len(frames), "visible": len(visible),
        **{name: _percent([frame.is_within(name) for frame in visible]) for name in LIMITS},
        "add": _percent([frame.add_m < ADD_DIAMETERS * frame.diameter_m for frame in visible]),
        "adds_auc": round(100 * area_under_curve(adds, ADDS_LIMIT_M), 1) if len(adds) else None,
        "mask_iou": round(float(np.mean(ious)), 3) if ious else None,
    }


def _states(frames: Sequence[TrackedFrame]) -> dict[str, Any]:
    judged = [frame for frame in frames if frame.is_visible or frame.is_gone]
    returns = [back for video in _videos(frames) for back in _returns(video)]
    drifts = [slope for video in _videos(frames) if (slope := _drift(video)) is not None]
    tracked_ms = [frame.ms for frame in frames if frame.is_tracking]
    return {
        "lost_precision": _percent([frame.is_gone for frame in judged if not frame.has_pose]),
        "lost_recall": _percent([not frame.has_pose for frame in judged if frame.is_gone]),
        "false_lost": _percent([not frame.has_pose for frame in judged if frame.is_visible]),
        "reacquired_1s": _percent(returns), "returns": len(returns),
        "wrong_object": _percent([frame.is_wrong_object for frame in frames if frame.has_pose]),
        "drift_deg_per_100": round(float(np.mean(drifts)), 2) if drifts else None,
        "rate_hz": round(1e3 / float(np.mean(tracked_ms)), 1) if tracked_ms else None,
    }


def _videos(frames: Sequence[TrackedFrame]) -> list[list[TrackedFrame]]:
    ordered = sorted(frames, key=lambda frame: (frame.video, frame.time_s))
    return [list(group) for _, group in groupby(ordered, key=lambda frame: frame.video)]


def _returns(video: Sequence[TrackedFrame]) -> list[bool]:
    """For every time the object went and came back: whether it was found within REACQUIRED_S."""
    returns, was_gone, seen = [], False, False
    for frame in video:
        if frame.is_visible and was_gone and seen:
            soon = [f for f in video if frame.time_s <= f.time_s <= frame.time_s + REACQUIRED_S]
            returns.append(any(f.is_found for f in soon))
        was_gone = frame.is_gone or (was_gone and not frame.is_visible)
        seen = seen or frame.is_visible
    return returns


def _drift(video: Sequence[TrackedFrame]) -> float | None:
    late = [frame for frame in video if frame.time_s >= DRIFT_FROM_S and frame.is_visible and frame.has_pose]
    if len({frame.time_s for frame in late}) < 2:
        return None
    times = np.array([frame.time_s for frame in late]) * RATE_HZ / 100
    return float(np.polyfit(times, [frame.rot_err_deg for frame in late], 1)[0])


def _kind(frame: TrackedFrame) -> str:
    return frame.video.rpartition("_")[0]


def _percent(truths: Sequence[bool]) -> float | None:
    return round(100 * float(np.mean(truths)), 1) if len(truths) else None


def _shown(value: float | None, key: str) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if key in ("drift_deg_per_100", "rate_hz", "adds_auc") else f"{value:g} %"
