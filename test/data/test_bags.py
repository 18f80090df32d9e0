"""RGB-D frames of a rosbag2: decoding, pairing in time, finding the topics."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from nocsfm_ros.data.sources import open_source
from nocsfm_ros.errors import ConfigError

K = [600.0, 0, 31.5, 0, 601.0, 23.5, 0, 0, 1]
NO_P = [0.0] * 12
RGB = np.full((48, 64, 3), (200, 100, 50), np.uint8)
DEPTH_MM = np.full((48, 64), 750, np.uint16)
STORE = get_typestore(Stores.ROS2_JAZZY)
IMAGE, COMPRESSED, INFO = (f"sensor_msgs/msg/{name}" for name in ("Image", "CompressedImage", "CameraInfo"))


def make_header(stamp_ns: int) -> Any:
    time = STORE.types["builtin_interfaces/msg/Time"](stamp_ns // 10**9, stamp_ns % 10**9)
    return STORE.types["std_msgs/msg/Header"](time, "optical")


def make_image(stamp_ns: int, picture: np.ndarray, encoding: str, kind: str) -> Any:
    header = make_header(stamp_ns)
    if kind == "raw":
        size = picture.shape[0], picture.shape[1], encoding, 0, picture.strides[0]
        return STORE.types[IMAGE](header, *size, picture.view(np.uint8).ravel())
    if picture.ndim == 3:
        data = cv2.imencode(".png", picture[..., ::-1])[1].ravel()
        return STORE.types[COMPRESSED](header, f"{encoding}; png compressed bgr8", data)
    prefix = struct.pack("<iff", 0, 0, 0) if kind == "compressedDepth" else b""
    data = np.frombuffer(prefix + cv2.imencode(".png", picture)[1].tobytes(), np.uint8)
    return STORE.types[COMPRESSED](header, f"{encoding}; {kind}", data)


def make_info(stamp_ns: int, P: Any = NO_P) -> Any:
    roi = STORE.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    matrices = np.zeros(5), np.array(K, np.float64), np.eye(3).ravel(), np.array(P, np.float64)
    return STORE.types[INFO](make_header(stamp_ns), 48, 64, "plumb_bob", *matrices, 0, 0, roi)


def write_bag(
    path: Path, topics: tuple[str, ...], depth_delay_ms: int = 10, kind: str = "raw", P: Any = NO_P
) -> Path:
    """Four colour frames at 10 Hz, the last without depth; a fourth topic repeats the colour."""
    image_type = IMAGE if kind == "raw" else COMPRESSED
    types = (image_type, image_type, INFO, image_type)
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = [
            writer.add_connection(topic, types[place], typestore=STORE) for place, topic in enumerate(topics)
        ]
        for index in range(4):
            stamp_ns = 10**18 + index * 10**8
            later_ns = stamp_ns + depth_delay_ms * 10**6
            colour = make_image(stamp_ns, RGB, "rgb8", kind)
            depth = make_image(later_ns, DEPTH_MM + index, "16UC1", kind)
            messages = [
                (stamp_ns, colour),
                (later_ns, depth),
                (stamp_ns, make_info(stamp_ns, P)),
                (stamp_ns, colour),
            ]
            for place, connection in enumerate(connections):
                if (place, index) != (1, 3):
                    log_ns, message = messages[place]
                    writer.write(connection, log_ns, STORE.serialize_cdr(message, connection.msgtype))
    return path


@pytest.mark.parametrize("kind", ["raw", "png", "compressedDepth"])
def test_bag_frames_are_decoded_and_paired(tmp_path: Path, kind: str) -> None:
    path = write_bag(tmp_path / "bag", ("/cam/color", "/cam/depth", "/cam/info"), kind=kind)
    source = open_source(path)
    assert len(source) == 3 and source.rate_hz == pytest.approx(10)
    assert source.notes == ["1 colour pictures without depth within 40 ms were skipped"]
    frame = source.frame(1)
    assert frame.rgb[5, 5].tolist() == [200, 100, 50]
    assert frame.depth_m[5, 5] == pytest.approx(0.751)
    assert frame.K.ravel().tolist() == K
    assert frame.stamp_ns == 10**18 + 10**8 and frame.frame_id == "optical"


def test_bag_takes_p_of_the_rectified_picture_where_it_is_filled(tmp_path: Path) -> None:
    P = [580.0, 0, 30.5, -40, 0, 581.0, 22.5, 0, 0, 0, 1, 0]
    path = write_bag(tmp_path / "bag", ("/cam/color", "/cam/depth", "/cam/info"), P=P)
    assert open_source(path).frame(0).K.tolist() == [[580, 0, 30.5], [0, 581, 22.5], [0, 0, 1]]


def test_bag_single_mcap_file_opens(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "bag", ("/cam/color", "/cam/depth", "/cam/info"))
    assert len(open_source(next(path.glob("*.mcap")))) == 3


def test_bag_depth_too_late_raises(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "bag", ("/cam/color", "/cam/depth", "/cam/info"), depth_delay_ms=45)
    with pytest.raises(ConfigError, match="none within 40 ms"):
        open_source(path)


def test_bag_topics_by_name_and_wrong_name_lists_them(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "bag", ("/cam/color", "/cam/depth", "/cam/info"))
    assert len(open_source(path, "/cam/color", "/cam/depth", "cam/info")) == 3
    with pytest.raises(ConfigError, match=r"--depth-topic.*/cam/color, /cam/depth"):
        open_source(path, depth_topic="/cam/range")


def test_bag_with_masks_and_other_pictures_takes_the_nodes_topic_names(tmp_path: Path) -> None:
    topics = "/camera/rgb/image_rect_color", "/camera/depth_registered/image_rect", "/camera/rgb/camera_info"
    path = write_bag(tmp_path / "bag", (*topics, "/overlay"), kind="png")
    assert open_source(path).frame(2).depth_m[5, 5] == pytest.approx(0.752)


def test_bag_with_two_colour_topics_of_other_names_asks(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "bag", ("/a/color", "/a/depth", "/a/info", "/b/color"))
    with pytest.raises(ConfigError, match=r"--image-topic.*2 topics.*/a/color, /a/depth, /b/color"):
        open_source(path)


def test_bag_broken_file_raises(tmp_path: Path) -> None:
    (tmp_path / "cut.mcap").write_bytes(b"\x89MCAP0\r\n" + b"\0" * 7)
    with pytest.raises(ConfigError, match=r"cut\.mcap"):
        open_source(tmp_path / "cut.mcap")
