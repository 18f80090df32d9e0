"""A node over real DDS on a private domain, with a scripted tracker; a peer plays camera and user."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nocsfm_ros.types import PoseEstimate, Reference, RgbdFrame, SimilarityPose, Track, TrackState

# Before rclpy is imported anywhere: nothing of these tests may meet a robot's own traffic.
DOMAIN_ID = 1 + os.getpid() % 100
os.environ["ROS_DOMAIN_ID"] = str(DOMAIN_ID)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"

DEADLINE_S = 10.0
WIDTH, HEIGHT = 64, 48
K = [60.0, 0.0, 31.5, 0.0, 60.0, 23.5, 0.0, 0.0, 1.0]


class Report:
    """What set_reference answers."""

    def __init__(self, reference: Reference) -> None:
        self.object_id, self.foreground_pixels = reference.object_id, int(reference.mask.sum())
        self.size_m, self.scale_m = np.array([0.1, 0.2, 0.3]), 0.4


class FakeTracker:
    """Keeps references, finds every object in every frame, and can be told to fail or to block."""

    def __init__(self, config: Any) -> None:
        self.config, self.references, self.frames = config, {}, []  # type: ignore[var-annotated]
        self.calls: list[str] = []
        self.threads: set[int] = set()
        self.failure: BaseException | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.stage_ms = {"flow": 1.5}

    @property
    def object_ids(self) -> list[str]:
        return list(self.references)

    def set_reference(self, reference: Reference) -> Report:
        self._called("set_reference")
        self.references[reference.object_id] = reference
        return Report(reference)

    def remove_reference(self, object_id: str | None) -> list[str]:
        self._called("remove_reference")
        removed = [name for name in self.references if object_id in (None, name)]
        for name in removed:
            del self.references[name]
        return removed

    def reset(self) -> None:
        self._called("reset")

    def configure(self, config: Any) -> None:
        self._called("configure")
        self.config = config

    def update(self, frame: RgbdFrame) -> list[Track]:
        self._called("update")
        self.frames.append(frame)
        return [found(frame, name) for name in self.references]

    def _called(self, name: str) -> None:
        self.gate.wait(DEADLINE_S)
        self.calls.append(name)
        self.threads.add(threading.get_ident())
        if self.failure is not None:
            raise self.failure


def found(frame: RgbdFrame, object_id: str) -> Track:
    """A track 0.5 m ahead, turned by 90 degrees about the optical axis."""
    mask = np.zeros(frame.rgb.shape[:2], bool)
    mask[10:20, 30:50] = True
    nocs = np.zeros((*mask.shape, 3), np.float32)
    nocs[mask] = (0.5, 0.0, -0.5)
    R = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    pose = SimilarityPose(R, np.array([0.1, -0.2, 0.5]), 0.25)
    estimate = PoseEstimate(
        pose, mask, nocs, confidence=0.9, inlier_ratio=0.8, covariance=np.diag([1e-6] * 3 + [1e-4] * 3)
    )
    return Track(
        object_id,
        TrackState.TRACKING,
        frame.stamp_ns,
        estimate,
        pose.T_cam_obj,
        np.array([0.1, 0.2, 0.3]),
        (30.0, 10.0, 20.0, 10.0),
        3,
    )


def wait_for(condition: Callable[[], Any], what: str = "") -> Any:
    """Poll until true; fails loudly at the deadline."""
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        if value := condition():
            return value
        threading.Event().wait(0.005)
    raise AssertionError(f"not within {DEADLINE_S} s: {what or condition}")


class Messages:
    """Makes valid input messages; keyword arguments spoil them."""

    def __init__(self) -> None:
        from builtin_interfaces.msg import Time
        from sensor_msgs.msg import CameraInfo, Image
        from std_msgs.msg import Header

        self._time, self._header, self._image, self._info = Time, Header, Image, CameraInfo

    def header(self, stamp_ns: int = 5_000_000_007, frame_id: str = "camera_color_optical_frame") -> Any:
        sec, nanosec = divmod(stamp_ns, 10**9)
        return self._header(stamp=self._time(sec=sec, nanosec=nanosec), frame_id=frame_id)

    def image(self, array: np.ndarray, encoding: str, **spoiled: Any) -> Any:
        height, width = array.shape[:2]
        message = self._image(
            header=self.header(),
            height=height,
            width=width,
            encoding=encoding,
            step=array.nbytes // height,
            is_bigendian=0,
            data=array.tobytes(),
        )
        return self._spoil(message, spoiled)

    def color(self, encoding: str = "rgb8", **spoiled: Any) -> Any:
        channels = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}[encoding]
        array = np.zeros((HEIGHT, WIDTH, channels), np.uint8)
        array[..., 0] = 200
        return self.image(array, encoding, **spoiled)

    def depth(self, encoding: str = "16UC1", **spoiled: Any) -> Any:
        array = (
            np.full((HEIGHT, WIDTH), 750, np.uint16)
            if encoding == "16UC1"
            else np.full((HEIGHT, WIDTH), 0.75, np.float32)
        )
        return self.image(array, encoding, **spoiled)

    def info(self, **spoiled: Any) -> Any:
        return self._spoil(self._info(header=self.header(), width=WIDTH, height=HEIGHT, k=K), spoiled)

    def _spoil(self, message: Any, spoiled: dict[str, Any]) -> Any:
        for name, value in spoiled.items():
            if name in ("stamp_ns", "frame_id"):
                stamp_ns = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
                header = {"stamp_ns": stamp_ns, "frame_id": message.header.frame_id, name: value}
                message.header = self.header(header["stamp_ns"], header["frame_id"])
            else:
                setattr(message, name, value)
        return message


class Robot:
    """TrackerNode(s) in one process with a peer node: camera, user and listener."""

    def __init__(self) -> None:
        import rclpy
        from rclpy.executors import MultiThreadedExecutor

        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=DOMAIN_ID)
        self.executor = MultiThreadedExecutor(num_threads=4, context=self.context)
        self.peer = rclpy.create_node("peer", context=self.context)
        self.executor.add_node(self.peer)
        self.trackers: list[FakeTracker] = []
        self.nodes: list[Any] = []
        self.heard: dict[str, list[Any]] = {}
        self.messages = Messages()
        self._clients: dict[str, Any] = {}
        self._publishers: dict[str, Any] = {}
        self._closing = False
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        from rclpy.exceptions import InvalidHandle
        from rclpy.executors import ExternalShutdownException, ShutdownException

        # rclpy's executor meets InvalidHandle where close() or a transition destroys what it is waiting for.
        with contextlib.suppress(ExternalShutdownException, ShutdownException):
            while self.context.ok() and not self._closing:
                with contextlib.suppress(InvalidHandle):
                    self.executor.spin()

    def start_node(self, active: bool = True, build: Any = None, **arguments: Any) -> Any:
        """A tracker node with a FakeTracker; waits until it is active."""
        from rclpy.parameter import Parameter

        from nocsfm_ros.ros.node import TrackerNode

        def build_fake(config: Any) -> FakeTracker:
            self.trackers.append(FakeTracker(config))
            return self.trackers[-1]

        overrides = [Parameter(key, value=value) for key, value in arguments.pop("parameters", {}).items()]
        node = TrackerNode(
            build or build_fake, context=self.context, parameter_overrides=overrides, **arguments
        )
        self.nodes.append(node)
        self.executor.add_node(node)
        if active:
            self.wait_state(node, "active")
        return node

    def state(self, node: Any) -> str:
        return str(node._state_machine.current_state[1])

    def wait_state(self, node: Any, state: str) -> None:
        wait_for(lambda: self.state(node) == state, f"state {state}")

    def listen(self, kind: Any, topic: str) -> list[Any]:
        """Collect what a topic brings; waits for its publisher."""
        heard: list[Any] = []
        self.peer.create_subscription(kind, topic, heard.append, 10)
        wait_for(lambda: self.peer.count_publishers(topic), f"publisher of {topic}")
        return heard

    def publish(self, color: Any, depth: Any, info: Any, namespace: str = "") -> None:
        """One set of messages, to matched subscribers."""
        topics = ("rgb/image_rect_color", "depth_registered/image_rect", "rgb/camera_info")
        for topic, message in zip(topics, (color, depth, info), strict=True):
            self.publisher(type(message), f"{namespace}/{topic}").publish(message)

    def publisher(self, kind: Any, topic: str) -> Any:
        if topic not in self._publishers:
            self._publishers[topic] = self.peer.create_publisher(kind, topic, 5)
            wait_for(self._publishers[topic].get_subscription_count, f"subscriber of {topic}")
        return self._publishers[topic]

    def call_async(self, kind: Any, name: str, request: Any) -> Any:
        if name not in self._clients:
            self._clients[name] = self.peer.create_client(kind, name)
            assert self._clients[name].wait_for_service(DEADLINE_S)
        return self._clients[name].call_async(request)

    def call(self, kind: Any, name: str, request: Any) -> Any:
        future = self.call_async(kind, name, request)
        wait_for(future.done, f"answer of {name}")
        return future.result()

    def close(self) -> None:
        for tracker in self.trackers:
            tracker.gate.set()
        for node in self.nodes:
            node.stop()
        self._closing = True
        self.executor.shutdown(timeout_sec=2.0)
        for node in [*self.nodes, self.peer]:
            node.destroy_node()
        self.context.try_shutdown()
        self._thread.join(DEADLINE_S)


@pytest.fixture()
def robot() -> Iterator[Robot]:
    made = Robot()
    yield made
    made.close()


@pytest.fixture(scope="session")
def messages() -> Messages:
    return Messages()


@pytest.fixture(scope="session")
def project_root() -> Path:
    return Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def eventually() -> Callable[..., Any]:
    return wait_for


@pytest.fixture(scope="session")
def fake_tracker() -> type[FakeTracker]:
    return FakeTracker


@pytest.fixture(scope="session")
def fake_track() -> Callable[[RgbdFrame, str], Track]:
    return found
