"""The three inputs, put together to frames. Lives from activate to deactivate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from message_filters import ApproximateTimeSynchronizer, SimpleFilter, Subscriber, TimeSynchronizer
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from nocsfm_ros.errors import FrameError
from nocsfm_ros.ros.conversions import InputNames, frame_warning, rgbd_frame_from_msgs
from nocsfm_ros.ros.diagnostics import InputMonitor, InputWatch
from nocsfm_ros.ros.parameters import RosConfig
from nocsfm_ros.types import RgbdFrame


class Inputs:
    """Subscribes colour, depth and camera info, synchronises and converts them."""

    def __init__(self, node: Node, config: RosConfig, on_frame: Callable[[RgbdFrame], None]) -> None:
        """Subscribe at once.

        Args:
            node: the subscriptions' node.
            config: transports and synchronisation.
            on_frame: called in an executor's thread with every frame that can be used.
        """
        self._node, self._on_frame = node, on_frame
        self._group = MutuallyExclusiveCallbackGroup()
        self._reliability = ReliabilityPolicy[config.input_reliability.upper()]
        wanted = (
            _transported(node, "rgb/image_rect_color", config.image_transport),
            _transported(node, "depth_registered/image_rect", config.depth_transport),
            (CameraInfo, node.resolve_topic_name("rgb/camera_info")),
        )
        self.names = InputNames(*(topic for _, topic in wanted))
        self._subscribers = [self._subscriber(kind, topic) for kind, topic in wanted]
        watches = [
            _watch(subscriber, kind) for subscriber, (kind, _) in zip(self._subscribers, wanted, strict=True)
        ]
        exact = config.sync == "exact"
        self.monitor = InputMonitor(node, watches, 0.0 if exact else config.slop_s)
        checked = [SimpleFilter() for _ in self._subscribers]
        self._sync = (
            TimeSynchronizer(checked, config.queue_size)
            if exact
            else ApproximateTimeSynchronizer(checked, config.queue_size, config.slop_s)
        )
        self._sync.registerCallback(self._on_rgbd)
        self._slop_ns = int(1e9 * self.monitor.slop_s)
        for subscriber, watch, good in zip(self._subscribers, watches, checked, strict=True):
            subscriber.registerCallback(self._on_message, watch, good)

    def destroy(self) -> None:
        """Unsubscribe."""
        for subscriber in self._subscribers:
            self._node.destroy_subscription(subscriber.sub)

    def _subscriber(self, kind: type, topic: str) -> Subscriber:
        # A profile of its own each: rclpy writes the overrides of qos_overrides.* parameters into it.
        qos = QoSProfile(depth=5, reliability=self._reliability)
        return Subscriber(
            self._node,
            kind,
            topic,
            qos_profile=qos,
            callback_group=self._group,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    def _on_message(
        self, msg: Image | CompressedImage | CameraInfo, watch: InputWatch, good: SimpleFilter
    ) -> None:
        """Hand a message on to the synchroniser, which raises for a stamp before 1970 and keeps its lock then."""
        went_back, sec = watch.received(msg), msg.header.stamp.sec
        if sec < 0:
            problem = f"header.stamp on {watch.topic}: got {sec} s, expected 0 or more: set the publisher's clock"
            self.monitor.rejected(problem)
            self._node.get_logger().warning(f"message dropped: {problem}", throttle_duration_sec=5.0)
            return
        if went_back:
            self._forget_later(msg, watch)
        good.signalMessage(msg)

    def _forget_later(self, msg: Image | CompressedImage | CameraInfo, watch: InputWatch) -> None:
        """When time goes back, messages without partners would stay the newest for ever and fill the queues,
        which drop the oldest stamp first: that of every message still to come.
        """
        self._node.get_logger().warning(
            f"time went back on {watch.topic}: waiting messages of the time before are dropped",
            throttle_duration_sec=5.0,
        )
        stamp_ns = msg.header.stamp.sec * 1_000_000_000 + msg.header.stamp.nanosec
        with self._sync.lock:
            for queue in self._sync.queues:
                for waiting_ns in [waiting for waiting in queue if waiting > stamp_ns + self._slop_ns]:
                    del queue[waiting_ns]

    def _on_rgbd(
        self, color: Image | CompressedImage, depth: Image | CompressedImage, info: CameraInfo
    ) -> None:
        """Must never raise: message_filters holds its lock while calling."""
        try:
            self.monitor.synchronised()
            frame = rgbd_frame_from_msgs(color, depth, info, self.names)
            if warning := frame_warning(frame, self.names):
                self.monitor.odd(warning)
                self._node.get_logger().warning(warning, throttle_duration_sec=5.0)
            self._on_frame(frame)
        except FrameError as error:
            self.monitor.rejected(str(error))
            self._node.get_logger().warning(f"frame dropped: {error}", throttle_duration_sec=5.0)
        except Exception as error:
            self.monitor.rejected(f"{type(error).__name__}: {error}")
            self._node.get_logger().error(f"frame dropped: {error!r}", throttle_duration_sec=5.0)


def _transported(node: Node, base: str, transport: str) -> tuple[type, str]:
    """Message type and topic as in image_transport: first the base name is remapped."""
    topic = node.resolve_topic_name(base)
    return (Image, topic) if transport == "raw" else (CompressedImage, f"{topic}/{transport}")


def _watch(subscriber: Subscriber, kind: Any) -> InputWatch:
    type_name = f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
    return InputWatch(subscriber.sub.topic_name, type_name, subscriber.sub.qos_profile)
