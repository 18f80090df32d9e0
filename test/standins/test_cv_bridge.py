"""Arrays of image messages and back, worked out by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("sensor_msgs.msg", reason="needs ROS 2's messages")
pytest.importorskip("rosbags.image", reason="needs rosbags-image")
sys.path.insert(0, str(Path(__file__).parent))
from sensor_msgs.msg import CompressedImage, Image
from standin_loading import load_standin, real_or_none
from std_msgs.msg import Header

STANDIN = load_standin("cv_bridge")
BRIDGE = STANDIN.CvBridge()
RGBA = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
ARRAYS: dict[str, np.ndarray] = {
    "rgb8": RGBA[:, :, :3], "bgr8": RGBA[:, :, :3], "rgba8": RGBA, "bgra8": RGBA, "mono8": RGBA[:, :, 0],
    "16UC1": RGBA[:, :, 0].astype(np.uint16) * 1000, "32FC1": RGBA[:, :, 0].astype(np.float32) / 7,
    "32FC3": RGBA[:, :, :3].astype(np.float32) / 7,
}


def padded(array: np.ndarray, encoding: str, big_endian: bool, pad_pixels: int) -> Image:
    height, width = array.shape[:2]
    wide = np.concatenate([array, np.repeat(array[:, :1], pad_pixels, axis=1)], axis=1)
    data = wide.astype(wide.dtype.newbyteorder(">" if big_endian else "<")).tobytes()
    msg = Image(height=height, width=width, encoding=encoding, is_bigendian=big_endian, step=len(data) // height)
    msg.data.frombytes(data)
    return msg


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("pad_pixels", [0, 2])
@pytest.mark.parametrize("encoding", ARRAYS)
def test_image_with_padding_and_byte_order_gives_same_array(encoding: str, pad_pixels: int, big_endian: bool) -> None:
    expected = ARRAYS[encoding]
    got = BRIDGE.imgmsg_to_cv2(padded(expected, encoding, big_endian, pad_pixels))
    assert got.dtype == expected.dtype and got.dtype.isnative
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("encoding", ARRAYS)
def test_array_to_message_and_back_is_same(encoding: str) -> None:
    msg = BRIDGE.cv2_to_imgmsg(ARRAYS[encoding], encoding, Header(frame_id="cam"))
    assert (msg.height, msg.width, msg.encoding, msg.header.frame_id) == (2, 3, encoding, "cam")
    assert msg.step == ARRAYS[encoding][0].nbytes
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(msg, encoding), ARRAYS[encoding])


def test_colour_order_is_changed() -> None:
    rgba = BRIDGE.cv2_to_imgmsg(RGBA, "rgba8")
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(rgba, "rgb8"), RGBA[:, :, :3])
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(rgba, "bgr8"), RGBA[:, :, 2::-1])
    grey = BRIDGE.cv2_to_imgmsg(RGBA[:, :, 0], "mono8")
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(grey, "rgb8"), RGBA[:, :, [0, 0, 0]])


def test_passthrough_names_the_arrays_type() -> None:
    assert BRIDGE.cv2_to_imgmsg(ARRAYS["32FC3"]).encoding == "32FC3"
    assert BRIDGE.cv2_to_imgmsg(ARRAYS["16UC1"]).encoding == "16UC1"


def test_depth_of_mono_is_scaled_between_8_and_16_bit() -> None:
    msg = BRIDGE.cv2_to_imgmsg(np.array([[0, 128, 129, 65535]], np.uint16), "mono16")
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(msg, "mono8"), [[0, 0, 1, 255]])


@pytest.mark.parametrize(("encoding", "wanted"), [("16UC1", "rgb8"), ("32FC3", "rgb8"), ("rgb8", "32FC1")])
def test_conversion_without_sense_raises(encoding: str, wanted: str) -> None:
    with pytest.raises(STANDIN.CvBridgeError, match=encoding):
        BRIDGE.imgmsg_to_cv2(BRIDGE.cv2_to_imgmsg(ARRAYS[encoding], encoding), wanted)


def test_bad_input_raises() -> None:
    with pytest.raises(STANDIN.CvBridgeError, match="nonsense"):
        BRIDGE.imgmsg_to_cv2(Image(encoding="nonsense"))
    with pytest.raises(STANDIN.CvBridgeError, match="8UC3"):
        BRIDGE.cv2_to_imgmsg(ARRAYS["rgb8"], "mono8")
    with pytest.raises(TypeError, match="numpy"):
        BRIDGE.cv2_to_imgmsg([[1]])
    with pytest.raises(TypeError, match="too small"):
        BRIDGE.imgmsg_to_cv2(Image(height=2, width=2, step=2, encoding="mono8"))


def test_compressed_png_decodes_losslessly() -> None:
    for array in (ARRAYS["16UC1"], RGBA, ARRAYS["mono8"]):
        msg = CompressedImage(format="png")
        msg.data.frombytes(cv2.imencode(".png", array)[1].tobytes())
        np.testing.assert_array_equal(BRIDGE.compressed_imgmsg_to_cv2(msg), array)
    msg = CompressedImage(format="png")
    msg.data.frombytes(cv2.imencode(".png", ARRAYS["bgr8"])[1].tobytes())
    np.testing.assert_array_equal(BRIDGE.compressed_imgmsg_to_cv2(msg, "rgb8"), ARRAYS["bgr8"][:, :, ::-1])


def test_same_images_give_same_arrays_as_real_package() -> None:
    real = real_or_none("cv_bridge")
    if real is None:
        pytest.skip("the real cv_bridge is not installed")
    for encoding, array in ARRAYS.items():
        msg = padded(array, encoding, False, 2)
        for wanted in ("passthrough", encoding) + (("rgb8", "mono8") if encoding.endswith("8") else ()):
            got, expected = BRIDGE.imgmsg_to_cv2(msg, wanted), real.CvBridge().imgmsg_to_cv2(msg, wanted)
            assert got.dtype == expected.dtype
            np.testing.assert_array_equal(got, expected)
