"""The node's outputs. Lives from configure to cleanup; called from the worker's thread."""

from __future__ import annotations

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


class Publishing:
    """Publishers of what follows from one frame. Pictures and markers are only made for somebody who looks."""

    def __init__(self, node: LifecycleNode, broadcaster: TransformBroadcaster) -> None:
        self._node, self._broadcaster = node, broadcaster
        make = node.create_lifecycle_publisher
        self._pose = make(PoseStamped, "~/pose", 10)
        self._pose_with_covariance = make(PoseWithCovarianceStamped, "~/pose_with_covariance", 10)
        self._tracks = make(TrackArray, "~/tracks", 10)
        self._mask, self._nocs, self._nocs_float, self._overlay = (
            make(Image, f"~/{name}", 2) for name in ("mask", "nocs", "nocs_float", "overlay")
        )
        self._marker_array, self._markers = make(MarkerArray, "~/markers", 2), Markers()
        self._all = (
            self._pose,
            self._pose_with_covariance,
            self._tracks,
            self._mask,
            self._nocs,
            self._nocs_float,
            self._overlay,
            self._marker_array,
        )

    def destroy(self) -> None:
        """Take the topics away."""
        for publisher in self._all:
            self._node.destroy_lifecycle_publisher(publisher)

    def publish(self, result: Result, config: RosConfig) -> None:
        """Everything of one frame; TF and poses only of objects that have one."""
        if not self._tracks.is_activated:
            return
        header = outputs.header_of(result.frame)
        posed = [track for track in result.tracks if track.T_cam_user is not None]
        if posed and posed[0] is result.tracks[0]:
            pose = outputs.pose_with_covariance(posed[0])
            self._pose.publish(PoseStamped(header=header, pose=pose.pose))
            self._pose_with_covariance.publish(PoseWithCovarianceStamped(header=header, pose=pose))
        if posed and config.publish_tf and header.frame_id:
            self._broadcaster.sendTransform(
                [outputs.transform_stamped(header, track, config.object_frame_prefix) for track in posed]
            )
        self._publish_pictures(result)
        if self._marker_array.get_subscription_count():
            self._marker_array.publish(self._markers.array(header, result.tracks))
        self._tracks.publish(outputs.track_array(header, result.tracks))

    def _publish_pictures(self, result: Result) -> None:
        frame, tracks = result.frame, result.tracks
        for publisher, make in (
            (self._mask, outputs.mask_msg),
            (self._nocs, outputs.nocs_msg),
            (self._nocs_float, outputs.nocs_float_msg),
        ):
            if publisher.get_subscription_count():
                publisher.publish(make(frame, tracks))
        if self._overlay.get_subscription_count():
            from nocsfm_ros.visualization import overlay  # heavy, and only wanted by somebody who looks

            picture = overlay(frame.rgb, tracks, frame.K, latency_ms=1000 * result.latency_s)
            self._overlay.publish(outputs.image_msg(picture, "rgb8", outputs.header_of(frame)))
