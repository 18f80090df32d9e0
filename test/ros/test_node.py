"""The node over real DDS: a frame in, everything out, whatever comes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: ./run test prepares it, or source a distribution")
pytest.importorskip("nocsfm_msgs", reason="needs the built message package nocsfm_msgs")

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from nocsfm_msgs.msg import Track, TrackArray
from nocsfm_msgs.srv import SetReference
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

NODE = "/nocsfm_tracker"


def _set_reference(robot: Any, node: str = NODE, object_id: str = "mug") -> Any:
    request = SetReference.Request(object_id=object_id, image=robot.messages.color())
    response = robot.call(SetReference, f"{node}/set_reference", request)
    assert response.success, response.message
    return response


def _publish(robot: Any, stamp_ns: int = 5_000_000_007, namespace: str = "", **spoiled: Any) -> None:
    """A good set, but for `spoiled`: messages by the names color, depth and info."""
    parts = {name: spoiled.get(name, getattr(robot.messages, name)()) for name in ("color", "depth", "info")}
    for part in parts.values():
        part.header.stamp = robot.messages.header(stamp_ns).stamp
    robot.publish(parts["color"], parts["depth"], parts["info"], namespace)


def test_frame_with_reference_gives_pose_tracks_tf_and_pictures(robot: Any, eventually: Any) -> None:
    robot.start_node(parameters={"object_frame_prefix": "seen/"})
    heard = {
        kind.__name__ + topic: robot.listen(kind, topic)
        for kind, topic in (
            (PoseStamped, f"{NODE}/pose"),
            (PoseWithCovarianceStamped, f"{NODE}/pose_with_covariance"),
            (TrackArray, f"{NODE}/tracks"),
            (Image, f"{NODE}/mask"),
            (Image, f"{NODE}/nocs"),
            (Image, f"{NODE}/nocs_float"),
            (TFMessage, "/tf"),
        )
    }
    assert _set_reference(robot).object_frame_id == "seen/mug"
    _publish(robot)
    eventually(lambda: all(heard.values()), "every output")
    pose, covariance, tracks, mask, nocs, nocs_float, tf = (messages[0] for messages in heard.values())
    header = robot.messages.header()
    assert all(message.header == header for message in (pose, covariance, tracks, mask, nocs, nocs_float))
    assert (pose.pose.position.x, pose.pose.position.y, pose.pose.position.z) == pytest.approx(
        (0.1, -0.2, 0.5)
    )
    turn = pose.pose.orientation
    assert abs(turn.z) == pytest.approx(np.sqrt(0.5)) and turn.z * turn.w == pytest.approx(0.5)
    assert covariance.pose.covariance[0] == pytest.approx(1e-6) and covariance.pose.covariance[
        35
    ] == pytest.approx(1e-4)
    transform = tf.transforms[0]
    assert transform.header == header and transform.child_frame_id == "seen/mug"
    assert transform.transform.rotation == turn and transform.transform.translation.z == pytest.approx(0.5)
    track = tracks.tracks[0]
    assert (track.object_id, track.state, track.has_pose, track.num_keyframes) == (
        "mug",
        Track.TRACKING,
        True,
        3,
    )
    assert track.scale == pytest.approx(0.25) and track.size.z == pytest.approx(0.3)
    assert (track.box.x_offset, track.box.y_offset, track.box.width, track.box.height) == (30, 10, 20, 10)
    mask_array = np.frombuffer(mask.data, np.uint8).reshape(48, 64)
    assert (
        mask.encoding == "mono8"
        and set(mask_array[10:20, 30:50].ravel()) == {255}
        and mask_array.sum() == 255 * 200
    )
    colours = np.frombuffer(nocs.data, np.uint8).reshape(48, 64, 3)
    assert nocs.encoding == "rgb8" and colours[15, 40].tolist() == [255, 128, 0] and not colours[0, 0].any()
    assert nocs_float.encoding == "32FC3"
    assert robot.trackers[0].frames[0].depth_m[0, 0] == pytest.approx(0.75)


def test_pictures_nobody_subscribes_are_not_made(robot: Any, eventually: Any, monkeypatch: Any) -> None:
    import nocsfm_ros.ros.outputs as outputs

    made: list[str] = []
    monkeypatch.setattr(outputs, "mask_msg", lambda *_: made.append("mask"))
    robot.start_node()
    tracks = robot.listen(TrackArray, f"{NODE}/tracks")
    _publish(robot)
    eventually(lambda: tracks)
    assert not made and not tracks[0].tracks


def _bad_inputs(messages: Any) -> dict[str, dict[str, Any]]:
    return {
        "colour_encoding": {"color": _encoded(messages.color(), "yuv422_yuy2")},
        "colour_truncated": {"color": messages.color(data=b"12345")},
        "colour_empty": {"color": messages.color(width=0, height=0, step=0, data=b"")},
        "colour_step_too_small": {"color": messages.color(step=10)},
        "depth_encoding": {"depth": _encoded(messages.depth(), "8UC1")},
        "depth_truncated": {"depth": messages.depth(data=b"\0" * 100)},
        "depth_other_size": {"depth": messages.image(np.full((30, 40), 700, np.uint16), "16UC1")},
        "depth_other_frame": {"depth": messages.depth(frame_id="camera_depth_optical_frame")},
        "depth_in_float_millimetres": {
            "depth": messages.image(np.full((48, 64), 750.0, np.float32), "32FC1")
        },
        "info_zeros": {"info": messages.info(k=[0.0] * 9)},
        "info_nan": {"info": messages.info(k=[float("nan")] * 9)},
        "info_other_size": {"info": messages.info(width=1280, height=720)},
    }


def _encoded(message: Any, encoding: str) -> Any:
    message.encoding = encoding
    return message


def test_bad_messages_of_every_kind_are_reported_and_the_node_goes_on(robot: Any, eventually: Any) -> None:
    node = robot.start_node()
    monitor = node._inputs.monitor
    bad = _bad_inputs(robot.messages)
    for index, (name, spoiled) in enumerate(bad.items()):
        _publish(robot, stamp_ns=10**9 * (index + 10), **spoiled)
        eventually(lambda index=index: monitor.num_rejected == index + 1, name)
        level, text = monitor.status()
        part = {"c": "rgb/image_rect_color", "d": "depth_registered", "i": "rgb/camera_info"}[name[0]]
        assert level != b"\0" and part in text, (name, text)
    tracks = robot.listen(TrackArray, f"{NODE}/tracks")
    _publish(robot, stamp_ns=10**12)
    eventually(lambda: tracks, "a good frame after the bad ones")
    assert len(robot.trackers[0].frames) == 1


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -1.0])
def test_depth_without_a_valid_pixel_is_a_frame_with_a_warning(
    robot: Any, eventually: Any, value: float
) -> None:
    node = robot.start_node()
    depth = robot.messages.image(np.full((48, 64), value, np.float32), "32FC1")
    _publish(robot, depth=depth)
    frame = eventually(lambda: robot.trackers[0].frames)[0]
    assert not frame.depth_m.any() and "invalid" in node._inputs.monitor.status()[1]


def test_unsynchronised_stamps_give_no_frame_and_are_explained(robot: Any, eventually: Any) -> None:
    node = robot.start_node()
    monitor = node._inputs.monitor
    robot.publish(robot.messages.color(), robot.messages.depth(stamp_ns=6 * 10**9), robot.messages.info())
    eventually(lambda: all(watch.count for watch in monitor.watches))
    assert "not synchronised" in monitor.status()[1] and "1.000 s" in monitor.status()[1]


@pytest.mark.parametrize("sync", ["approximate", "exact"])
def test_time_going_back_with_queues_full_of_the_future_is_met_by_new_frames(
    robot: Any, eventually: Any, sync: str
) -> None:
    node = robot.start_node(parameters={"sync": sync, "queue_size": 2})
    _publish(robot, stamp_ns=100 * 10**9)
    frames = eventually(lambda: robot.trackers[0].frames)
    info = node._inputs.monitor.watches[2]
    for count in (2, 3):  # pictures lost on the way leave infos without partners
        robot.publisher(CameraInfo, "/rgb/camera_info").publish(
            robot.messages.info(stamp_ns=count * 100 * 10**9)
        )
        eventually(lambda count=count: info.count == count)
    for second in (5, 6):
        _publish(robot, stamp_ns=second * 10**9)
        eventually(lambda second=second: frames[-1].stamp_ns == second * 10**9)


def test_camera_that_goes_and_comes_back_is_missed_and_heard_again(robot: Any, eventually: Any) -> None:
    node = robot.start_node()
    _publish(robot)
    frames = eventually(lambda: robot.trackers[0].frames)
    for publisher in robot._publishers.values():
        robot.peer.destroy_publisher(publisher)
    robot._publishers.clear()
    for watch in node._inputs.monitor.watches:
        watch.last_s -= 60.0  # silent for a minute
    eventually(lambda: "/rgb/camera_info: no publisher" in node._inputs.monitor.status()[1])
    _publish(robot, stamp_ns=60 * 10**9)
    eventually(lambda: len(frames) == 2)


def test_several_objects_get_a_label_a_track_and_a_transform_each(robot: Any, eventually: Any) -> None:
    robot.start_node()
    for name in ("mug", "cup"):
        _set_reference(robot, object_id=name)
    mask, tf, pose = (
        robot.listen(kind, topic)
        for kind, topic in ((Image, f"{NODE}/mask"), (TFMessage, "/tf"), (PoseStamped, f"{NODE}/pose"))
    )
    _publish(robot)
    eventually(lambda: mask and tf and pose)
    assert [transform.child_frame_id for transform in tf[0].transforms] == ["mug", "cup"]
    assert set(mask[0].data) == {0, 2}, "the fake finds both in the same place: the later label is on top"


def test_exact_sync_takes_equal_stamps_only(robot: Any, eventually: Any) -> None:
    robot.start_node(parameters={"sync": "exact"})
    robot.publish(robot.messages.color(), robot.messages.depth(stamp_ns=5_000_000_008), robot.messages.info())
    _publish(robot, stamp_ns=7 * 10**9)
    frames = eventually(lambda: robot.trackers[0].frames)
    assert [frame.stamp_ns for frame in frames] == [7 * 10**9]


def test_compressed_transport_gives_the_same_frame(robot: Any, eventually: Any) -> None:
    import cv2

    robot.start_node(parameters={"image_transport": "compressed", "depth_transport": "compressed"})
    header = robot.messages.header()
    red = np.zeros((48, 64, 3), np.uint8)
    red[..., 2] = 255
    color = CompressedImage(
        header=header, format="rgb8; png compressed bgr8", data=cv2.imencode(".png", red)[1].tobytes()
    )
    depth_mm = np.full((48, 64), 1234, np.uint16)
    depth = CompressedImage(
        header=header, format="16UC1; png", data=cv2.imencode(".png", depth_mm)[1].tobytes()
    )
    pairs = (
        (color, "/rgb/image_rect_color/compressed"),
        (depth, "/depth_registered/image_rect/compressed"),
        (robot.messages.info(), "/rgb/camera_info"),
    )
    for message, topic in pairs:
        robot.publisher(type(message), topic).publish(message)
    frame = eventually(lambda: robot.trackers[0].frames)[0]
    assert frame.rgb[0, 0].tolist() == [255, 0, 0] and frame.depth_m[0, 0] == pytest.approx(1.234)


def test_failing_tracker_is_reported_and_the_next_frame_is_served(robot: Any, eventually: Any) -> None:
    node = robot.start_node()
    robot.trackers[0].failure = RuntimeError("CUDA out of memory")
    _publish(robot, stamp_ns=10**9)
    eventually(lambda: node._worker.stats.failed == 1)
    assert "CUDA out of memory" in node._worker.stats.last_failure
    robot.trackers[0].failure = None
    tracks = robot.listen(TrackArray, f"{NODE}/tracks")
    _publish(robot, stamp_ns=2 * 10**9)
    eventually(lambda: tracks)


def test_lifecycle_without_autostart_walks_by_service_and_frees_the_tracker(
    robot: Any, eventually: Any
) -> None:
    node = robot.start_node(active=False, parameters={"autostart": False})
    for transition, state in (
        (Transition.TRANSITION_CONFIGURE, "inactive"),
        (Transition.TRANSITION_ACTIVATE, "active"),
        (Transition.TRANSITION_DEACTIVATE, "inactive"),
        (Transition.TRANSITION_ACTIVATE, "active"),
        (Transition.TRANSITION_DEACTIVATE, "inactive"),
        (Transition.TRANSITION_CLEANUP, "unconfigured"),
    ):
        request = ChangeState.Request(transition=Transition(id=transition))
        assert robot.call(ChangeState, f"{NODE}/change_state", request).success
        assert robot.call(GetState, f"{NODE}/get_state", GetState.Request()).current_state.label == state
    assert not node._worker.stats.loaded and len(robot.trackers) == 1
    refused = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_ACTIVATE))
    assert not robot.call(ChangeState, f"{NODE}/change_state", refused).success, "not from unconfigured"
    assert node.count_publishers(f"{NODE}/tracks") == 0


def test_missing_weights_leave_the_node_unconfigured_with_the_reason(robot: Any, eventually: Any) -> None:
    from nocsfm_ros.errors import CheckpointError

    def build(config: Any) -> Any:
        raise CheckpointError("weights /nowhere", got="no such folder", expected="autoencoder/ and velocity/")

    node = robot.start_node(active=False, build=build)
    heard = robot.listen(DiagnosticArray, "/diagnostics")
    eventually(lambda: any("/nowhere" in status.message for array in heard for status in array.status))
    assert robot.state(node) == "unconfigured"
    request = SetReference.Request(object_id="mug", image=robot.messages.color())
    response = robot.call(SetReference, f"{NODE}/set_reference", request)
    assert not response.success and "configure" in response.message


def test_diagnostics_of_a_working_node_name_rates_stages_and_objects(robot: Any, eventually: Any) -> None:
    robot.start_node()
    _set_reference(robot)
    _publish(robot)
    heard = robot.listen(DiagnosticArray, "/diagnostics")
    array = eventually(lambda: next((a for a in heard if len(a.status) == 3), None), "three statuses")
    by_name = {status.name: status for status in array.status}
    assert by_name["nocsfm_tracker: object mug"].message == "TRACKING"
    facts = {value.key: value.value for value in by_name["nocsfm_tracker: tracker"].values}
    assert facts["processed"] == "1" and facts["stage flow ms"] == "1.5"


def test_two_nodes_of_one_name_in_two_namespaces_work_apart(robot: Any, eventually: Any) -> None:
    robot.start_node(namespace="left")
    robot.start_node(namespace="right")
    left = robot.listen(TrackArray, "/left/nocsfm_tracker/tracks")
    right = robot.listen(TrackArray, "/right/nocsfm_tracker/tracks")
    _set_reference(robot, "/left/nocsfm_tracker", "cup")
    _publish(robot, namespace="/left")
    _publish(robot, namespace="/right")
    eventually(lambda: left and right)
    assert [track.object_id for track in left[0].tracks] == ["cup"] and not right[0].tracks


def test_two_nodes_of_the_same_full_name_both_answer_frames(robot: Any, eventually: Any) -> None:
    robot.start_node()
    robot.start_node()
    tracks = robot.listen(TrackArray, f"{NODE}/tracks")
    eventually(lambda: robot.peer.count_subscribers("/rgb/image_rect_color") == 2)
    _publish(robot)
    eventually(lambda: len(tracks) == 2)


@pytest.mark.parametrize("sync", ["exact", "approximate"])
def test_stamp_before_1970_is_refused_with_a_reason_and_what_follows_comes_through(
    robot: Any, eventually: Any, sync: str
) -> None:
    node = robot.start_node(parameters={"sync": sync})
    tracks = robot.listen(TrackArray, f"{NODE}/tracks")
    bad = robot.messages.color()
    bad.header.stamp.sec = -5
    robot.publish(bad, robot.messages.depth(), robot.messages.info())
    eventually(lambda: "got -5 s, expected 0 or more" in node._inputs.monitor.status()[1])
    _publish(robot)
    eventually(lambda: tracks)
