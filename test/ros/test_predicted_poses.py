"""Poses moved on to the node's clock: on simulated time, over DDS."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: ./run test prepares it, or source a distribution")
pytest.importorskip("nocsfm_msgs", reason="needs the built message package nocsfm_msgs")

from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from nocsfm_msgs.msg import TrackArray
from nocsfm_msgs.srv import SetReference
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from tf2_msgs.msg import TFMessage

NODE = "/nocsfm_tracker"
SPEED_M_S, X_M = 0.5, 0.1  # x of the fake pose
PICTURE_NS = 5_000_000_000


class Scene:
    """A node on simulated time, one object that moves along x, and what the node publishes of it."""

    def __init__(self, robot: Any, fake_tracker: Any, eventually: Any, twist: Any, limit_s: float) -> None:
        class Moving(fake_tracker):  # type: ignore[misc]
            def update(self, frame: Any) -> Any:
                return [replace(track, twist=twist) for track in super().update(frame)]

        self.robot, self.eventually = robot, eventually
        parameters = {"use_sim_time": True, "filter.predict_up_to_s": limit_s}
        self.node = robot.start_node(build=Moving, parameters=parameters)
        self.poses = robot.listen(PoseStamped, f"{NODE}/pose")
        self.covariances = robot.listen(PoseWithCovarianceStamped, f"{NODE}/pose_with_covariance")
        self.tf = robot.listen(TFMessage, "/tf")
        self.tracks = robot.listen(TrackArray, f"{NODE}/tracks")
        request = SetReference.Request(object_id="mug", image=robot.messages.color())
        assert robot.call(SetReference, f"{NODE}/set_reference", request).success

    def set_clock(self, now_ns: int) -> None:
        clock = Clock(clock=self.robot.messages.header(now_ns).stamp)
        self.robot.publisher(Clock, "/clock").publish(clock)
        self.eventually(lambda: self.node.get_clock().now().nanoseconds == now_ns, "clock")

    def show(self, stamp_ns: int) -> tuple[int, float]:
        """Stamp and x of what is published for a picture; every topic is checked to tell the same."""
        every = (self.poses, self.covariances, self.tf, self.tracks)
        count = len(self.poses) + 1
        self.robot.publish(
            *(getattr(self.robot.messages, name)(stamp_ns=stamp_ns) for name in ("color", "depth", "info"))
        )
        self.eventually(lambda: all(len(heard) == count for heard in every), "every output")
        pose, transform = self.poses[-1], self.tf[-1].transforms[0]
        assert pose.header == transform.header == self.covariances[-1].header
        assert self.covariances[-1].pose.pose == pose.pose
        assert transform.transform.translation.x == pose.pose.position.x
        assert self.tracks[-1].header == self.robot.messages.header(stamp_ns), "tracks stay the picture's"
        assert self.tracks[-1].tracks[0].pose.pose.position.x == pytest.approx(X_M)
        return pose.header.stamp.sec * 10**9 + pose.header.stamp.nanosec, pose.pose.position.x


@pytest.fixture()
def scene(robot: Any, fake_tracker: Any, eventually: Any) -> Any:
    def made(limit_s: float = 0.2, twist: Any = (SPEED_M_S, 0.0, 0.0, 0.0, 0.0, 0.0)) -> Scene:
        return Scene(robot, fake_tracker, eventually, None if twist is None else np.array(twist), limit_s)

    return made


def test_off_by_default_value_leaves_pose_and_header_alone(scene: Any) -> None:
    still = scene(limit_s=0.0)
    still.set_clock(PICTURE_NS + 100_000_000)
    assert still.show(PICTURE_NS) == (PICTURE_NS, pytest.approx(X_M))


def test_poses_are_moved_to_the_clock_and_stamped_so_up_to_the_limit(scene: Any) -> None:
    moving = scene()
    for late_ns, ahead_ns in ((100_000_000, 100_000_000), (900_000_000, 200_000_000)):
        stamp_ns = PICTURE_NS + 10 * late_ns
        moving.set_clock(stamp_ns + late_ns)
        assert moving.show(stamp_ns) == (stamp_ns + ahead_ns, pytest.approx(X_M + SPEED_M_S * ahead_ns * 1e-9))


def test_switching_it_on_takes_effect_at_once(scene: Any) -> None:
    moving = scene(limit_s=0.0)
    moving.set_clock(PICTURE_NS + 100_000_000)
    assert moving.show(PICTURE_NS)[0] == PICTURE_NS
    assert moving.node.set_parameters([Parameter("filter.predict_up_to_s", value=0.05)])[0].successful
    stamp_ns = PICTURE_NS + 50_000_000
    assert moving.show(stamp_ns) == (stamp_ns + 50_000_000, pytest.approx(X_M + 0.05 * SPEED_M_S))


def test_clock_that_jumps_back_leaves_poses_as_seen(scene: Any) -> None:
    moving = scene()
    moving.set_clock(PICTURE_NS + 100_000_000)
    moving.show(PICTURE_NS)
    moving.set_clock(PICTURE_NS - 2 * 10**9)
    assert moving.show(PICTURE_NS + 1) == (PICTURE_NS + 1, pytest.approx(X_M))
    again_ns = PICTURE_NS - 2 * 10**9 - 50_000_000
    assert moving.show(again_ns) == (again_ns + 50_000_000, pytest.approx(X_M + 0.05 * SPEED_M_S))


def test_object_without_velocity_is_published_as_seen(scene: Any) -> None:
    acquired = scene(twist=None)
    acquired.set_clock(PICTURE_NS + 100_000_000)
    assert acquired.show(PICTURE_NS) == (PICTURE_NS, pytest.approx(X_M))


def test_picture_of_another_clock_is_warned_of_and_published_as_seen(scene: Any, capfd: Any) -> None:
    moving = scene()
    moving.set_clock(1000 * 10**9)
    assert moving.show(PICTURE_NS) == (PICTURE_NS, pytest.approx(X_M))
    assert "995.0 s apart; set use_sim_time" in "".join(capfd.readouterr())
