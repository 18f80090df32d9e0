"""``python -m nocsfm_ros.ros.recorder OUT``: writes what the node answers, and the truth, into one MCAP file.

OUT gets ``output.mcap`` (pictures compressed, everything else as it came; log time = time of publication) and
``record.jsonl`` (when each colour picture and each result was published and received, wall clock). It says
"ready" when the node offers all its outputs, and ends when the last frame that the player announced on
``/player/end`` is answered.
"""

from __future__ import annotations

import argparse
import json
import queue
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import rclpy
from ament_index_python.packages import get_package_share_directory
from cv_bridge import CvBridge
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from nocsfm_msgs.msg import TrackArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.serialization import deserialize_message, serialize_message
from rclpy.utilities import remove_ros_args
from rosbags.interfaces import Connection
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from nocsfm_ros.errors import ConfigError
from nocsfm_ros.ros.player import END_TOPIC, stamp_of

# Without one of these a frame is not answered; TF, pose and diagnostics do not come with every frame.
ANSWERS = ("tracks", "mask", "nocs", "overlay")
TRUTH = ("/ground_truth/pose", "/ground_truth/mask")
# How the pictures of a topic are stored: what is measured stays exact.
_FORMATS = {"mask": ".png", "nocs": ".png", "overlay": ".jpg"}
_QOS = QoSProfile(depth=100)
# The last frame may be lost in the middleware, whose sensor topics promise nothing.
_SILENCE_S = 10.0


class BagWriter:
    """A thread that compresses and writes, so that receiving is never late. `failure` is what stopped it, if
    anything.

    Args:
        folder: must not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.failure: Exception | None = None
        self._bag = Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP)
        self._bag.open()
        self._typestore = typestore()
        self._connections: dict[str, Connection] = {}
        self._queue: queue.SimpleQueue[tuple[str, type, int, bytes] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="bag_writer")
        self._thread.start()

    def write(self, topic: str, kind: type, published_ns: int, raw: bytes) -> None:
        """Queue one serialised message; an Image is stored as CompressedImage on ``topic/compressed``."""
        self._queue.put((topic, kind, published_ns, raw))

    def close(self) -> None:
        """Write what is queued and finish the file. Raises what went wrong in the thread."""
        self._queue.put(None)
        self._thread.join()
        try:
            self._bag.close()
        except OSError as error:
            self.failure = self.failure or error
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if self.failure is None:
                try:
                    self._write(*item)
                except Exception as error:  # whoever owns the writer asks for it
                    self.failure = error

    def _write(self, topic: str, kind: type, published_ns: int, raw: bytes) -> None:
        if kind is Image:
            topic, kind, raw = f"{topic}/compressed", CompressedImage, compressed(raw, topic)
        if topic not in self._connections:
            package, name = kind.__module__.split(".")[0], kind.__name__
            self._connections[topic] = self._bag.add_connection(
                topic, f"{package}/msg/{name}", typestore=self._typestore
            )
        self._bag.write(self._connections[topic], published_ns, raw)


class Recorder(Node):
    """Subscribes the node's outputs, the truth and the colour pictures, whose arrival starts the clock."""

    def __init__(self, writer: BagWriter, lines: Any, tracker: str, colour_topic: str) -> None:
        super().__init__("recorder")
        self._writer, self._lines = writer, lines
        self._answers = [f"{tracker}/{name}" for name in ANSWERS]
        self._newest_ns: dict[str, int] = dict.fromkeys([*self._answers, *TRUTH], 0)
        self._last_ns: int | None = None
        self.num_results = 0
        self._heard_s = time.monotonic()
        self._is_ready = False
        kinds = {
            f"{tracker}/pose": PoseStamped,
            f"{tracker}/tracks": TrackArray,
            "/tf": TFMessage,
            "/diagnostics": DiagnosticArray,
            TRUTH[0]: PoseStamped,
            TRUTH[1]: Image,
        }
        kinds |= {f"{tracker}/{name}": Image for name in _FORMATS}
        for topic, kind in kinds.items():
            self._subscribe(kind, topic, self._keeper(topic, kind))
        self._subscribe(Image, colour_topic, lambda raw, info: self._note("colour", raw, info))
        qos = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(Header, END_TOPIC, self._on_end, qos)
        self.create_timer(0.05, self._say_ready)

    @property
    def is_finished(self) -> bool:
        """The last frame is answered and its truth is here; or it never will be."""
        return (
            self._writer.failure is not None
            or self._last_ns is not None
            and (self.is_complete or time.monotonic() - self._heard_s > _SILENCE_S)
        )

    @property
    def is_complete(self) -> bool:
        """Everything of the last frame has come."""
        return self._last_ns is not None and min(self._newest_ns.values()) >= self._last_ns

    def _subscribe(self, kind: Any, topic: str, callback: Callable[[bytes, dict[str, int]], None]) -> None:
        def with_info(raw: Any, info: Any) -> None:  # rclpy counts the parameters of a plain function
            callback(raw, info)

        self.create_subscription(kind, topic, with_info, _QOS, raw=True)

    def _keeper(self, topic: str, kind: type) -> Callable[[bytes, dict[str, int]], None]:
        def keep(raw: bytes, info: dict[str, int]) -> None:
            self._writer.write(topic, kind, info["source_timestamp"], raw)
            if topic in self._newest_ns:
                self._newest_ns[topic] = max(self._newest_ns[topic], stamp_of(raw))
                self._heard_s = time.monotonic()
            if kind is TrackArray:
                self._note("result", raw, info)

        return keep

    def _note(self, what: str, raw: bytes, info: dict[str, int]) -> None:
        self.num_results += what == "result"
        record = {
            "what": what,
            "stamp_ns": stamp_of(raw),
            "published_ns": info["source_timestamp"],
            "received_ns": info["received_timestamp"],
        }
        self._lines.write(json.dumps(record) + "\n")

    def _on_end(self, header: Header) -> None:
        self._last_ns = header.stamp.sec * 1_000_000_000 + header.stamp.nanosec
        self._heard_s = time.monotonic()

    def _say_ready(self) -> None:
        if not self._is_ready and all(self.count_publishers(topic) for topic in self._answers):
            self._is_ready = True
            print("ready", flush=True)


def typestore() -> Typestore:
    """The common interfaces and ours, as `rosbags` wants them: a bag carries the definitions of its
    messages.
    """
    store = get_typestore(Stores.LATEST)
    for path in sorted(Path(get_package_share_directory("nocsfm_msgs"), "msg").glob("*.msg")):
        store.register(get_types_from_msg(path.read_text(encoding="utf-8"), f"nocsfm_msgs/msg/{path.stem}"))
    return store


def compressed(raw: bytes, topic: str) -> bytes:
    """A serialised Image as a serialised CompressedImage; PNG but for the overlay, which is only looked
    at.
    """
    image = deserialize_message(raw, Image)
    suffix = _FORMATS.get(topic.rsplit("/", 1)[-1], ".png")
    encoding = "bgr8" if image.encoding == "rgb8" else "passthrough"
    quality = [cv2.IMWRITE_PNG_COMPRESSION, 1] if suffix == ".png" else [cv2.IMWRITE_JPEG_QUALITY, 90]
    _, data = cv2.imencode(suffix, CvBridge().imgmsg_to_cv2(image, encoding), quality)
    packed = CompressedImage(header=image.header, format="png" if suffix == ".png" else "jpeg")
    packed.data.frombytes(data.tobytes())
    return serialize_message(packed)


def record(out_dir: Path, tracker: str, colour_topic: str) -> bool:
    """Record until the end; what was received before an interruption is kept.

    Returns:
        Whether any frame was answered at all.

    Raises:
        OSError: the disk refuses.
    """
    bag_dir = out_dir / "output"
    writer = BagWriter(bag_dir)
    executor = SingleThreadedExecutor()
    try:
        with (out_dir / "record.jsonl").open("w", encoding="utf-8") as lines:
            recorder = Recorder(writer, lines, tracker, colour_topic)
            executor.add_node(recorder)
            while rclpy.ok() and not recorder.is_finished:
                executor.spin_once(timeout_sec=0.5)
            if recorder.num_results and not recorder.is_complete:
                print("the last frame was not answered; it counts as dropped", flush=True)
            return recorder.num_results > 0
    finally:
        writer.close()
        (bag_dir / "output.mcap").rename(out_dir / "output.mcap")
        (bag_dir / "metadata.yaml").unlink()
        bag_dir.rmdir()


def main(args: list[str] | None = None) -> int:
    """0 when there are results, 1 when the end did not come or the disk refused, 130 on Ctrl-C."""
    parser = argparse.ArgumentParser(prog="recorder", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("out", type=Path, help="existing folder; gets output.mcap and record.jsonl")
    parser.add_argument(
        "--tracker", default="/nocsfm_tracker", help="full name of the node (default: %(default)s)"
    )
    parser.add_argument("--image-topic", default="/camera/rgb/image_rect_color", help="default: %(default)s")
    arguments = parser.parse_args(remove_ros_args(args if args is not None else sys.argv)[1:])
    rclpy.init(args=args)
    try:
        if not record(arguments.out, arguments.tracker, arguments.image_topic):
            sys.stderr.write("recorder: not one frame was answered\n")
            return 1
    except (OSError, ConfigError) as error:
        sys.stderr.write(f"recorder: cannot write to {arguments.out}: {error}\n")
        return 1
    except (KeyboardInterrupt, ExternalShutdownException):
        return 130
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
