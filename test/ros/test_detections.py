"""The same poses as vision_msgs, where that is installed; nothing, said once, where it is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: ./run test prepares it, or source a distribution")
pytest.importorskip("nocsfm_msgs", reason="needs the built message package nocsfm_msgs")

from nocsfm_msgs.msg import TrackArray
from nocsfm_msgs.srv import SetReference

from nocsfm_ros.ros import publishing
from nocsfm_ros.ros.outputs import header_of, pose_with_covariance
from nocsfm_ros.types import RgbdFrame, Track, TrackState

TOPIC, TRACKS = "/nocsfm_tracker/detections", "/nocsfm_tracker/tracks"
FRAME = RgbdFrame(
    np.zeros((48, 64, 3), np.uint8), np.zeros((48, 64), np.float32), np.eye(3), 5 * 10**9, "camera_color_optical_frame"
)
needs_vision_msgs = pytest.mark.skipif(
    find_spec("vision_msgs") is None, reason="vision_msgs is not installed: the node has no ~/detections"
)


def _publish(robot: Any) -> None:
    robot.publish(robot.messages.color(), robot.messages.depth(), robot.messages.info())


@needs_vision_msgs
def test_detection_has_name_score_pose_and_box(fake_track: Callable[[RgbdFrame, str], Track]) -> None:
    from nocsfm_ros.ros.detections import detection_array

    track = replace(fake_track(FRAME, "mug"), centre_m=np.array([0.01, 0.02, 0.03]))
    lost = replace(track, object_id="cup", state=TrackState.LOST, T_cam_user=None)
    array = detection_array(FRAME, [lost, track])
    (detection,) = array.detections
    assert array.header == detection.header == header_of(FRAME)
    (result,) = detection.results
    assert detection.id == result.hypothesis.class_id == "mug"
    assert result.hypothesis.score == pytest.approx(0.9)
    assert result.pose == pose_with_covariance(track)
    centre, size = detection.bbox.center, detection.bbox.size
    # the fake object is turned by 90 degrees about the optical axis: its x is the camera's y, its y the camera's -x
    assert (centre.position.x, centre.position.y, centre.position.z) == pytest.approx((0.08, -0.19, 0.53))
    assert centre.orientation == result.pose.pose.orientation
    assert (size.x, size.y, size.z) == pytest.approx((0.1, 0.2, 0.3))


@needs_vision_msgs
def test_node_publishes_detections(robot: Any, eventually: Any) -> None:
    from vision_msgs.msg import Detection3DArray

    robot.start_node()
    heard = robot.listen(Detection3DArray, TOPIC)
    request = SetReference.Request(object_id="mug", image=robot.messages.color())
    assert robot.call(SetReference, "/nocsfm_tracker/set_reference", request).success
    _publish(robot)
    array = eventually(lambda: heard)[0]
    assert array.header == robot.messages.header() and [each.id for each in array.detections] == ["mug"]


def test_node_without_vision_msgs_says_so_and_works(
    robot: Any, eventually: Any, monkeypatch: Any, capfd: Any
) -> None:
    monkeypatch.setattr(publishing, "find_spec", lambda name: None)
    robot.start_node()
    tracks = robot.listen(TrackArray, TRACKS)
    _publish(robot)
    eventually(lambda: tracks)
    assert not robot.peer.count_publishers(TOPIC)
    assert "".join(capfd.readouterr()).count("vision_msgs is not installed: no ~/detections") == 1
