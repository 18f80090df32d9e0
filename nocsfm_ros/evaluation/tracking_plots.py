"""The plots of a tracking evaluation: errors over time, and what confidence and covariance are worth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import chi2

from nocsfm_ros.evaluation.tracking_metrics import TrackedFrame, calibration

BIN_S = 1.0
CONFIDENCE_EDGES = np.linspace(0.4, 1.0, 7)
POSE_FREEDOMS = 6


def plot_errors_over_time(frames: Sequence[TrackedFrame], path: Path) -> None:
    """By row and second of the video: visible frames within 5deg5cm, and the rotation error of those with a pose."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    within, rotation = figure.subplots(1, 2)
    for row in dict.fromkeys(frame.row for frame in frames):
        visible = [frame for frame in frames if frame.row == row and frame.is_visible]
        seconds = np.array([frame.time_s // BIN_S for frame in visible])
        good = np.array([frame.is_within("5deg5cm") for frame in visible], np.float64)
        error = np.array([frame.rot_err_deg for frame in visible])
        bins = np.unique(seconds)
        within.plot(bins * BIN_S, [100 * good[seconds == b].mean() for b in bins], label=row)
        posed = np.isfinite(error)
        at = [b for b in bins if (posed & (seconds == b)).any()]
        (line,) = rotation.plot(
            np.array(at) * BIN_S, [np.median(error[posed & (seconds == b)]) for b in at], label=f"{row}, median"
        )
        rotation.plot(
            np.array(at) * BIN_S, [np.percentile(error[posed & (seconds == b)], 90) for b in at], ":",
            color=line.get_color(), label="9 of 10 below",
        )
    within.set_ylabel("visible frames within 5 deg and 5 cm, %")
    within.set_ylim(0, 100)
    rotation.set_ylabel("rotation error of the poses, deg")
    rotation.set_yscale("log")
    for axes in (within, rotation):
        axes.set_xlabel("time in the video, s")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)


def plot_calibration(frames: Sequence[TrackedFrame], path: Path) -> None:
    """Of the product row: accuracy by confidence, and errors in units of the covariance."""
    product = [frame for frame in frames if frame.row == "product"]
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    confidence, covariance = figure.subplots(1, 2)
    bins = calibration(product, CONFIDENCE_EDGES)
    for name in ("5deg5cm", "10deg5cm"):
        confidence.plot([b["confidence"] for b in bins], [b[name] for b in bins], marker="o", label=name)
    for b in bins:
        confidence.annotate(f"n {b['n']}", (b["confidence"], b["5deg5cm"]), xytext=(4, -12), textcoords="offset points")
    confidence.plot([0, 1], [0, 100], ":", color="0.6", label="confidence = share")
    confidence.set_xlabel("confidence")
    confidence.set_ylabel("poses within, %")
    confidence.set_xlim(0.35, 1.02)
    errors = np.sort([frame.mahalanobis for frame in product if frame.has_pose and frame.is_visible])
    share = (np.arange(len(errors)) + 0.5) / max(len(errors), 1)
    covariance.plot(np.sqrt(errors), 100 * share, label="measured")
    at = np.linspace(0.3, 12, 200)
    covariance.plot(at, 100 * chi2.cdf(at**2, POSE_FREEDOMS), ":", color="0.5", label="if the covariance were true")
    covariance.set_xscale("log")
    covariance.set_xlim(0.3, 100)
    covariance.set_xlabel("error in units of the covariance (Mahalanobis distance)")
    covariance.set_ylabel("poses below, %")
    for axes in (confidence, covariance):
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)
