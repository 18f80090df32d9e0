"""Stand-in for the part of tf2_ros that nocsfm_ros calls: sending transforms, moving and static."""

from __future__ import annotations

from collections.abc import Iterable

from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from tf2_msgs.msg import TFMessage

__all__ = ["StaticTransformBroadcaster", "TransformBroadcaster"]


class TransformBroadcaster:
    """Publishes transforms on /tf: reliable, volatile, the last 100 kept unless `qos` says otherwise."""

    def __init__(self, node: Node, qos: QoSProfile | int | None = None) -> None:
        self.pub_tf = node.create_publisher(TFMessage, "/tf", QoSProfile(depth=100) if qos is None else qos)

    def sendTransform(self, transform: TransformStamped | Iterable[TransformStamped]) -> None:
        """Publish one transform, or several in one message."""
        self.pub_tf.publish(TFMessage(transforms=_as_list(transform)))


class StaticTransformBroadcaster:
    """Publishes transforms on /tf_static, latched; every message repeats all children sent so far.

    The first transform of a child frame stays: a later one for the same child changes nothing.
    """

    def __init__(self, node: Node, qos: QoSProfile | int | None = None) -> None:
        if qos is None:
            qos = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.pub_tf = node.create_publisher(TFMessage, "/tf_static", qos)
        self._by_child: dict[str, TransformStamped] = {}

    def sendTransform(self, transform: TransformStamped | Iterable[TransformStamped]) -> None:
        """Add the new children among one or several transforms, and publish all of them."""
        for stamped in _as_list(transform):
            self._by_child.setdefault(stamped.child_frame_id, stamped)
        self.pub_tf.publish(TFMessage(transforms=list(self._by_child.values())))


def _as_list(transform: TransformStamped | Iterable[TransformStamped]) -> list[TransformStamped]:
    return list(transform) if isinstance(transform, Iterable) else [transform]
