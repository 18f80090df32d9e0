"""'The callback never fires': each reason is named."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: ./run test prepares it, or source a distribution")
pytest.importorskip("nocsfm_msgs", reason="needs the built message package nocsfm_msgs")

import numpy as np
import rclpy
from nocsfm_msgs.srv import RemoveReference, SetReference
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from nocsfm_ros.ros import diagnostics
from nocsfm_ros.ros.diagnostics import Rates, diagnostic_array


def _status(robot: Any) -> str:
    return str(robot.nodes[0]._inputs.monitor.status()[1])


def test_absent_publisher_is_named_with_topics_that_would_fit(robot: Any, eventually: Any) -> None:
    robot.start_node()
    robot.peer.create_publisher(Image, "/camera/color/image_raw", 5)
    eventually(lambda: "/camera/color/image_raw" in _status(robot))
    assert "/rgb/image_rect_color: no publisher" in _status(robot)
    assert "nobody publishes sensor_msgs/msg/CameraInfo" in _status(robot)


def test_connected_but_silent_publisher_is_named(robot: Any) -> None:
    robot.start_node()
    robot.publisher(Image, "/rgb/image_rect_color")
    assert "/rgb/image_rect_color: peer is connected but has not sent anything" in _status(robot)


def test_wrong_type_is_named(robot: Any, eventually: Any) -> None:
    robot.start_node()
    context = rclpy.Context()  # one participant cannot have two types on one topic
    rclpy.init(context=context, domain_id=robot.context.get_domain_id())
    stranger = rclpy.create_node("stranger", context=context)
    stranger.create_publisher(CompressedImage, "/rgb/image_rect_color", 5)
    eventually(
        lambda: "has type sensor_msgs/msg/CompressedImage, needed is sensor_msgs/msg/Image" in _status(robot)
    )
    stranger.destroy_node()
    context.try_shutdown()


def test_qos_mismatch_is_named_with_the_parameter_that_mends_it(robot: Any, eventually: Any) -> None:
    key = "qos_overrides./rgb/camera_info.subscription.reliability"
    node = robot.start_node(active=False, parameters={key: "reliable"})
    robot.wait_state(node, "active")
    from rclpy.qos import QoSProfile, ReliabilityPolicy

    best_effort = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    robot.peer.create_publisher(CameraInfo, "/rgb/camera_info", best_effort)
    eventually(lambda: "/rgb/camera_info: QoS mismatch with peer" in _status(robot))
    assert "set input_reliability" in _status(robot)


def test_qos_override_holds_for_its_topic_only_and_after_reactivation(robot: Any) -> None:
    key = "qos_overrides./rgb/camera_info.subscription.reliability"
    node = robot.start_node(parameters={key: "reliable"})
    for _ in range(2):
        color, _, info = node._inputs.monitor.watches
        assert info.qos.reliability.name == "RELIABLE" and color.qos.reliability.name == "BEST_EFFORT"
        node.trigger_deactivate()
        node.trigger_activate()


def test_qos_override_nobody_understands_leaves_the_node_inactive_with_the_reason(
    robot: Any, eventually: Any
) -> None:
    key = "qos_overrides./rgb/camera_info.subscription.reliability"
    node = robot.start_node(active=False, parameters={key: "perhaps"})
    eventually(lambda: "perhaps" in node._problem)
    robot.wait_state(node, "inactive")


def test_input_reliability_holds_for_all_three(robot: Any) -> None:
    node = robot.start_node(parameters={"input_reliability": "reliable"})
    assert [watch.qos.reliability.name for watch in node._inputs.monitor.watches] == ["RELIABLE"] * 3


def test_pictures_lost_on_the_way_are_seen_from_the_rates(robot: Any, eventually: Any) -> None:
    from diagnostic_msgs.msg import DiagnosticArray

    node = robot.start_node()
    color, depth, info = node._inputs.monitor.watches
    heard = robot.listen(DiagnosticArray, "/diagnostics")

    def camera_loses_pictures() -> bool:
        for watch, share in ((color, 1), (depth, 5), (info, 10)):
            for _ in range(share):
                watch.received(robot.messages.color())
        node._inputs.monitor.synchronised()
        return any(
            "/rgb/image_rect_color comes at" in status.message for array in heard for status in array.status
        )

    eventually(camera_loses_pictures)


def _of_object(node: Any) -> list[tuple[bytes, str]]:
    array = diagnostic_array(node, "active", "", None, node._worker.stats, Rates())
    return [(status.level, status.message) for status in array.status if "object mug" in status.name]


def test_object_is_out_of_date_when_frames_stop_and_gone_when_it_is_removed(
    robot: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = robot.start_node()
    messages = robot.messages
    request = SetReference.Request(object_id="mug", image=messages.color())
    assert robot.call(SetReference, "/nocsfm_tracker/set_reference", request).success
    robot.publish(messages.color(), messages.depth(), messages.info())
    eventually(lambda: _of_object(node))
    assert _of_object(node) == [(diagnostics.OK, "TRACKING")]
    monkeypatch.setattr(diagnostics, "SILENT_S", 0.0)
    assert _of_object(node) == [(diagnostics.WARN, "no frame for 0 s; before that TRACKING")]
    removed = robot.call(RemoveReference, "/nocsfm_tracker/remove_reference", RemoveReference.Request())
    assert removed.success and _of_object(node) == []


def test_device_is_the_one_in_use_and_memory_is_that_of_now() -> None:
    import torch

    before_mb = diagnostics.device_facts()["memory_mb"]
    block = np.ones(200 * 2**20, np.uint8)
    facts = diagnostics.device_facts()
    del block
    assert isinstance(before_mb, int) and isinstance(facts["memory_mb"], int)
    assert facts["memory_mb"] > before_mb + 150 > diagnostics.device_facts()["memory_mb"]  # type: ignore[operator]
    if not torch.cuda.is_initialized():
        assert facts["device"] == "cpu"
