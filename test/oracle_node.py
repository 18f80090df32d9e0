"""The real node with a tracker that looks up the truth of a synthetic demo, turned by 5 degrees and 1 cm off.

``python oracle_node.py DEMO_DATA --ros-args ...``. It loses the object with fewer than a third of its pixels.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from nocsfm_ros.data.sequences import read_truths
from nocsfm_ros.geometry.crops import box_from_mask
from nocsfm_ros.geometry.transforms import make_T
from nocsfm_ros.types import PoseEstimate, Reference, RgbdFrame, SimilarityPose, Track, TrackState

ERROR_DEG, ERROR_M = 5.0, 0.01
T_ERROR = make_T(
    np.asarray(Rotation.from_euler("z", ERROR_DEG, degrees=True).as_matrix()), np.array([ERROR_M, 0, 0])
)


class OracleTracker:
    """Knows the answers."""

    def __init__(self, data: Path) -> None:
        self._truth = {truth.stamp_ns: truth for truth in read_truths(data / "sequence")}
        self.object_ids: list[str] = []
        self.stage_ms = {"oracle": 0.0}

    def set_reference(self, reference: Reference) -> Any:
        self.object_ids = [reference.object_id]
        return SimpleNamespace(
            object_id=reference.object_id,
            foreground_pixels=int(reference.mask.sum()),
            size_m=np.full(3, 0.1),
            scale_m=0.2,
        )

    def remove_reference(self, object_id: str | None) -> list[str]:
        return []

    def reset(self) -> None:
        pass

    def configure(self, config: Any) -> None:
        pass

    def update(self, frame: RgbdFrame) -> list[Track]:
        truth = self._truth[frame.stamp_ns]
        labels, T = truth.labels, truth.T_cam_obj @ T_ERROR
        mask = labels == 255
        found = 3 * mask.sum() > (labels > 0).sum() > 0
        mask = mask & found
        nocs = np.zeros((*mask.shape, 3), np.float32)
        pose = SimilarityPose(T[:3, :3], T[:3, 3], 0.23) if found else None
        estimate = PoseEstimate(pose, mask, nocs, confidence=0.9 * found, reason="" if found else "not there")
        return [
            Track(
                name,
                TrackState.TRACKING if found else TrackState.LOST,
                frame.stamp_ns,
                estimate,
                T if found else None,
                np.array([0.12, 0.18, 0.07]),
                box_from_mask(mask),
                1,
            )
            for name in self.object_ids
        ]


if __name__ == "__main__":
    from nocsfm_ros.ros.node import main

    folder = Path(sys.argv.pop(1))
    sys.exit(main(build=lambda config: OracleTracker(folder)))
