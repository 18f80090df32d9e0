"""Markers for RViz: boxes in the right place, captions over them, nothing left of what is gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy", reason="needs ROS 2: ./run test prepares it, or source a distribution")
pytest.importorskip("nocsfm_msgs", reason="needs the built message package nocsfm_msgs")

from builtin_interfaces.msg import Time
from nocsfm_msgs.srv import RemoveReference, SetReference
from std_msgs.msg import Header
from visualization_msgs.msg import Marker, MarkerArray

from nocsfm_ros.ros.conversions import T_from_pose
from nocsfm_ros.ros.markers import MIN_SIDE_M, Markers
from nocsfm_ros.types import RgbdFrame, Track, TrackState

FRAME = RgbdFrame(
    np.zeros((48, 64, 3), np.uint8), np.zeros((48, 64), np.float32), np.eye(3), 5 * 10**9, "camera_color_optical_frame"
)
HEADER = Header(stamp=Time(sec=5), frame_id="camera_color_optical_frame")
TOPIC = "/nocsfm_tracker/markers"
FakeTrack = Callable[[RgbdFrame, str], Track]


@pytest.fixture()
def track(fake_track: FakeTrack) -> Track:
    return replace(fake_track(FRAME, "mug"), centre_m=np.array([0.01, 0.02, 0.03]))


def lost(track: Track) -> Track:
    return replace(
        track, state=TrackState.LOST, T_cam_user=None, box_xywh=None, estimate=replace(track.estimate, pose=None)
    )


def actions(array: MarkerArray) -> set[tuple[str, int, int]]:
    return {(marker.ns, marker.id, marker.action) for marker in array.markers}


def test_box_lies_around_its_middle_along_the_axes_of_the_users_frame(track: Track) -> None:
    box, _ = Markers().array(FRAME, [track]).markers
    T_cam_box = T_from_pose(box.pose)
    # the fake object is turned by 90 degrees about the optical axis: its x is the camera's y, its y the camera's -x
    np.testing.assert_allclose(T_cam_box[:3, 3], [0.1 - 0.02, -0.2 + 0.01, 0.5 + 0.03], atol=1e-9)
    assert track.T_cam_user is not None
    np.testing.assert_allclose(T_cam_box[:3, :3], track.T_cam_user[:3, :3], atol=1e-9)
    assert (box.type, box.header, box.ns) == (Marker.CUBE, HEADER, "mug")
    assert (box.scale.x, box.scale.y, box.scale.z) == pytest.approx((0.1, 0.2, 0.3))
    assert 0 < box.color.a < 1, "the object must show through"


def test_caption_says_name_state_and_confidence_above_the_box_in_the_picture(track: Track) -> None:
    box, caption = Markers().array(FRAME, [track]).markers
    assert caption.type == Marker.TEXT_VIEW_FACING and caption.color.a == 1
    assert [part in caption.text for part in ("mug", "TRACKING", "90%")] == [True] * 3
    assert caption.scale.z > 0
    top_y = box.pose.position.y - 0.1 / 2  # the object's x, 0.1 m, is upright
    assert caption.pose.position.y == pytest.approx(top_y - caption.scale.z)
    assert caption.pose.position.x == pytest.approx(box.pose.position.x)


def test_box_of_a_plane_thing_keeps_a_thickness(track: Track) -> None:
    box, _ = Markers().array(FRAME, [replace(track, size_m=np.array([0.1, 0.2, 0.0]))]).markers
    assert (box.scale.x, box.scale.z) == pytest.approx((0.1, MIN_SIDE_M))


def test_lost_object_is_deleted_and_comes_back(track: Track) -> None:
    markers = Markers()
    added = {("mug", part, Marker.ADD) for part in (0, 1)}
    deleted = {("mug", part, Marker.DELETE) for part in (0, 1)}
    states = [markers.array(FRAME, [each]) for each in (track, lost(track), lost(track), track)]
    assert [actions(array) for array in states] == [added, deleted, deleted, added]


def test_forgotten_object_is_deleted_once_and_the_other_one_stays(track: Track) -> None:
    markers, cup = Markers(), replace(track, object_id="cup")
    markers.array(FRAME, [track, cup])
    cups = {("cup", part, Marker.ADD) for part in (0, 1)}
    assert actions(markers.array(FRAME, [cup])) == cups | {("mug", part, Marker.DELETE) for part in (0, 1)}
    assert actions(markers.array(FRAME, [cup])) == cups


def _publish(robot: Any, stamp_ns: int) -> None:
    parts = [getattr(robot.messages, name)(stamp_ns=stamp_ns) for name in ("color", "depth", "info")]
    robot.publish(*parts)


def test_node_publishes_markers_and_deletes_those_of_a_removed_reference(robot: Any, eventually: Any) -> None:
    robot.start_node()
    heard = robot.listen(MarkerArray, TOPIC)
    request = SetReference.Request(object_id="mug", image=robot.messages.color())
    assert robot.call(SetReference, "/nocsfm_tracker/set_reference", request).success
    _publish(robot, 5_000_000_007)
    array = eventually(lambda: heard)[0]
    assert {marker.action for marker in array.markers} == {Marker.ADD}
    assert all(marker.header == robot.messages.header(5_000_000_007) for marker in array.markers)
    robot.call(RemoveReference, "/nocsfm_tracker/remove_reference", RemoveReference.Request(object_id="mug"))
    _publish(robot, 6_000_000_000)
    eventually(lambda: len(heard) == 2, "the second array")
    assert {marker.action for marker in heard[1].markers} == {Marker.DELETE}


def test_markers_nobody_subscribes_are_not_made(robot: Any, eventually: Any, monkeypatch: Any) -> None:
    made: list[int] = []
    monkeypatch.setattr(Markers, "array", lambda *_: made.append(1))
    node = robot.start_node()
    _publish(robot, 10**9)
    eventually(lambda: node._worker.stats.processed == 1)
    assert not made


def test_rviz_shows_the_markers(project_root: Path) -> None:
    shown = yaml.safe_load((project_root / "config" / "tracker.rviz").read_text())["Visualization Manager"]["Displays"]
    topics = {display["Class"]: display.get("Topic", {}).get("Value") for display in shown}
    assert topics["rviz_default_plugins/MarkerArray"] == TOPIC.lstrip("/")
