"""What the broadcasters publish, and with what QoS."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2's rclpy")
pytest.importorskip("tf2_msgs.msg", reason="needs tf2_msgs, real or built from standins/tf2_msgs")
sys.path.insert(0, str(Path(__file__).parent))
from geometry_msgs.msg import TransformStamped
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from standin_loading import load_standin
from tf2_msgs.msg import TFMessage

STANDIN = load_standin("tf2_ros")


class FakeNode:
    """Keeps what a broadcaster asks for and publishes."""

    def create_publisher(self, kind: type, topic: str, qos: QoSProfile | int) -> FakeNode:
        self.kind, self.topic, self.qos = kind, topic, qos
        self.published: list[list[str]] = []
        return self

    def publish(self, message: Any) -> None:
        self.published.append([t.child_frame_id for t in message.transforms])


def test_broadcaster_of_one_or_many_publishes_one_message_each() -> None:
    node = FakeNode()
    broadcaster = STANDIN.TransformBroadcaster(node)
    mug, box = TransformStamped(child_frame_id="mug"), TransformStamped(child_frame_id="box")
    for transforms in (mug, [mug, box], (box, mug)):
        broadcaster.sendTransform(transforms)
    assert node.published == [["mug"], ["mug", "box"], ["box", "mug"]]
    assert (node.kind, node.topic) == (TFMessage, "/tf")
    assert isinstance(node.qos, QoSProfile) and node.qos.depth == 100
    assert node.qos.reliability in (ReliabilityPolicy.RELIABLE, ReliabilityPolicy.SYSTEM_DEFAULT)
    assert node.qos.durability in (DurabilityPolicy.VOLATILE, DurabilityPolicy.SYSTEM_DEFAULT)


def test_static_broadcaster_repeats_all_children_latched() -> None:
    node = FakeNode()
    broadcaster = STANDIN.StaticTransformBroadcaster(node)
    for child in ("mug", "box", "mug"):
        broadcaster.sendTransform(TransformStamped(child_frame_id=child))
    assert node.published == [["mug"], ["mug", "box"], ["mug", "box"]]
    assert isinstance(node.qos, QoSProfile) and node.qos.durability == DurabilityPolicy.TRANSIENT_LOCAL


def test_tf_message_has_the_real_definition() -> None:
    assert TFMessage.get_fields_and_field_types() == {"transforms": "sequence<geometry_msgs/TransformStamped>"}
