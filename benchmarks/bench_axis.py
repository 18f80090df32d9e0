"""Is the axis of round things found, and of round things alone?

    python benchmarks/bench_axis.py --videos data/videos --videos data/videos_train

By the reference of every video of `nocsfm render --videos`, against the symmetry that the mesh was found to have.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from nocsfm_ros.config import Config
from nocsfm_ros.data.sequences import read_reference
from nocsfm_ros.evaluation.tracking import read_object
from nocsfm_ros.geometry.symmetry import ABOUT, CONTINUOUS, FLIPS
from nocsfm_ros.revolution import find_axis
from nocsfm_ros.tracking.tracker import build_tracker

ROUND_FOLD = 12  # of so many turns: what a depth camera takes for round


def true_axis(symmetry: int) -> np.ndarray | None:
    """(3,) in the mesh's frame, or None for what is not round."""
    fold, about = symmetry % ABOUT["z"], symmetry % FLIPS // ABOUT["z"]
    return np.eye(3)[[1, 2, 0][about]] if fold == CONTINUOUS or fold >= ROUND_FOLD else None


def main() -> None:
    """One line per video, then the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, action="append", required=True)
    torch.set_num_threads(1)
    tracker, counts, errors_deg, times_ms = build_tracker(Config()), dict[tuple[bool, bool], int](), [], []
    for folder in sorted(path.parent for videos in parser.parse_args().videos for path in videos.glob("*/sequence")):
        tracker.set_reference(read_reference(folder, folder.name))
        model = tracker.objects[folder.name].model
        begin = time.perf_counter()
        axis = find_axis(model)
        times_ms.append(1e3 * (time.perf_counter() - begin))
        expected = true_axis(read_object(folder).symmetry)
        key = expected is not None, axis is not None
        counts[key] = counts.get(key, 0) + 1
        if axis is not None and model.T_obj_user is not None:
            direction = model.T_obj_user[:3, :3].T @ axis.direction
            print(f"{folder.name}: about {' '.join(f'{x:.2f}' for x in direction)}, {'' if key[0] else 'not '}round")
            if expected is not None:
                errors_deg.append(float(np.degrees(np.arccos(min(abs(direction @ expected), 1.0)))))
        tracker.remove_reference()
    print(f"round: {counts.get((True, True), 0)} found, {counts.get((True, False), 0)} not; "
          f"others: {counts.get((False, True), 0)} taken for round, {counts.get((False, False), 0)} not")
    if not errors_deg:
        return
    print(f"axis off by {np.median(errors_deg):.1f} deg in the median, {max(errors_deg):.1f} at most; "
          f"{np.median(times_ms):.0f} ms, {max(times_ms):.0f} at most")


if __name__ == "__main__":
    main()
