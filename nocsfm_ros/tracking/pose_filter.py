"""The 1-euro filter on poses: calm at rest, quick in motion."""

from __future__ import annotations

import numpy as np

from nocsfm_ros.config import FilterConfig
from nocsfm_ros.geometry.transforms import motion_between, moved
from nocsfm_ros.types import Float64Array

SPEED_CUTOFF_HZ = 1.0
MAX_GAP_S = 0.5  # after a longer one the old pose says nothing


class PoseFilter:
    """G. Casiez, N. Roussel and D. Vogel, "1 euro filter", CHI 2012, on position and on rotation.

    A first-order low pass whose cutoff rises with the speed, so that a moving object lags little: in steady motion by
    ``1 / (2 pi cutoff)`` seconds, with ``cutoff = cutoff_hz + speed_gain * speed``. The speed is that of the position
    in scale_m per second, or of the rotation in rad/s.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """The next pose passes unchanged."""
        self._raw: Float64Array | None = None
        self._smooth = np.eye(4)
        self._stamp_ns = 0
        self._speed = np.zeros(6)

    def smooth(self, T_cam_obj: Float64Array, stamp_ns: int, scale_m: float, config: FilterConfig) -> Float64Array:
        """(4, 4) smoothed pose; the given one where the filter is off, at the start, and after a gap in time.

        Args:
            T_cam_obj: (4, 4) pose, metres.
            stamp_ns: of its picture.
            scale_m: size of the object, against which its motion is fast or slow.
            config: cutoff and gain.
        """
        raw, step_s = self._raw, (stamp_ns - self._stamp_ns) * 1e-9
        self._raw, self._stamp_ns = T_cam_obj, stamp_ns
        if raw is None or config.cutoff_hz == 0 or not 0 < step_s < MAX_GAP_S:
            self._speed, self._smooth = np.zeros(6), T_cam_obj
            return T_cam_obj
        speed = motion_between(raw, T_cam_obj) / step_s
        speed[:3] /= scale_m
        self._speed = self._speed + _share(SPEED_CUTOFF_HZ, step_s) * (speed - self._speed)
        shares = [
            _share(config.cutoff_hz + config.speed_gain * float(np.linalg.norm(part)), step_s)
            for part in (self._speed[:3], self._speed[3:])
        ]
        self._smooth = moved(self._smooth, np.repeat(shares, 3) * motion_between(self._smooth, T_cam_obj))
        return self._smooth


def _share(cutoff_hz: float, step_s: float) -> float:
    """How much of a step a first-order low pass follows at once, (0, 1)."""
    return 1 / (1 + 1 / (2 * np.pi * cutoff_hz * step_s))
