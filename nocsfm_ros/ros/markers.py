"""Tracked objects for RViz: a box and a caption each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from geometry_msgs.msg import Vector3
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from nocsfm_ros.geometry.transforms import make_T
from nocsfm_ros.ros.outputs import box_T, header_of, pose_from_T
from nocsfm_ros.types import Float64Array, RgbdFrame, Track
from nocsfm_ros.visualization import STATE_COLOURS, caption

BOX, CAPTION = 0, 1  # ids; the namespace is the object's name
BOX_OPACITY = 0.4
MIN_SIDE_M = 0.001  # RViz refuses a box without thickness, which a sheet seen from one side has
CAPTION_HEIGHT = 0.15  # of the box's diagonal


class Markers:
    """Makes the arrays, and remembers whose markers were shown: those of forgotten objects must be deleted too."""

    def __init__(self) -> None:
        self._shown: set[str] = set()

    def array(self, frame: RgbdFrame, tracks: Sequence[Track]) -> MarkerArray:
        """Box and caption of every object with a pose, in the camera optical frame; both deleted of every other one."""
        header = header_of(frame)
        posed = {track.object_id: track for track in tracks if track.T_cam_user is not None}
        gone = (self._shown | {track.object_id for track in tracks}) - posed.keys()
        self._shown = set(posed)
        markers = [marker for name in sorted(gone) for marker in _deleted(header, name)]
        return MarkerArray(markers=markers + [marker for track in posed.values() for marker in _shown(header, track)])


def _shown(header: Header, track: Track) -> Iterable[Marker]:
    T_cam_box, size_m = box_T(track), np.maximum(track.size_m, MIN_SIDE_M)
    red, green, blue = (channel / 255 for channel in STATE_COLOURS[track.state])
    x, y, z = size_m.tolist()
    yield _marker(
        header, track, BOX, type=Marker.CUBE, pose=pose_from_T(T_cam_box), scale=Vector3(x=x, y=y, z=z),
        color=ColorRGBA(r=red, g=green, b=blue, a=BOX_OPACITY),
    )
    height_m = CAPTION_HEIGHT * float(np.linalg.norm(size_m))
    yield _marker(
        header, track, CAPTION, type=Marker.TEXT_VIEW_FACING, text=caption(track), scale=Vector3(z=height_m),
        pose=pose_from_T(make_T(np.eye(3), _above(T_cam_box, size_m, height_m))),
        color=ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0),
    )


def _above(T_cam_box: Float64Array, size_m: Float64Array, clearance_m: float) -> Float64Array:
    """(3,) a point over the box's middle, clear of its highest corner; up in the picture is -y of the camera."""
    half_height_m = float(np.abs(T_cam_box[1, :3]) @ size_m) / 2
    point: Float64Array = T_cam_box[:3, 3] - np.array([0.0, half_height_m + clearance_m, 0.0])
    return point


def _deleted(header: Header, object_id: str) -> Iterable[Marker]:
    return (Marker(header=header, ns=object_id, id=part, action=Marker.DELETE) for part in (BOX, CAPTION))


def _marker(header: Header, track: Track, part: int, **fields: object) -> Marker:
    return Marker(header=header, ns=track.object_id, id=part, action=Marker.ADD, **fields)
