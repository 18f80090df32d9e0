"""Services and parameters over real DDS: bursts, bad requests, before any frame."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: ./run test prepares it, or source a distribution")
pytest.importorskip("nocsfm_msgs", reason="needs the built message package nocsfm_msgs")

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from nocsfm_msgs.srv import RemoveReference, SetReference
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image, RegionOfInterest
from std_srvs.srv import SetBool, Trigger

from nocsfm_ros.errors import ConfigError
from nocsfm_ros.ros import node as node_module

NODE = "/nocsfm_tracker"


def _set(robot: Any, **fields: Any) -> Any:
    request = SetReference.Request(object_id="mug")
    for name, value in fields.items():
        setattr(request, name, value)
    return robot.call(SetReference, f"{NODE}/set_reference", request)


def _mask(robot: Any, height: int = 48, width: int = 64, value: int = 255) -> Image:
    array = np.zeros((height, width), np.uint8)
    array[height // 4 : height // 2, width // 4 : width // 2] = value
    message: Image = robot.messages.image(array, "mono8")
    return message


def test_set_reference_with_everything_reaches_the_tracker(robot: Any) -> None:
    robot.start_node()
    messages = robot.messages
    response = _set(
        robot,
        image=messages.color(),
        mask=_mask(robot),
        depth=messages.depth(),
        camera_info=messages.info(),
        has_object_pose=True,
    )
    assert response.success and response.object_id == "mug" and response.object_frame_id == "mug"
    assert response.foreground_pixels == 12 * 16 and response.size.z == pytest.approx(0.3)
    reference = robot.trackers[0].references["mug"]
    assert reference.depth_m[0, 0] == pytest.approx(0.75) and reference.K[0, 0] == 60.0
    assert np.array_equal(reference.T_cam_user, np.eye(4)) and reference.mask.sum() == 12 * 16


def test_empty_image_before_any_frame_is_refused_with_the_mend(robot: Any) -> None:
    robot.start_node()
    response = _set(robot, roi=RegionOfInterest(x_offset=1, y_offset=1, width=9, height=9))
    assert not response.success and "no live frame" in response.message and "/diagnostics" in response.message


def test_empty_image_takes_the_newest_live_frame(robot: Any, eventually: Any) -> None:
    robot.start_node()
    messages = robot.messages
    robot.publish(messages.color(), messages.depth(), messages.info())
    eventually(lambda: robot.trackers[0].frames)
    assert _set(robot, mask=_mask(robot)).success
    reference = robot.trackers[0].references["mug"]
    assert np.array_equal(reference.rgb, robot.trackers[0].frames[0].rgb) and reference.depth_m is not None


def test_frame_of_a_camera_that_went_silent_is_no_live_frame(
    robot: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = robot.start_node()
    messages = robot.messages
    robot.publish(messages.color(), messages.depth(), messages.info())
    eventually(lambda: robot.trackers[0].frames)
    monkeypatch.setattr(node_module, "SILENT_S", 0.0)
    response = _set(robot, mask=_mask(robot))
    assert not response.success and "no live frame now" in response.message
    assert node._newest is not None


def test_depth_or_camera_without_their_picture_are_not_ignored(robot: Any, eventually: Any) -> None:
    robot.start_node()
    messages = robot.messages
    robot.publish(messages.color(), messages.depth(), messages.info())
    eventually(lambda: robot.trackers[0].frames)
    for given in ({"depth": messages.depth()}, {"camera_info": messages.info()}):
        response = _set(robot, mask=_mask(robot), **given)
        assert not response.success and "without an image" in response.message
    response = _set(robot, image=messages.color(), depth=messages.depth())
    assert "depth without camera_info" in response.message and "--camera" in response.message


def _bad_references(robot: Any) -> dict[str, dict[str, Any]]:
    messages = robot.messages
    color = messages.color()
    return {
        "truncated": {"image": messages.color(data=b"abc")},
        "encoding": {"image": messages.image(np.zeros((48, 64, 3), np.uint16), "rgb16")},
        "all_data_lost": {"image": messages.color(data=b"")},
        "1x1": {"image": messages.image(np.zeros((1, 1, 3), np.uint8), "rgb8")},
        "huge": {"image": messages.image(np.zeros((16, 8193, 3), np.uint8), "rgb8")},
        "no_object": {"image": color, "mask": _mask(robot, value=0)},
        "mask_of_another_size": {"image": color, "mask": _mask(robot, 10, 10)},
        "mask_truncated": {
            "image": color,
            "mask": messages.image(np.zeros((48, 64), np.uint8), "mono8", data=b"a"),
        },
        "mask_data_lost": {
            "image": color,
            "mask": messages.image(np.ones((48, 64), np.uint8), "mono8", data=b""),
        },
        "depth_data_lost": {
            "image": color,
            "depth": messages.depth(data=b""),
            "camera_info": messages.info(),
        },
        "box_outside": {"image": color, "roi": RegionOfInterest(x_offset=999, y_offset=9, width=9, height=9)},
        "depth_without_camera": {"image": color, "depth": messages.depth()},
        "camera_of_zeros": {
            "image": color,
            "depth": messages.depth(),
            "camera_info": CameraInfo(width=64, height=48),
        },
        "camera_of_another_size": {"image": color, "camera_info": messages.info(width=640, height=480)},
        "name_no_frame_can_have": {"image": color, "object_id": "my mug/../?"},
        "name_of_a_folder": {"image": color, "object_id": ".."},
        "box_without_height": {"image": color, "roi": RegionOfInterest(width=9)},
    }


def test_references_that_cannot_be_used_are_refused_with_a_reason_and_the_node_goes_on(robot: Any) -> None:
    robot.start_node()
    for name, fields in _bad_references(robot).items():
        response = _set(robot, **fields)
        assert not response.success and len(response.message) > 15, name
    assert not robot.trackers[0].references
    assert _set(robot, image=robot.messages.color()).success


def test_quaternion_of_zero_length_is_refused(robot: Any) -> None:
    robot.start_node()
    request = SetReference.Request(image=robot.messages.color(), has_object_pose=True)
    request.object_pose.orientation.w = 0.0
    response = robot.call(SetReference, f"{NODE}/set_reference", request)
    assert not response.success and "quaternion" in response.message


def test_burst_of_calls_is_answered_in_full_while_frames_come(robot: Any, eventually: Any) -> None:
    robot.start_node()
    messages = robot.messages
    futures = []
    for index in range(60):
        request = SetReference.Request(object_id=f"object{index % 7}", image=messages.color())
        futures.append(robot.call_async(SetReference, f"{NODE}/set_reference", request))
        futures.append(robot.call_async(Trigger, f"{NODE}/reset", Trigger.Request()))
        robot.publish(
            messages.color(stamp_ns=10**9 + index),
            messages.depth(stamp_ns=10**9 + index),
            messages.info(stamp_ns=10**9 + index),
        )
    eventually(lambda: all(future.done() for future in futures), "all 120 answers")
    assert all(future.result().success for future in futures)
    assert len(robot.trackers[0].references) == 7 and robot.trackers[0].calls.count("reset") == 60
    assert len(robot.trackers[0].threads) == 1, "only the worker's thread touches the tracker"


def test_request_the_tracker_cannot_finish_in_time_is_answered_with_a_failure(
    robot: Any, eventually: Any
) -> None:
    node = robot.start_node(parameters={"service_timeout_s": 0.2})
    tracker = robot.trackers[0]
    tracker.gate.clear()
    response = robot.call(Trigger, f"{NODE}/reset", Trigger.Request())
    assert not response.success and "within 0.2 s" in response.message and "goes on" in response.message
    waiting = robot.call(RemoveReference, f"{NODE}/remove_reference", RemoveReference.Request())
    assert not waiting.success and "taken back" in waiting.message
    messages = robot.messages
    robot.publish(messages.color(), messages.depth(), messages.info())
    eventually(lambda: node._inputs.monitor.num_sets, "inputs are served meanwhile")
    tracker.gate.set()
    eventually(lambda: tracker.frames)
    assert "remove_reference" not in tracker.calls


def test_remove_reference_forgets_one_all_or_says_there_is_none(robot: Any) -> None:
    robot.start_node()
    for name in ("cup", "mug", "box"):
        assert _set(robot, object_id=name, image=robot.messages.color()).success
    remove = f"{NODE}/remove_reference"
    one = robot.call(RemoveReference, remove, RemoveReference.Request(object_id="mug"))
    assert one.success and list(one.removed) == ["mug"]
    none = robot.call(RemoveReference, remove, RemoveReference.Request(object_id="mug"))
    assert not none.success and "mug" in none.message
    rest = robot.call(RemoveReference, remove, RemoveReference.Request())
    assert rest.success and sorted(rest.removed) == ["box", "cup"]


def test_enable_false_pauses_frames_but_not_services_and_true_resumes(robot: Any, eventually: Any) -> None:
    node = robot.start_node()
    messages, tracker = robot.messages, robot.trackers[0]
    assert robot.call(SetBool, f"{NODE}/enable", SetBool.Request(data=False)).message == "paused"
    robot.publish(messages.color(), messages.depth(), messages.info())
    eventually(lambda: node._worker.stats.received == 1)
    assert _set(robot, image=messages.color()).success and not tracker.frames
    assert robot.call(SetBool, f"{NODE}/enable", SetBool.Request(data=True)).success
    robot.publish(*(getattr(messages, part)(stamp_ns=9 * 10**9) for part in ("color", "depth", "info")))
    eventually(lambda: tracker.frames)
    assert [frame.stamp_ns for frame in tracker.frames] == [9 * 10**9]


def test_tracker_refusing_a_reference_passes_its_message_on(robot: Any) -> None:
    robot.start_node()
    robot.trackers[0].failure = ConfigError(
        "reference mug", got="3 foreground pixels", expected="at least 60"
    )
    response = _set(robot, image=robot.messages.color())
    assert not response.success and "3 foreground pixels" in response.message


def test_reference_set_while_the_weights_load_waits_for_them(
    robot: Any, eventually: Any, fake_tracker: Any
) -> None:
    gate = threading.Event()

    def build(config: Any) -> Any:
        gate.wait(20.0)
        return fake_tracker(config)

    node = robot.start_node(active=False, build=build, parameters={"service_timeout_s": 0.2})
    request = SetReference.Request(object_id="mug", image=robot.messages.color())
    future = robot.call_async(SetReference, f"{NODE}/set_reference", request)
    # several times the request's own time: loading does not count against it
    eventually(lambda: node._worker._requests, "the request waits behind the load")
    assert not threading.Event().wait(0.8) and not future.done()
    gate.set()
    eventually(future.done)
    assert future.result().success
    robot.wait_state(node, "active")


def test_request_before_the_executor_spins_finds_the_weights_on_their_way(robot: Any) -> None:
    from nocsfm_ros.ros.node import TrackerNode

    build: Any = lambda config: "tracker"  # noqa: E731
    node = TrackerNode(build, context=robot.context)
    robot.nodes.append(node)
    assert node._worker.post(lambda tracker: tracker).result(10.0) == "tracker"


def _set_parameter(robot: Any, key: str, value: Any) -> Any:
    request = SetParameters.Request(parameters=[Parameter(key, value=value).to_parameter_msg()])
    return robot.call(SetParameters, f"{NODE}/set_parameters", request).results[0]


def test_live_parameter_reaches_the_tracker(robot: Any, eventually: Any) -> None:
    robot.start_node()
    assert _set_parameter(robot, "tracking.min_confidence", 0.25).successful
    eventually(lambda: robot.trackers[0].config.tracking.min_confidence == 0.25)
    assert _set_parameter(robot, "tracking.min_confidence", 1).successful, "1 is as good as 1.0"


def test_value_set_while_the_weights_load_reaches_the_tracker(
    robot: Any, eventually: Any, fake_tracker: Any
) -> None:
    gate = threading.Event()

    def build(config: Any) -> Any:
        gate.wait(20.0)
        robot.trackers.append(fake_tracker(config))
        return robot.trackers[-1]

    robot.start_node(active=False, build=build)
    assert robot.call(GetState, f"{NODE}/get_state", GetState.Request()).current_state.label == "configuring"
    assert _set_parameter(robot, "tracking.min_confidence", 0.25).successful
    second = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))
    assert not robot.call(ChangeState, f"{NODE}/change_state", second).success, "one at a time"
    gate.set()
    eventually(lambda: robot.trackers and robot.trackers[0].config.tracking.min_confidence == 0.25)
    robot.wait_state(robot.nodes[0], "active")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tracking.min_confidence", 1.5),
        ("tracking.min_confidence", "high"),
        ("tracking.lost_after", 0),
        ("model.device", "tpu"),
        ("queue_size", 3),
    ],
)
def test_bad_value_or_read_only_parameter_is_refused_with_its_name(robot: Any, key: str, value: Any) -> None:
    node = robot.start_node()
    before = node._config
    result = _set_parameter(robot, key, value)
    assert not result.successful and key in result.reason
    assert node._config == before
