"""Tracked objects as vision_msgs, for nodes that speak it. To be imported only where vision_msgs is installed."""

from __future__ import annotations

from collections.abc import Sequence

from geometry_msgs.msg import Vector3
from vision_msgs.msg import (
    BoundingBox3D,
    Detection3D,
    Detection3DArray,
    ObjectHypothesis,
    ObjectHypothesisWithPose,
)

from nocsfm_ros.ros.outputs import box_T, header_of, pose_from_T, pose_with_covariance
from nocsfm_ros.types import RgbdFrame, Track


def detection_array(frame: RgbdFrame, tracks: Sequence[Track]) -> Detection3DArray:
    """Every object with a pose, in the camera optical frame: name as class and id, pose of the user's frame, box."""
    header = header_of(frame)
    posed = [track for track in tracks if track.T_cam_user is not None]
    detections = [
        Detection3D(
            header=header,
            id=track.object_id,
            results=[
                ObjectHypothesisWithPose(
                    hypothesis=ObjectHypothesis(class_id=track.object_id, score=float(track.estimate.confidence)),
                    pose=pose_with_covariance(track),
                )
            ],
            bbox=_box(track),
        )
        for track in posed
    ]
    return Detection3DArray(header=header, detections=detections)


def _box(track: Track) -> BoundingBox3D:
    x, y, z = track.size_m.tolist()
    return BoundingBox3D(center=pose_from_T(box_T(track)), size=Vector3(x=x, y=y, z=z))
