"""The core's answers as messages. The header is the colour picture's, unchanged, but for a prediction's stamp."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from cv_bridge import CvBridge
from geometry_msgs.msg import (
    Point,
    Pose,
    PoseWithCovariance,
    Quaternion,
    Transform,
    TransformStamped,
    Vector3,
)
from nocsfm_msgs.msg import Track as TrackMsg
from nocsfm_msgs.msg import TrackArray
from numpy.typing import NDArray
from sensor_msgs.msg import Image, RegionOfInterest
from std_msgs.msg import Header

from nocsfm_ros.errors import ShapeError
from nocsfm_ros.geometry.nocs import nocs_rgb_from_nocs
from nocsfm_ros.geometry.transforms import make_T, quat_xyzw_from_rotation
from nocsfm_ros.types import BoolArray, BoxXywh, Float32Array, Float64Array, RgbdFrame, Track, TrackState

_BRIDGE = CvBridge()


def header_of(frame: RgbdFrame) -> Header:
    """The header the colour picture came with."""
    return header_at(frame.stamp_ns, frame)


def header_at(stamp_ns: int, frame: RgbdFrame) -> Header:
    """The colour picture's header, at another time."""
    sec, nanosec = divmod(stamp_ns, 1_000_000_000)
    return Header(stamp=Time(sec=sec, nanosec=nanosec), frame_id=frame.frame_id)


def pose_from_T(T: Float64Array) -> Pose:
    """A (4, 4) transform as a pose."""
    x, y, z = T[:3, 3].tolist()
    qx, qy, qz, qw = (float(part) for part in quat_xyzw_from_rotation(T[:3, :3]))
    return Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw))


def pose_with_covariance(track: Track) -> PoseWithCovariance:
    """Pose of a track, with the covariance of the registration moved to the origin of the published frame.

    A small turn dr of the object about its own origin shifts a point at the lever arm r by dr x r.
    """
    T, pose = _T(track), track.estimate.pose
    covariance = track.estimate.covariance
    if pose is not None:
        x, y, z = T[:3, 3] - pose.t_cam_obj
        jacobian = np.eye(6)
        jacobian[:3, 3:] = [[0, z, -y], [-z, 0, x], [y, -x, 0]]
        covariance = jacobian @ covariance @ jacobian.T
    return PoseWithCovariance(pose=pose_from_T(T), covariance=covariance.ravel().tolist())


def transform_stamped(header: Header, track: Track, prefix: str) -> TransformStamped:
    """Camera optical frame -> <prefix><object_id>."""
    pose = pose_from_T(_T(track))
    shift = Vector3(x=pose.position.x, y=pose.position.y, z=pose.position.z)
    return TransformStamped(
        header=header,
        child_frame_id=prefix + track.object_id,
        transform=Transform(translation=shift, rotation=pose.orientation),
    )


def box_T(track: Track) -> Float64Array:
    """(4, 4) pose in the camera of the box of size_m: axes of the user's frame, origin in the box's middle."""
    return _T(track) @ make_T(np.eye(3), track.centre_m)


def track_array(header: Header, tracks: Sequence[Track]) -> TrackArray:
    """All objects after one frame."""
    return TrackArray(header=header, tracks=[_track_msg(track) for track in tracks])


def mask_msg(frame: RgbdFrame, tracks: Sequence[Track]) -> Image:
    """mono8: 255 on a single object; 1, 2, ... in the order of the tracks for several."""
    labels = np.zeros(frame.rgb.shape[:2], np.uint8)
    for index, track in enumerate(tracks):
        if track.state == TrackState.TRACKING:
            labels[track.estimate.mask] = 255 if len(tracks) == 1 else index + 1
    return image_msg(labels, "mono8", header_of(frame))


def nocs_msg(frame: RgbdFrame, tracks: Sequence[Track]) -> Image:
    """rgb8: the object coordinates as colours (nocs + 0.5), black outside the masks."""
    nocs, mask = _merged_nocs(frame, tracks)
    colours = np.rint(255.0 * np.clip(nocs_rgb_from_nocs(nocs), 0.0, 1.0)).astype(np.uint8)
    return image_msg(np.where(mask[:, :, None], colours, 0).astype(np.uint8), "rgb8", header_of(frame))


def nocs_float_msg(frame: RgbdFrame, tracks: Sequence[Track]) -> Image:
    """32FC3: the object coordinates as they are, centred, NaN outside the masks."""
    nocs, mask = _merged_nocs(frame, tracks)
    return image_msg(np.where(mask[:, :, None], nocs, np.nan).astype(np.float32), "32FC3", header_of(frame))


def image_msg(picture: NDArray[Any], encoding: str, header: Header) -> Image:
    """An array as a message."""
    message: Image = _BRIDGE.cv2_to_imgmsg(np.ascontiguousarray(picture), encoding)
    message.header = header
    return message


def _T(track: Track) -> Float64Array:
    if track.T_cam_user is None:
        raise ShapeError(f"track {track.object_id}", got="no pose", expected="a pose to publish")
    return track.T_cam_user


def _merged_nocs(frame: RgbdFrame, tracks: Sequence[Track]) -> tuple[Float32Array, BoolArray]:
    nocs = np.zeros((*frame.rgb.shape[:2], 3), np.float32)
    mask = np.zeros(frame.rgb.shape[:2], bool)
    for track in tracks:
        if track.state == TrackState.TRACKING:
            nocs[track.estimate.mask] = track.estimate.nocs[track.estimate.mask]
            mask |= track.estimate.mask
    return nocs, mask


def _track_msg(track: Track) -> TrackMsg:
    estimate = track.estimate
    message = TrackMsg(
        object_id=track.object_id,
        state=int(track.state),
        reason=estimate.reason,
        has_pose=track.T_cam_user is not None,
        confidence=float(estimate.confidence),
        inlier_ratio=float(estimate.inlier_ratio),
        num_keyframes=track.num_keyframes,
    )
    message.size.x, message.size.y, message.size.z = (float(side) for side in track.size_m)
    if track.T_cam_user is not None:
        message.pose = pose_with_covariance(track)
    if estimate.pose is not None:
        message.scale = float(estimate.pose.scale_m)
    if track.box_xywh is not None:
        message.box = _roi(track.box_xywh)
    return message


def _roi(box_xywh: BoxXywh) -> RegionOfInterest:
    """A box as whole pixels; what hangs out on the left and top is cut off, as the message is unsigned."""
    x, y, width, height = box_xywh
    left, top = max(0, math.floor(x)), max(0, math.floor(y))
    right, bottom = max(left, math.ceil(x + width)), max(top, math.ceil(y + height))
    return RegionOfInterest(x_offset=left, y_offset=top, width=right - left, height=bottom - top)
