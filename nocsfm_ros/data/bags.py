"""RGB-D frames of a rosbag2 (sqlite3 or MCAP), read with `rosbags`: no ROS needed."""

from __future__ import annotations

import bisect
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nocsfm_ros.data import bag_images, pictures
from nocsfm_ros.errors import ConfigError, FrameError
from nocsfm_ros.types import BoolArray, RgbdFrame

if TYPE_CHECKING:
    from rosbags.highlevel import AnyReader
    from rosbags.interfaces import Connection

SLOP_NS = 40_000_000
IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
INFO_TYPES = ("sensor_msgs/msg/CameraInfo",)
IMAGE_NAME, DEPTH_NAME, INFO_NAME = "rgb/image_rect_color", "depth_registered/image_rect", "rgb/camera_info"


@dataclass(frozen=True, order=True)
class MessageKey:
    """Where a message lies: header stamp, log time (both ns) and number among those of equal log time."""

    stamp_ns: int
    log_ns: int
    number: int


class BagSource:
    """Colour frames with the depth picture and camera nearest in time (at most 40 ms for depth).

    Topics left empty are found: first by the names of this package's node (below any namespace, raw or
    compressed), then as the only one of its kind.
    """

    def __init__(
        self, path: Path, image_topic: str = "", depth_topic: str = "", info_topic: str = ""
    ) -> None:
        self.path, self.notes = path, list[str]()
        self._reader = _open_reader(path)
        self._image = self._topic(image_topic, IMAGE_NAME, "--image-topic", IMAGE_TYPES, bag_images.is_colour)
        self._depth = self._topic(depth_topic, DEPTH_NAME, "--depth-topic", IMAGE_TYPES, bag_images.is_depth)
        self._info = self._topic(info_topic, INFO_NAME, "--info-topic", INFO_TYPES, lambda _: True)
        infos = self._index(self._info)
        if not infos:
            raise ConfigError(
                f"topic {self._info.topic} of {path}", got="no message", expected="a CameraInfo"
            )
        self._triples = self._paired(self._index(self._image), self._index(self._depth), infos)
        first, last = self._triples[0][0].stamp_ns, self._triples[-1][0].stamp_ns
        self.rate_hz = (len(self._triples) - 1) * 1e9 / (last - first) if last > first else 30.0

    def __len__(self) -> int:
        return len(self._triples)

    def __iter__(self) -> Iterator[RgbdFrame]:
        return (self.frame(index) for index in range(len(self)))

    def name(self, index: int) -> str:
        """The 0-based index: messages have no name."""
        return str(index)

    def frame(self, index: int) -> RgbdFrame:
        """The frame at a 0-based index. Raises FrameError for one that is broken or not registered."""
        keys = self._triples[index]
        connections = (self._image, self._depth, self._info)
        image, depth, info = (self._message(*pair) for pair in zip(connections, keys, strict=True))
        what = f"frame {index} of {self.path}"
        try:
            rgb, depth_m = bag_images.rgb_from_message(image), bag_images.depth_m_from_message(depth)
            K = pictures.checked_K(bag_images.K_of_camera_info(info.k, info.p), f"{what}, topic {self._info.topic}")
        except ConfigError as error:
            raise FrameError(error.what, got=error.got, expected=error.expected, mend=error.mend) from error
        pictures.check_registered(rgb.shape[:2], depth_m.shape, what)
        if (info.height, info.width) not in ((0, 0), rgb.shape[:2]):
            raise FrameError(
                what, got=f"CameraInfo of {info.width}x{info.height}", expected="the picture's size"
            )
        return RgbdFrame(rgb, depth_m, K, stamp_ns=keys[0].stamp_ns, frame_id=image.header.frame_id)

    def objects(self, index: int) -> list[int]:
        """Bags carry no masks."""
        return []

    def mask(self, index: int, object_number: int) -> BoolArray | None:
        """Bags carry no masks."""
        return None

    def _topic(
        self, wanted: str, default: str, option: str, types: tuple[str, ...], is_kind: Callable[[Any], bool]
    ) -> Connection:
        of_type = [item for item in self._reader.connections if item.msgtype in types]
        name = wanted or default
        named = [
            item for item in of_type if _is_named(item.topic, name) and (wanted or self._is(item, is_kind))
        ]
        exact = [item for item in named if item.topic == wanted]
        found = exact or named
        if not found and not wanted:
            found = [item for item in of_type if self._is(item, is_kind)]
        if (
            len({_base(item.topic) for item in found}) == 1
        ):  # one picture, perhaps in several transports: raw first
            return min(found, key=lambda item: (item.topic.endswith("/compressed"), len(item.topic)))
        raise ConfigError(
            f"bag {self.path}, {option}",
            got=wanted or f"{len({item.topic for item in found})} topics that could be {default}",
            expected="one of "
            + (", ".join(sorted({item.topic for item in of_type})) or f"type {types[0]}: none here"),
            mend=f"name it with {option}",
        )

    def _is(self, connection: Connection, is_kind: Callable[[Any], bool]) -> bool:
        for _, _, raw in self._reader.messages([connection]):
            return is_kind(self._reader.deserialize(raw, connection.msgtype))
        return False

    def _index(self, connection: Connection) -> list[MessageKey]:
        keys: list[MessageKey] = []
        for _, log_ns, raw in self._reader.messages([connection]):
            number = keys[-1].number + 1 if keys and keys[-1].log_ns == log_ns else 0
            keys.append(MessageKey(_stamp_ns(raw) or log_ns, log_ns, number))
        return sorted(keys)

    def _message(self, connection: Connection, key: MessageKey) -> Any:
        messages = self._reader.messages([connection], start=key.log_ns, stop=key.log_ns + 1)
        raw = [item[2] for item in messages][key.number]
        return self._reader.deserialize(raw, connection.msgtype)

    def _paired(
        self, images: list[MessageKey], depths: list[MessageKey], infos: list[MessageKey]
    ) -> list[tuple[MessageKey, MessageKey, MessageKey]]:
        triples = []
        for image in images:
            depth = _nearest(depths, image.stamp_ns) if depths else None
            if depth and abs(depth.stamp_ns - image.stamp_ns) <= SLOP_NS:
                triples.append((image, depth, _nearest(infos, image.stamp_ns)))
        if len(triples) < len(images):
            self.notes.append(
                f"{len(images) - len(triples)} colour pictures without depth within 40 ms were skipped"
            )
        if not triples:
            raise ConfigError(
                f"bag {self.path}",
                got=f"{len(images)} colour and {len(depths)} depth pictures, none within 40 ms",
                expected="pairs",
                mend="check the topics, and that both drivers stamp with the same clock",
            )
        return triples


def _open_reader(path: Path) -> AnyReader:
    try:
        from rosbags.highlevel import AnyReader
        from rosbags.typesys import Stores, get_typestore
    except ImportError as error:
        raise ConfigError(
            "bags", got=error, expected="the package rosbags", mend="pip install rosbags"
        ) from error
    try:
        reader = AnyReader([path], default_typestore=get_typestore(Stores.LATEST))
        reader.open()
    except Exception as error:  # the reader meets arbitrary bytes: any exception means "not a good bag"
        raise ConfigError(
            f"bag {path}",
            got=f"{type(error).__name__}: {error}",
            expected="a complete rosbag2 (sqlite3 or MCAP)",
            mend="a recording that was cut off: ros2 bag reindex",
        ) from error
    return reader


def _base(topic: str) -> str:
    return topic.removesuffix("/compressed").removesuffix("/compressedDepth")


def _is_named(topic: str, name: str) -> bool:
    return f"/{topic}".endswith(f"/{name.strip('/')}") or f"/{_base(topic)}".endswith(f"/{name.strip('/')}")


def _stamp_ns(raw: bytes | memoryview) -> int:
    # CDR: 4 bytes of encapsulation (byte 1 odd = little endian), then the header's stamp. Decoding the whole
    # picture for it would cost seconds per bag.
    seconds, nanoseconds = struct.unpack_from("<iI" if raw[1] & 1 else ">iI", raw, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def _nearest(keys: list[MessageKey], stamp_ns: int) -> MessageKey:
    place = bisect.bisect_left(keys, stamp_ns, key=lambda key: key.stamp_ns)
    return min(keys[max(place - 1, 0) : place + 1], key=lambda key: abs(key.stamp_ns - stamp_ns))
