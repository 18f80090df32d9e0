"""What moving a pose on (`filter.predict_up_to_s`) is worth: the embedded demo sequence against its truth.

``python benchmarks/bench_prediction.py [EVERY]`` tracks every EVERY-th frame (2) and prints, for each time after the
picture, the error of the pose as seen and of the pose moved on: of the box's middle, and of the turn.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from importlib.resources import files
from pathlib import Path

import numpy as np

from nocsfm_ros.data.sequences import read_reference, read_truths
from nocsfm_ros.data.sources import open_source
from nocsfm_ros.geometry.transforms import rotation_angle_deg
from nocsfm_ros.tracking.prediction import moved_on
from nocsfm_ros.tracking.tracker import build_tracker
from nocsfm_ros.types import Float64Array, Track

DEMO = Path(str(files("nocsfm_ros"))) / "demo_data"
LIMIT_S = 0.2


def errors(track: Track, T_true: Float64Array) -> tuple[float, float]:
    """Of the box's middle in mm, and of the turn in degrees."""
    if track.T_cam_user is None:
        raise ValueError(f"track {track.object_id}: got no pose, expected one")
    shift_m = (track.T_cam_user - T_true) @ np.append(track.centre_m, 1.0)
    return 1000 * float(np.linalg.norm(shift_m)), rotation_angle_deg(track.T_cam_user[:3, :3], T_true[:3, :3])


def main(every: int) -> None:
    """Track and print."""
    truths = {truth.stamp_ns: truth.T_cam_obj for truth in read_truths(DEMO / "sequence")}
    source, tracker = open_source(DEMO / "sequence"), build_tracker()
    tracker.set_reference(read_reference(DEMO, "object"))
    rows: dict[int, list[tuple[float, ...]]] = defaultdict(list)
    for index in range(0, len(source), every):
        (track,) = tracker.update(source.frame(index))
        if track.twist is None:
            continue
        for stamp_ns, T_true in truths.items():
            if 0 <= stamp_ns - track.stamp_ns <= LIMIT_S * 1e9 + 1:
                later = moved_on(track, stamp_ns, LIMIT_S)
                rows[round((stamp_ns - track.stamp_ns) / 1e6)].append(errors(track, T_true) + errors(later, T_true))
    print("ms after the picture | n | as seen, median (90 %) | moved on, median (90 %)")
    for late_ms, found in sorted(rows.items()):
        (mm, deg, moved_mm, moved_deg), (mm90, deg90, moved_mm90, moved_deg90) = np.percentile(found, [50, 90], axis=0)
        print(
            f"{late_ms} | {len(found)} | {mm:.1f} mm ({mm90:.0f}), {deg:.1f} deg ({deg90:.1f}) | "
            f"{moved_mm:.1f} mm ({moved_mm90:.0f}), {moved_deg:.1f} deg ({moved_deg90:.1f})"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
