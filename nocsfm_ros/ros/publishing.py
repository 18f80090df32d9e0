"""The node's outputs. Lives from configure to cleanup; called from the worker's thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from nocsfm_msgs.msg import TrackArray
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import Image
from tf2_ros import TransformBroadcaster
from visualization_msgs.msg import MarkerArray

from nocsfm_ros.ros import outputs
from nocsfm_ros.ros.markers import Markers
from nocsfm_ros.ros.parameters import RosConfig
from nocsfm_ros.ros.worker import Result
from nocsfm_ros.tracking.prediction import moved_on
from nocsfm_ros.types import RgbdFrame, Track

CLOCKS_APART_NS = 5_000_000_000  # no picture waits that long: its stamp is of another clock

Maker = Callable[[RgbdFrame, Sequence[Track]], Any]


class Publishing:
    """Publishers of what follows from one frame. Pictures, markers and detections are only made on demand."""

    def __init__(self, node: LifecycleNode, broadcaster: TransformBroadcaster) -> None:
        self._node, self._broadcaster = node, broadcaster
        make = node.create_lifecycle_publisher
        self._pose = make(PoseStamped, "~/pose", 10)
        self._pose_with_covariance = make(PoseWithCovarianceStamped, "~/pose_with_covariance", 10)
        self._tracks = make(TrackArray, "~/tracks", 10)
        self._overlay = make(Image, "~/overlay", 2)
        self._on_demand: list[tuple[Any, Maker]] = [
            (make(Image, "~/mask", 2), outputs.mask_msg),
            (make(Image, "~/nocs", 2), outputs.nocs_msg),
            (make(Image, "~/nocs_float", 2), outputs.nocs_float_msg),
            (make(MarkerArray, "~/markers", 2), Markers().array),
            *_detections(node),
        ]
        self._all = (
            self._pose,
            self._pose_with_covariance,
            self._tracks,
            self._overlay,
            *(publisher for publisher, _ in self._on_demand),
        )

    def destroy(self) -> None:
        """Take the topics away."""
        for publisher in self._all:
            self._node.destroy_lifecycle_publisher(publisher)

    def publish(self, result: Result, config: RosConfig) -> None:
        """Everything of one frame; TF and poses only of objects that have one."""
        if not self._tracks.is_activated:
            return
        self._publish_poses(result, config)
        self._publish_on_demand(result)
        self._tracks.publish(outputs.track_array(outputs.header_of(result.frame), result.tracks))

    def _publish_poses(self, result: Result, config: RosConfig) -> None:
        """Poses of the primary object and TF of all: at the picture's time, or moved on to now."""
        frame, tracks = result.frame, result.tracks
        if limit_s := config.filter.predict_up_to_s:
            now_ns = self._now_ns(frame.stamp_ns)
            tracks = [moved_on(track, now_ns, limit_s) for track in tracks]
        stamped = [
            (outputs.header_at(track.stamp_ns, frame), track) for track in tracks if track.T_cam_user is not None
        ]
        if stamped and stamped[0][1] is tracks[0]:
            header, track = stamped[0]
            pose = outputs.pose_with_covariance(track)
            self._pose.publish(PoseStamped(header=header, pose=pose.pose))
            self._pose_with_covariance.publish(PoseWithCovarianceStamped(header=header, pose=pose))
        if stamped and config.publish_tf and frame.frame_id:
            prefix = config.object_frame_prefix
            self._broadcaster.sendTransform([outputs.transform_stamped(*each, prefix) for each in stamped])

    def _now_ns(self, stamp_ns: int) -> int:
        """The node's clock (the simulation's with use_sim_time); the picture's time if that is of another clock."""
        now_ns: int = self._node.get_clock().now().nanoseconds
        apart_ns = abs(now_ns - stamp_ns)
        if apart_ns <= CLOCKS_APART_NS:
            return now_ns
        self._node.get_logger().warning(
            f"poses are not predicted: the picture's stamp and the node's clock are {apart_ns / 1e9:.1f} s apart; set "
            "use_sim_time for a recording, or let camera and node share one clock",
            throttle_duration_sec=5.0,
        )
        return stamp_ns

    def _publish_on_demand(self, result: Result) -> None:
        frame, tracks = result.frame, result.tracks
        for publisher, make in self._on_demand:
            if publisher.get_subscription_count():
                publisher.publish(make(frame, tracks))
        if self._overlay.get_subscription_count():
            from nocsfm_ros.visualization import overlay  # heavy, and only wanted by somebody who looks

            picture = overlay(frame.rgb, tracks, frame.K, latency_ms=1000 * result.latency_s)
            self._overlay.publish(outputs.image_msg(picture, "rgb8", outputs.header_of(frame)))


def _detections(node: LifecycleNode) -> list[tuple[Any, Maker]]:
    """~/detections, where vision_msgs is installed: it is no dependency, as few need it."""
    if find_spec("vision_msgs") is None:
        node.get_logger().info("vision_msgs is not installed: no ~/detections")
        return []
    from nocsfm_ros.ros import detections

    publisher = node.create_lifecycle_publisher(detections.Detection3DArray, "~/detections", 10)
    return [(publisher, detections.detection_array)]
