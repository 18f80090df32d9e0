"""``python -m nocsfm_ros.ros.player BAG``: plays a rosbag2 (sqlite3 or MCAP) over DDS in real time, pictures
raw.

Every CompressedImage topic ``T/compressed`` is decoded and published as ``sensor_msgs/Image`` on ``T``;
everything else goes out byte for byte. Stamps are those of the bag; with --loop each round goes on where the
last one ended. When the sequence is over a std_msgs/Header with its last stamp is published on
``/player/end``, which tells a recorder what to wait for.
"""

from __future__ import annotations

import argparse
import importlib
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.utilities import remove_ros_args
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from nocsfm_ros.errors import ConfigError

END_TOPIC = "/player/end"
_COMPRESSED, _SUFFIX = "sensor_msgs/msg/CompressedImage", "/compressed"
_ENCODINGS = {("uint8", 3): "bgr8", ("uint8", 4): "bgra8", ("uint8", 1): "mono8", ("uint16", 1): "16UC1"}
# CDR of a message that begins with a Header: 4 bytes of encapsulation, then the stamp.
_STAMP = {True: struct.Struct("<iI"), False: struct.Struct(">iI")}


class Item(NamedTuple):
    """One message, ready to be published: a message or its bytes."""

    log_ns: int
    stamp_ns: int
    topic: str
    message: Any


class Bag:
    """The messages of a bag in the order of their log times. Raises ConfigError when it cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.reader = AnyReader([path], default_typestore=get_typestore(Stores.LATEST))
            self.reader.open()
        except (
            Exception
        ) as error:  # arbitrary bytes are behind this path: whatever is raised means "no good bag"
            raise ConfigError(
                f"bag {path}",
                got=f"{type(error).__name__}: {error}",
                expected="a complete rosbag2 (sqlite3 or MCAP)",
            ) from error
        self.kinds = {topic_of(item): message_class(item.msgtype) for item in self.reader.connections}
        self._stamped = {
            topic for topic, kind in self.kinds.items() if "header" in kind.get_fields_and_field_types()
        }
        # The end of the last message's period, so that a loop keeps the pace.
        stamps = sorted({log_ns for _, log_ns, _ in self.reader.messages()})
        if not stamps:
            raise ConfigError(f"bag {path}", got="no message", expected="a recording")
        self.round_ns = (
            stamps[-1] - stamps[0] + int(np.median(np.diff(stamps))) if len(stamps) > 1 else 1_000_000_000
        )

    def items(self, shift_ns: int) -> Iterator[Item]:
        """Every message, its time and stamp moved by `shift_ns`."""
        for connection, log_ns, raw in self.reader.messages():
            topic = topic_of(connection)
            if topic not in self._stamped:
                yield Item(log_ns + shift_ns, 0, topic, bytes(raw))
                continue
            stamp_ns = stamp_of(raw) + shift_ns
            is_picture = connection.msgtype == _COMPRESSED
            message = self._decoded(connection, raw, stamp_ns) if is_picture else moved(raw, stamp_ns)
            yield Item(log_ns + shift_ns, stamp_ns, topic, message)

    def _decoded(self, connection: Connection, raw: bytes, stamp_ns: int) -> Image:
        packed: Any = self.reader.deserialize(raw, connection.msgtype)
        picture = cv2.imdecode(np.asarray(packed.data), cv2.IMREAD_UNCHANGED)
        if picture is None:
            raise ConfigError(
                f"topic {connection.topic} of {self.path}",
                got=f"format {packed.format!r}",
                expected="JPEG or PNG",
            )
        channels = 1 if picture.ndim == 2 else picture.shape[2]
        encoding = _ENCODINGS.get((picture.dtype.name, channels))
        if encoding is None:
            raise ConfigError(
                f"topic {connection.topic} of {self.path}",
                got=f"a picture of {channels} channels of {picture.dtype.name}",
                expected=" or ".join(_ENCODINGS.values()),
            )
        image = Image(
            height=picture.shape[0],
            width=picture.shape[1],
            step=picture.nbytes // picture.shape[0],
            encoding=encoding,
        )
        image.header = Header(stamp=time_of(stamp_ns), frame_id=packed.header.frame_id)
        # Faster than assigning bytes, of which rclpy checks every one.
        image.data.frombytes(picture.tobytes())
        return image


class Player(Node):
    """Publishes a bag at the speed it was recorded."""

    def __init__(self, bag: Bag) -> None:
        super().__init__("player")
        self._bag = bag
        self._outlets: dict[str, Publisher[Any]] = {
            topic: self.create_publisher(kind, topic, 10) for topic, kind in bag.kinds.items()
        }
        self._outlets[END_TOPIC] = self.create_publisher(
            Header, END_TOPIC, QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        )

    def wait_for_subscribers(self, wanted: dict[str, int], timeout_s: float) -> None:
        """Return when every topic has so many subscribers. Raises ConfigError when they do not come."""
        if unknown := wanted.keys() - self._outlets.keys():
            raise ConfigError(
                "--wait-for-subscribers", got=", ".join(unknown), expected=", ".join(self._outlets)
            )
        deadline = time.monotonic() + timeout_s
        missing = dict(wanted)
        while missing and rclpy.ok():
            missing = {
                topic: count
                for topic, count in wanted.items()
                if self._outlets[topic].get_subscription_count() < count
            }
            if missing and time.monotonic() > deadline:
                raise ConfigError(
                    "subscribers",
                    got=f"too few of {', '.join(missing)} within {timeout_s:g} s",
                    expected=str(missing),
                    mend="Start the node, check topic names and ROS_DOMAIN_ID",
                )
            time.sleep(0.02)  # rclpy has no event for a matched publisher on every distribution

    def play(self, rate: float, loop: bool) -> bool:
        """Publish; each message is decoded before it is due, then held back until its time. False when
        interrupted.
        """
        shift_ns, start, first_ns, stamp_ns, frames = 0, time.monotonic(), None, 0, 0
        while rclpy.ok():
            for item in self._bag.items(shift_ns):
                first_ns = item.log_ns if first_ns is None else first_ns
                delay = start + (item.log_ns - first_ns) / 1e9 / rate - time.monotonic()
                if delay > 0:
                    time.sleep(delay)
                if not rclpy.ok():
                    return False
                self._outlets[item.topic].publish(item.message)
                if item.stamp_ns > stamp_ns:
                    stamp_ns, frames = item.stamp_ns, frames + 1
                    print(f"frame {frames}", flush=True)
            shift_ns += self._bag.round_ns
            if not loop:
                self._finish(stamp_ns)
                return True
        return False

    def _finish(self, stamp_ns: int) -> None:
        """Say that it is over and stay until everybody has heard it: the middleware forgets with the
        process.
        """
        self._outlets[END_TOPIC].publish(Header(stamp=time_of(stamp_ns)))
        for publisher in self._outlets.values():
            publisher.wait_for_all_acked(Duration(seconds=5))


def topic_of(connection: Connection) -> str:
    """Where the messages of a bag's topic are published."""
    return connection.topic.removesuffix(_SUFFIX) if connection.msgtype == _COMPRESSED else connection.topic


def message_class(type_name: str) -> Any:
    """The Python class of ``package/msg/Name``. Raises ConfigError when the package is not installed."""
    package, kind, name = type_name.split("/")
    if type_name == _COMPRESSED:
        return Image
    try:
        return getattr(importlib.import_module(f"{package}.{kind}"), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"message type {type_name}", got=error, expected="an installed interface package"
        ) from error


def stamp_of(raw: bytes | memoryview) -> int:
    """Header stamp in ns of a serialised message that begins with a Header (CDR; byte 1 is odd in little
    endian).
    """
    seconds, nanoseconds = _STAMP[bool(raw[1] & 1)].unpack_from(raw, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def moved(raw: bytes | memoryview, stamp_ns: int) -> bytes:
    """The serialised message with another header stamp."""
    changed = bytearray(raw)
    _STAMP[bool(raw[1] & 1)].pack_into(changed, 4, *divmod(stamp_ns, 1_000_000_000))
    return bytes(changed)


def time_of(stamp_ns: int) -> Time:
    """Nanoseconds as a message."""
    sec, nanosec = divmod(stamp_ns, 1_000_000_000)
    return Time(sec=sec, nanosec=nanosec)


def parse_arguments(args: list[str]) -> argparse.Namespace:
    """The command line, ROS arguments removed."""
    parser = argparse.ArgumentParser(prog="player", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("bag", type=Path, help="rosbag2 folder, or one MCAP or db3 file")
    parser.add_argument("--rate", type=_rate, default=1.0, help="times real time (default: %(default)s)")
    parser.add_argument("--loop", action="store_true", help="play it again and again; stamps go on")
    parser.add_argument(
        "--wait-for-subscribers",
        nargs="+",
        type=_topic_count,
        default=[],
        metavar="TOPIC=COUNT",
        help="start when these topics have so many subscribers",
    )
    parser.add_argument(
        "--timeout", type=float, default=30.0, help="seconds to wait for them (default: %(default)s)"
    )
    return parser.parse_args(args)


def main(args: list[str] | None = None) -> int:
    """0 when all was played, 2 when the bag or the subscribers are not there, 130 on Ctrl-C."""
    arguments = parse_arguments(remove_ros_args(args if args is not None else sys.argv)[1:])
    rclpy.init(args=args)
    try:
        player = Player(Bag(arguments.bag))
        player.wait_for_subscribers(dict(arguments.wait_for_subscribers), arguments.timeout)
        return 0 if player.play(arguments.rate, arguments.loop) else 130
    except ConfigError as error:
        sys.stderr.write(f"player: {error}\n")
        return 2
    except (KeyboardInterrupt, ExternalShutdownException):
        return 130
    finally:
        rclpy.try_shutdown()


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return rate


def _topic_count(text: str) -> tuple[str, int]:
    topic, _, count = text.rpartition("=")
    if not topic or not count.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not TOPIC=COUNT")
    return topic, int(count)


if __name__ == "__main__":
    sys.exit(main())
