"""Image, CompressedImage and CameraInfo messages, as `rosbags` reads them, to RGB, metres and intrinsics."""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from nocsfm_ros.data.pictures import MILLIMETRE, depth_m_from_raw
from nocsfm_ros.errors import FrameError
from nocsfm_ros.types import Float32Array, Float64Array, Uint8Array

# encoding -> channels, and the OpenCV conversion to RGB
COLOUR_ENCODINGS: dict[str, tuple[int, int | None]] = {
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
}
DEPTH_ENCODINGS: dict[str, tuple[str, float]] = {
    "16UC1": ("u2", MILLIMETRE),
    "mono16": ("u2", MILLIMETRE),
    "32FC1": ("f4", 1.0),
}
COMPRESSED_DEPTH_HEADER = struct.Struct(
    "<iff"
)  # compressed_depth_image_transport: format, depthQuantA, depthQuantB


def is_colour(message: Any) -> bool:
    """A colour picture: not depth, and not a mask or grey picture."""
    encoding = _encoding(message)
    return not is_depth(message) and not encoding.startswith("mono") and encoding != "8UC1"


def is_depth(message: Any) -> bool:
    """16-bit millimetres or float metres, raw or compressed."""
    if not hasattr(message, "format"):
        return message.encoding in DEPTH_ENCODINGS
    # A bare "png" says nothing: one channel of 16 bit in the PNG's own header does.
    is_16_bit_png = bytes(message.data[1:4]) == b"PNG" and bytes(message.data[24:26]) == b"\x10\x00"
    return is_16_bit_png or _encoding(message) in DEPTH_ENCODINGS or "compressedDepth" in message.format


def rgb_from_message(message: Any) -> Uint8Array:
    """(H, W, 3) uint8 RGB. Raises FrameError for an unknown encoding or cut-off data."""
    if hasattr(message, "format"):
        return np.asarray(
            cv2.cvtColor(decoded(message.data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), dtype=np.uint8
        )
    if message.encoding not in COLOUR_ENCODINGS:
        raise FrameError(
            "colour message", got=f"encoding {message.encoding}", expected=", ".join(COLOUR_ENCODINGS)
        )
    channels, conversion = COLOUR_ENCODINGS[message.encoding]
    pixels = _pixels(message, np.dtype("u1"), channels)
    return np.ascontiguousarray(
        pixels if conversion is None else cv2.cvtColor(pixels, conversion), dtype=np.uint8
    )


def depth_m_from_message(message: Any) -> Float32Array:
    """(H, W) float32 metres, 0 = invalid. Raises FrameError for an unknown encoding or cut-off data."""
    if "compressedDepth" in getattr(message, "format", ""):
        return _compressed_depth_m(message)
    encoding = _encoding(message)
    if hasattr(message, "format"):
        raw = decoded(message.data, cv2.IMREAD_UNCHANGED)
        if raw.ndim != 2 or raw.dtype != np.uint16:
            raise FrameError(
                "depth message", got=f"{message.format}: {raw.dtype} {raw.shape}", expected="a 16-bit PNG"
            )
        return depth_m_from_raw(raw, MILLIMETRE)
    if encoding not in DEPTH_ENCODINGS:
        raise FrameError("depth message", got=f"encoding {encoding}", expected=", ".join(DEPTH_ENCODINGS))
    kind, metres_per_unit = DEPTH_ENCODINGS[encoding]
    order = ">" if message.is_bigendian else "<"
    return depth_m_from_raw(_pixels(message, np.dtype(order + kind), 1), metres_per_unit)


def K_of_camera_info(k: npt.ArrayLike, p: npt.ArrayLike) -> Float64Array:
    """(3, 3) intrinsics of the rectified picture, of a CameraInfo's `k` and `p`: P's left part where it is filled."""
    K = np.array(k, dtype=np.float64).reshape(3, 3)
    P = np.array(p, dtype=np.float64).reshape(3, 4)[:, :3]
    # sensor_msgs/CameraInfo: K[0] = 0 means uncalibrated; P, not K, describes image_rect topics.
    return P if K[0, 0] > 0 and P[0, 0] > 0 else K


def _encoding(message: Any) -> str:
    """Of a CompressedImage the part of `format` before the semicolon; a bare "png" has no encoding."""
    return str(message.format.split(";")[0].strip() if hasattr(message, "format") else message.encoding)


def _pixels(message: Any, dtype: np.dtype[Any], channels: int) -> np.ndarray:
    """(H, W) or (H, W, channels) of a raw message; rows may be padded up to `step` bytes."""
    height, width, step = message.height, message.width, message.step
    row = width * channels * dtype.itemsize
    if height < 1 or width < 1 or step < row or len(message.data) < height * step:
        raise FrameError(
            "image message",
            got=f"{width}x{height}, step {step}, {len(message.data)} bytes",
            expected=f"a step of at least {row} and height * step bytes",
        )
    rows = np.frombuffer(message.data, dtype=np.uint8, count=height * step).reshape(height, step)[:, :row]
    pixels = np.ascontiguousarray(rows).view(dtype).reshape(height, width, channels)
    return pixels[..., 0] if channels == 1 else pixels


def decoded(data: Any, flags: int) -> np.ndarray:
    """The picture in JPEG or PNG bytes, as OpenCV has it: BGR. Raises FrameError."""
    buffer = np.frombuffer(data, dtype=np.uint8)
    picture = cv2.imdecode(buffer, flags) if buffer.size else None
    if picture is None:
        raise FrameError(
            "compressed image message",
            got=f"{buffer.size} bytes that do not decode",
            expected="a complete JPEG or PNG",
        )
    return np.asarray(picture)


def _compressed_depth_m(message: Any) -> Float32Array:
    header = bytes(message.data[: COMPRESSED_DEPTH_HEADER.size])
    if len(header) < COMPRESSED_DEPTH_HEADER.size or "rvl" in message.format.lower():
        raise FrameError(
            "compressedDepth message",
            got=f"format {message.format}, {len(message.data)} bytes",
            expected="a 12-byte header and a PNG",
            mend="set compressedDepth.format to png",
        )
    _, quant_a, quant_b = COMPRESSED_DEPTH_HEADER.unpack(header)
    raw = decoded(message.data[COMPRESSED_DEPTH_HEADER.size :], cv2.IMREAD_UNCHANGED)
    if _encoding(message) != "32FC1":
        return depth_m_from_raw(raw, MILLIMETRE)
    with np.errstate(
        divide="ignore"
    ):  # float depth is stored as inverse depth: z = A / (value - B), value 0 = none
        return depth_m_from_raw(np.where(raw > 0, quant_a / (raw.astype(np.float64) - quant_b), 0.0), 1.0)
