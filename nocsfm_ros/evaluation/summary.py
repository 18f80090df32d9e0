"""A run of the tracker in real time against the truth: what went well, in a handful of numbers.

The words used in the summary:

* ``frames``: colour pictures that were played. ``results``: those the node answered; the others came while it
  was busy and were ``dropped`` (it always takes the newest).
* *visible*: at least VISIBLE_FRACTION of the object's silhouette can be seen. *Gone*: not one pixel of it.
  What lies between is judged neither way.
* ``tracked_frames``: results in the state TRACKING. ``tracked_visible_ratio``: visible results that are
  TRACKING over visible results: how well it does on what it looks at. ``tracked_visible_ratio_all``: the same
  over all visible frames played, so that a dropped frame counts as not tracked: how well it does for a robot.
* Pose errors: over visible TRACKING results. Mask IoU: over *all* visible results; one without a mask counts
  as 0.
* ``reacquired``: every time the object left and came back, a later visible result was TRACKING with a pose
  within FOUND_DEG and FOUND_M. None when it never left. ``false_poses_when_gone``: results with a pose though
  nothing of the object can be seen; the state alone may still be TRACKING for a frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nocsfm_ros.data.sequences import LABEL_HIDDEN, LABEL_VISIBLE, FrameTruth
from nocsfm_ros.errors import ConfigError, ShapeError
from nocsfm_ros.geometry.transforms import rotation_angle_deg
from nocsfm_ros.types import BoolArray, Float64Array, TrackState, Uint8Array

VISIBLE_FRACTION = 0.3
OCCLUDED_FRACTION = 0.1
FOUND_DEG, FOUND_M = 20.0, 0.05


@dataclass(frozen=True)
class FrameResult:
    """What the node answered to one frame.

    Attributes:
        stamp_ns: of the colour picture.
        state: of the track.
        T_cam_obj: (4, 4), or None.
        mask: (H, W) bool, or None when none was published.
        confidence: [0, 1].
        latency_ms: from the picture's publication to the result's.
        published_ns: wall clock.
    """

    stamp_ns: int
    state: TrackState
    T_cam_obj: Float64Array | None
    mask: BoolArray | None
    confidence: float
    latency_ms: float
    published_ns: int


@dataclass(frozen=True)
class FrameScore:
    """Truth and answer of one frame put together; NaN where there is no value.

    Attributes:
        truth: of the frame.
        result: None when the frame was dropped.
        visible_fraction: [0, 1], share of the whole silhouette, also of its part outside the picture.
        hidden_fraction: [0, 1], share of the silhouette inside the picture that is behind something.
    """

    truth: FrameTruth
    result: FrameResult | None
    visible_fraction: float
    hidden_fraction: float
    rot_err_deg: float
    trans_err_m: float
    mask_iou: float

    @property
    def is_visible(self) -> bool:
        """Enough of it can be seen to demand an answer."""
        return self.visible_fraction >= VISIBLE_FRACTION

    @property
    def is_gone(self) -> bool:
        """Nothing of it can be seen."""
        return self.visible_fraction == 0

    @property
    def is_tracking(self) -> bool:
        """The node says that it has it."""
        return self.result is not None and self.result.state == TrackState.TRACKING

    @property
    def has_pose(self) -> bool:
        """The node has published a pose."""
        return self.result is not None and self.result.T_cam_obj is not None

    @property
    def is_found(self) -> bool:
        """The node has it, and it really is there."""
        return self.is_tracking and self.rot_err_deg <= FOUND_DEG and self.trans_err_m <= FOUND_M


def score_frames(truths: Sequence[FrameTruth], results: Sequence[FrameResult]) -> list[FrameScore]:
    """One score per played frame, in the order of time.

    Raises:
        ConfigError: no frame was played, or a result belongs to none.
    """
    ordered = sorted(truths, key=lambda truth: truth.stamp_ns)
    answers = {result.stamp_ns: result for result in results}
    strangers = answers.keys() - {truth.stamp_ns for truth in ordered}
    if not ordered or strangers:
        raise ConfigError(
            "results",
            got=f"{len(strangers)} for stamps never played, of {len(ordered)} frames played",
            expected="frames, and results with their stamps",
        )
    fractions = visible_fractions(ordered)
    return [
        _score(truth, answers.get(truth.stamp_ns), fraction)
        for truth, fraction in zip(ordered, fractions, strict=True)
    ]


def summarise(scores: Sequence[FrameScore]) -> dict[str, Any]:
    """The numbers of the module's docstring, in the order in which they are shown. Medians of nothing are
    None.
    """
    done = [score for score in scores if score.result is not None]
    answers = [score.result for score in scores if score.result is not None]
    visible = [score for score in done if score.is_visible]
    tracked = [score for score in visible if score.is_tracking]
    all_visible = sum(score.is_visible for score in scores)
    latencies = [answer.latency_ms for answer in answers]
    absences = _absences(scores)
    gone = [score for score in done if score.is_gone]
    return {
        "frames": len(scores),
        "tracked_frames": sum(score.is_tracking for score in done),
        "rate_hz": _rate_hz([answer.published_ns for answer in answers]),
        "latency_ms_p50": _percentile(latencies, 50, 1),
        "latency_ms_p95": _percentile(latencies, 95, 1),
        "rot_err_deg_p50": _percentile([score.rot_err_deg for score in tracked], 50, 2),
        "trans_err_m_p50": _percentile([score.trans_err_m for score in tracked], 50, 4),
        "mask_iou_p50": _percentile([score.mask_iou for score in visible], 50, 3),
        "reacquired": all(any(score.is_found for score in after) for _, after in absences)
        if absences
        else None,
        "results": len(done),
        "dropped": len(scores) - len(done),
        "visible_frames": all_visible,
        "visible_results": len(visible),
        "tracked_visible_ratio": _ratio(len(tracked), len(visible)),
        "tracked_visible_ratio_all": _ratio(len(tracked), all_visible),
        "found_visible_ratio": _ratio(sum(score.is_found for score in visible), len(visible)),
        "rot_err_deg_p95": _percentile([score.rot_err_deg for score in tracked], 95, 2),
        "trans_err_m_p95": _percentile([score.trans_err_m for score in tracked], 95, 4),
        "gone_results": len(gone),
        "false_poses_when_gone": sum(score.has_pose for score in gone),
        "lost_when_gone": _lost_when_gone(absences),
        "reacquired_after_s": [_seconds_until_found(after) for _, after in absences],
    }


def visible_fractions(truths: Sequence[FrameTruth]) -> list[float]:
    """Share of the object's whole silhouette that can be seen, per frame.

    The labels know what is hidden inside the picture only. Where the silhouette touches the border its whole
    size is taken from the frames where it does not: the median of area x distance^2.
    """
    areas = [int((truth.labels > 0).sum()) for truth in truths]
    whole = [
        area * float(truth.T_cam_obj[2, 3]) ** 2
        for truth, area in zip(truths, areas, strict=True)
        if area and not _touches_border(truth.labels)
    ]
    area_at_1m = float(np.median(whole)) if whole else 0.0
    fractions = []
    for truth, area in zip(truths, areas, strict=True):
        whole_area = float(area)
        if area and _touches_border(truth.labels):
            whole_area = max(whole_area, area_at_1m / float(truth.T_cam_obj[2, 3]) ** 2)
        fractions.append(float((truth.labels == LABEL_VISIBLE).sum() / whole_area) if area else 0.0)
    return fractions


def mask_iou(mask_a: BoolArray, mask_b: BoolArray) -> float:
    """Intersection over union of two (H, W) bool masks; two empty ones agree: 1.

    Raises:
        ShapeError: the sizes differ.
    """
    if mask_a.shape != mask_b.shape:
        raise ShapeError("masks", got=f"{mask_a.shape} and {mask_b.shape}", expected="one size")
    union = int((mask_a | mask_b).sum())
    return int((mask_a & mask_b).sum()) / union if union else 1.0


def _score(truth: FrameTruth, result: FrameResult | None, visible_fraction: float) -> FrameScore:
    rot_err_deg = trans_err_m = iou = float("nan")
    silhouette = int((truth.labels > 0).sum())
    hidden = float((truth.labels == LABEL_HIDDEN).sum() / silhouette) if silhouette else 0.0
    if result is not None:
        shown = truth.labels == LABEL_VISIBLE
        iou = mask_iou(np.zeros_like(shown) if result.mask is None else result.mask, shown)
        if result.T_cam_obj is not None:
            rot_err_deg = rotation_angle_deg(result.T_cam_obj[:3, :3], truth.T_cam_obj[:3, :3])
            trans_err_m = float(np.linalg.norm(result.T_cam_obj[:3, 3] - truth.T_cam_obj[:3, 3]))
    return FrameScore(truth, result, visible_fraction, hidden, rot_err_deg, trans_err_m, iou)


def _absences(scores: Sequence[FrameScore]) -> list[tuple[list[FrameScore], list[FrameScore]]]:
    """(frames while it is gone, frames from then until it is gone again) for every time it went and came
    back.
    """
    spans: list[tuple[list[FrameScore], list[FrameScore]]] = []
    before: FrameScore | None = None
    seen = False
    for score in scores:
        if score.is_gone and seen and (before is None or not before.is_gone):
            spans.append(([], []))
        seen = seen or score.is_visible  # what was never there cannot come back
        if spans:
            spans[-1][0 if score.is_gone else 1].append(score)
        before = score
    return [span for span in spans if any(score.is_visible for score in span[1])]


def _lost_when_gone(absences: Sequence[tuple[list[FrameScore], list[FrameScore]]]) -> bool | None:
    """Whether the node noticed every absence."""
    if not absences:
        return None
    return all(any(s.result is not None and not s.is_tracking for s in gone) for gone, _ in absences)


def _seconds_until_found(after: Sequence[FrameScore]) -> float | None:
    """From the first frame in which it is visible again to the first in which it is found."""
    back_ns = next(score.truth.stamp_ns for score in after if score.is_visible)
    found = [score.truth.stamp_ns for score in after if score.is_found]
    return round(max(0, found[0] - back_ns) / 1e9, 2) if found else None


def _touches_border(labels: Uint8Array) -> bool:
    return bool(labels[[0, -1]].any() or labels[:, [0, -1]].any())


def _rate_hz(published_ns: Sequence[int]) -> float | None:
    if len(published_ns) < 2:
        return None
    return round((len(published_ns) - 1) * 1e9 / (max(published_ns) - min(published_ns)), 2)


def _percentile(values: Sequence[float], percent: float, digits: int) -> float | None:
    finite = [value for value in values if np.isfinite(value)]
    return round(float(np.percentile(finite, percent)), digits) if finite else None


def _ratio(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
