"""Image messages to arrays: padding, byte order, encodings, cut-off data."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from nocsfm_ros.data.bag_images import depth_m_from_message, is_colour, is_depth, rgb_from_message
from nocsfm_ros.errors import FrameError


def raw(pixels: np.ndarray, encoding: str, step: int | None = None, is_bigendian: int = 0) -> Any:
    height, width = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(height, -1)
    step = step or rows.shape[1]
    padded = np.full((height, step), 99, np.uint8)
    padded[:, : rows.shape[1]] = rows
    return SimpleNamespace(
        height=height,
        width=width,
        encoding=encoding,
        step=step,
        is_bigendian=is_bigendian,
        data=padded.ravel(),
    )


def compressed(data: bytes, text: str) -> Any:
    return SimpleNamespace(format=text, data=np.frombuffer(data, np.uint8))


def png(picture: np.ndarray) -> bytes:
    return cv2.imencode(".png", picture)[1].tobytes()


@pytest.mark.parametrize(
    ("encoding", "pixel"),
    [("rgb8", [1, 2, 3]), ("bgr8", [3, 2, 1]), ("rgba8", [1, 2, 3, 9]), ("bgra8", [3, 2, 1, 9])],
)
def test_rgb_of_every_colour_encoding_is_rgb(encoding: str, pixel: list[int]) -> None:
    pixels = np.tile(np.array(pixel, np.uint8), (2, 3, 1))
    rgb = rgb_from_message(raw(pixels, encoding, step=20))
    assert rgb.shape == (2, 3, 3) and np.all(rgb == [1, 2, 3])


def test_rgb_of_compressed_message_is_rgb() -> None:
    bgr = np.tile(np.array([3, 2, 1], np.uint8), (4, 5, 1))
    assert np.all(rgb_from_message(compressed(png(bgr), "rgb8; png compressed bgr8")) == [1, 2, 3])


def test_rgb_of_unknown_encoding_or_cut_data_raises() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(FrameError, match="yuv422"):
        rgb_from_message(raw(pixels, "yuv422"))
    message = raw(pixels, "rgb8")
    message.data = message.data[:-1]
    with pytest.raises(FrameError, match="47 bytes"):
        rgb_from_message(message)
    with pytest.raises(FrameError, match="decode"):
        rgb_from_message(compressed(b"", "jpeg"))


@pytest.mark.parametrize("big", [0, 1])
def test_depth_of_both_byte_orders_is_metres(big: int) -> None:
    pixels = np.array([[0, 1500], [2, 65535]], ">u2" if big else "<u2")
    depth_m = depth_m_from_message(raw(pixels, "16UC1", step=7, is_bigendian=big))
    np.testing.assert_allclose(depth_m, [[0, 1.5], [0.002, 65.535]], rtol=1e-6)


def test_depth_of_float_message_has_no_nan() -> None:
    pixels = np.array([[np.nan, 1.5], [np.inf, -1]], "<f4")
    np.testing.assert_array_equal(depth_m_from_message(raw(pixels, "32FC1")), [[0, 1.5], [0, 0]])


def test_depth_of_inverse_quantised_message_is_metres() -> None:
    # compressed_depth_image_transport: stored = A / z + B
    depth_m = np.array([[0.5, 2.0], [4.0, 1.0]])
    stored = np.round(1000.0 / depth_m + 7.0).astype(np.uint16)
    stored[1, 0] = 0
    data = struct.pack("<iff", 0, 1000.0, 7.0) + png(stored)
    found = depth_m_from_message(compressed(data, "32FC1; compressedDepth png"))
    np.testing.assert_allclose(found, [[0.5, 2.0], [0, 1.0]], rtol=1e-6)


@pytest.mark.parametrize("text", ["16UC1; compressedDepth rvl", "16UC1; png"])
def test_depth_of_undecodable_message_raises(text: str) -> None:
    with pytest.raises(FrameError):
        depth_m_from_message(compressed(b"\0" * 40, text))


def test_depth_of_jpeg_raises() -> None:
    with pytest.raises(FrameError, match="16-bit PNG"):
        depth_m_from_message(compressed(png(np.zeros((4, 4), np.uint8)), "16UC1; jpeg"))


def test_kinds_of_messages_are_told_apart() -> None:
    colour, mask = compressed(b"", "bgr8; jpeg compressed bgr8"), compressed(b"", "mono8; png compressed")
    depth = compressed(b"", "16UC1; compressedDepth png")
    bare = compressed(png(np.zeros((4, 4), np.uint16)), "png")
    assert [is_colour(message) for message in (colour, mask, depth, bare)] == [True, False, False, False]
    assert [is_depth(message) for message in (colour, mask, depth, bare)] == [False, False, True, True]
