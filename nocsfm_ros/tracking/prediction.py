"""How fast a followed object moves, and where it is a little later.

A published pose is as old as its picture: exposure, transfer and computing. Moved on at constant velocity it is
current, with these limits: a change of the motion after the picture is not seen (an acceleration a leaves
``a ahead^2 / 2``), the velocity follows a change within about SMOOTH_S or one frame, whichever is longer, the noise of
the pose grows with the time ahead, and the lag of PoseFilter is not made up for.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nocsfm_ros.geometry.transforms import invert, make_T, motion_between, moved
from nocsfm_ros.types import Float64Array, SimilarityPose, Track

MAX_STEP_S = 0.5  # velocity says nothing after a longer gap
SMOOTH_S = 0.1  # time constant of the velocity: at 30 Hz the difference of two poses is mostly noise


class Velocity:
    """Of the middle of an object's box and of its turn, from the published poses of frames in a row."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """The next pose has no velocity."""
        self._before: Float64Array | None = None
        self._stamp_ns = 0
        self._twist: Float64Array | None = None

    def update(self, T_cam_user: Float64Array, centre_m: Float64Array, stamp_ns: int) -> Float64Array | None:
        """The twist at this pose, as in types.Track; None for the first one, after a gap, and when time jumps back.

        Args:
            T_cam_user: (4, 4) pose, metres.
            centre_m: (3,) middle of the box in the user's frame.
            stamp_ns: of its picture.
        """
        before, step_s = self._before, (stamp_ns - self._stamp_ns) * 1e-9
        self._before, self._stamp_ns = T_cam_user, stamp_ns
        if before is None or not 0 < step_s < MAX_STEP_S:
            self._twist = None
            return None
        T_user_box = make_T(np.eye(3), centre_m)  # today's middle for both: it moves when the object's memory grows
        newest = motion_between(before @ T_user_box, T_cam_user @ T_user_box) / step_s
        so_far = newest if self._twist is None else self._twist
        self._twist = so_far + (1 - np.exp(-step_s / SMOOTH_S)) * (newest - so_far)
        return self._twist


def moved_on(track: Track, now_ns: int, limit_s: float) -> Track:
    """The track with poses and stamp moved on to now, at most by limit_s; its mask and box stay the picture's.

    Without pose or velocity, and where now is not after the track, it comes back as it is, with its own stamp. The
    covariance stays that of the measurement: it does not know how far the velocity can be trusted.

    Args:
        track: at the stamp of its picture.
        now_ns: in the clock of that stamp.
        limit_s: largest time ahead; past it the answer is the pose at stamp + limit_s, and says so in its stamp.
    """
    ahead_ns = min(now_ns - track.stamp_ns, round(limit_s * 1e9))
    if track.T_cam_user is None or track.twist is None or ahead_ns <= 0:
        return track
    T_cam_box = track.T_cam_user @ make_T(np.eye(3), track.centre_m)
    T_later_cam = moved(T_cam_box, 1e-9 * ahead_ns * track.twist) @ invert(T_cam_box)  # of points fixed to the object
    pose = track.estimate.pose
    if pose is not None:
        T_cam_obj = T_later_cam @ pose.T_cam_obj
        pose = SimilarityPose(T_cam_obj[:3, :3], T_cam_obj[:3, 3], pose.scale_m)
    return replace(
        track, stamp_ns=track.stamp_ns + ahead_ns, T_cam_user=T_later_cam @ track.T_cam_user,
        estimate=replace(track.estimate, pose=pose),
    )
