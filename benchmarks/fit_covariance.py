"""Fit what the covariance of a pose misses: the residuals tell how sure a fit is, not how right the memory is.

    nocsfm render --videos data/videos_train --split train
    python benchmarks/fit_covariance.py --videos data/videos_train

Tracks training objects as a robot would and compares the errors of the right poses with their covariance. Prints the
two constants of estimator.py, a shift as a share of scale_m and a turn, by which the medians of the squared errors in
units of the covariance become those of chi-square with three degrees of freedom, and all medians with and without them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.optimize import brentq
from scipy.stats import chi2

from nocsfm_ros.config import Config
from nocsfm_ros.data.bags import BagSource
from nocsfm_ros.data.sequences import read_reference, read_truths
from nocsfm_ros.estimator import memory_covariance
from nocsfm_ros.evaluation.tracking import nearest_truth, pose_error, read_object, run_row
from nocsfm_ros.tracking.tracker import Tracker, build_tracker
from nocsfm_ros.types import Float64Array

RIGHT_DEG, RIGHT_SHARE = 15.0, 0.2  # of scale_m: a covariance speaks of small errors, not of a wrong turn
WIDEST = 0.5


def errors_of(folder: Path, tracker: Tracker) -> Iterator[tuple[Float64Array, Float64Array, float]]:
    """Of the right poses in a video: error (6,), covariance (6, 6) of the fit alone, scale_m."""
    source, truths = BagSource(folder / "sequence"), read_truths(folder / "sequence")
    reference, thing = read_reference(folder, folder.name), read_object(folder)
    for index, track, _ in run_row("product", tracker, source, reference):
        pose, T_est = track.estimate.pose, track.T_cam_user
        T_obj_user = tracker.objects[track.object_id].model.T_obj_user
        if pose is None or T_est is None or T_obj_user is None:
            continue
        error = pose_error(T_est, nearest_truth(T_est, truths[index], thing), T_obj_user)
        turn_deg, shift_m = np.degrees(np.linalg.norm(error[3:])), np.linalg.norm(error[:3])
        if turn_deg < RIGHT_DEG and shift_m < RIGHT_SHARE * pose.scale_m:
            of_fit = track.estimate.covariance - memory_covariance(pose.scale_m)
            yield error, of_fit, pose.scale_m


def squared(errors: Float64Array, covariances: Float64Array) -> Float64Array:
    """(N,) of errors (N, k), in units of covariances (N, k, k)."""
    return np.einsum("ni,nij,nj->n", errors, np.linalg.inv(covariances), errors)


def widening(errors: Float64Array, covariances: Float64Array, units: Float64Array) -> float:
    """Deviation in `units` (N,) that, added to covariances (N, 3, 3), makes the median of errors (N, 3) as expected."""
    def excess(deviation: float) -> float:
        widened = covariances + (deviation * units)[:, None, None] ** 2 * np.eye(3)
        return float(np.median(squared(errors, widened)) - chi2.median(3))

    return 0.0 if excess(0.0) <= 0 else float(brentq(excess, 0.0, WIDEST))


def main() -> None:
    """Track, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, default=Path("data/videos_train"))
    options = parser.parse_args()
    config = Config()
    tracker = build_tracker(replace(config, model=replace(config.model, num_threads=1)))
    found: list[tuple[Float64Array, Float64Array, float]] = []
    for folder in sorted(path.parent for path in options.videos.glob("*/sequence")):
        before = len(found)
        found += errors_of(folder, tracker)
        print(f"{folder.name}: {len(found) - before} right poses", flush=True)
    errors, covariances, scales_m = (np.array(column) for column in zip(*found, strict=True))
    shift = widening(errors[:, :3], covariances[:, :3, :3], scales_m)
    turn = widening(errors[:, 3:], covariances[:, 3:, 3:], np.ones(len(errors)))
    print(f"MEMORY_SHIFT {shift:.4f}, MEMORY_TURN {turn:.4f}; expected {chi2.median(3):.2f} each, {chi2.median(6):.2f}")
    for name, constants in (("fit alone", (0.0, 0.0)), ("with them", (shift, turn))):
        widened = covariances + np.stack([memory_covariance(scale_m, *constants) for scale_m in scales_m])
        of_shift, of_turn, of_both = (
            np.median(squared(errors[:, part], widened[:, part, part]))
            for part in (slice(0, 3), slice(3, 6), slice(0, 6))
        )
        print(f"{name}: shift {of_shift:.2f}, turn {of_turn:.2f}, both {of_both:.2f}")


if __name__ == "__main__":
    main()
