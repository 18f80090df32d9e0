"""Stand-in for the part of cv_bridge that nocsfm_ros calls, on rosbags-image.

Encodings and colour codes are those of rosbags-image. Rows longer than the picture (`step`), the byte order
and the change of depth are done here, because rosbags-image does them differently from cv_bridge or not at all.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.image.image import CONVERSIONS, DEPTHMAP, Format, ImageError, to_cvtype
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

__all__ = ["CvBridge", "CvBridgeError"]

_COLORS = (Format.GRAY, Format.RGB, Format.BGR, Format.RGBA, Format.BGRA)
_DEPTH_NAMES = {dtype: name for name, dtype in DEPTHMAP.items()}
_EIGHT_TO_SIXTEEN_BIT = 257  # 65535 / 255


class CvBridgeError(TypeError):
    """The encoding is unknown, or the conversion makes no sense or is not supported."""


class CvBridge:
    """Converts between image messages and arrays: (H,W) for one channel, else (H,W,C), native byte order."""

    def imgmsg_to_cv2(self, img_msg: Image, desired_encoding: str = "passthrough") -> NDArray[Any]:
        """Array of an image message; it may share the message's memory when nothing has to be changed.

        Raises:
            CvBridgeError: unknown encoding, or no conversion between the two.
            TypeError: the data are shorter than height * step.
        """
        _, dtype_name, channels = _parse(img_msg.encoding)
        dtype = np.dtype(dtype_name).newbyteorder(">" if img_msg.is_bigendian else "<")
        pixels_per_row = img_msg.step // (dtype.itemsize * channels)
        rows: NDArray[Any] = np.ndarray((img_msg.height, pixels_per_row, channels), dtype, buffer=img_msg.data)
        image = np.ascontiguousarray(rows[:, : img_msg.width], dtype=dtype.newbyteorder("="))
        if channels == 1:
            image = image[:, :, 0]
        if desired_encoding == "passthrough":
            return image
        return _convert(image, img_msg.encoding, desired_encoding)

    def compressed_imgmsg_to_cv2(
        self, cmprs_img_msg: CompressedImage, desired_encoding: str = "passthrough"
    ) -> NDArray[Any] | None:
        """Array of a compressed message, as cv2 decodes it (BGR, BGRA or one channel, 8 or 16 bit).

        None with 'passthrough' when the data cannot be decoded. With another encoding the decoded picture is
        taken for bgr8, whatever it holds.

        Raises:
            CvBridgeError: unknown encoding, or the decoded picture (16 bit, say) cannot be converted to it.
        """
        data = np.frombuffer(cmprs_img_msg.data, np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        if desired_encoding == "passthrough":
            return image
        if image is None:
            raise CvBridgeError(
                f"compressed image of format '{cmprs_img_msg.format}', {data.size} bytes, cannot be decoded"
            )
        if image.dtype != np.uint8 and desired_encoding != "bgr8":
            raise CvBridgeError(f"a compressed {image.dtype} picture can only be read with 'passthrough'")
        return _convert(image, "bgr8", desired_encoding)

    def cv2_to_imgmsg(
        self, cvim: NDArray[Any], encoding: str = "passthrough", header: Header | None = None
    ) -> Image:
        """Image message of an array of shape (H,W) or (H,W,C); 'passthrough' names its type, as in 8UC3.

        Raises:
            CvBridgeError: the array's type and channels are not those of the encoding.
            TypeError: not an array.
        """
        if not isinstance(cvim, np.ndarray):
            raise TypeError(f"got {type(cvim).__name__}, expected a numpy array")
        channels = 1 if cvim.ndim < 3 else cvim.shape[2]
        own_encoding = f"{_DEPTH_NAMES[cvim.dtype.name]}C{channels}"
        if encoding != "passthrough" and _parse(encoding)[1:] != (cvim.dtype.name, channels):
            raise CvBridgeError(f"encoding '{encoding}' does not fit an array of type {own_encoding}")
        msg = Image(height=cvim.shape[0], width=cvim.shape[1])
        if header is not None:
            msg.header = header
        msg.encoding = own_encoding if encoding == "passthrough" else encoding
        msg.is_bigendian = int(cvim.dtype.byteorder == ">")
        msg.data.frombytes(cvim.tobytes())
        msg.step = len(msg.data) // msg.height
        return msg


def _parse(encoding: str) -> tuple[Format, str, int]:
    """Colour order, dtype name and channels of an encoding."""
    try:
        _, color, dtype_name, channels = to_cvtype(encoding)
    except ImageError as error:
        raise CvBridgeError(f"unrecognized image encoding '{encoding}'") from error
    return color, dtype_name, channels


def _convert(image: NDArray[Any], source: str, target: str) -> NDArray[Any]:
    """The image in another colour order or depth; a copy in any case."""
    source_color, source_dtype, source_channels = _parse(source)
    target_color, target_dtype, target_channels = _parse(target)
    if source == target:
        return image.copy()
    if Format.GENERIC in (source_color, target_color):
        if source_color != target_color and source_color == Format.GENERIC:
            raise CvBridgeError(f"'{source}' has no colour order, so it cannot become '{target}'")
        if source_channels != target_channels:
            raise CvBridgeError(f"'{source}' and '{target}' differ in their number of channels")
    elif source_color not in _COLORS or target_color not in _COLORS:
        raise CvBridgeError(
            f"'{source}' to '{target}' is not supported by this stand-in, which converts between mono, rgb, bgr,"
            " rgba and bgra; the cv_bridge of a ROS 2 distribution can do more"
        )
    elif source_color != target_color:
        image = _recolor(image, CONVERSIONS[source_color, target_color], source, target)
    return _change_depth(image, source_dtype, target_dtype)


def _recolor(image: NDArray[Any], code: int | None, source: str, target: str) -> NDArray[Any]:
    if code is None:
        raise CvBridgeError(f"no conversion from '{source}' to '{target}'")
    try:
        return cv2.cvtColor(image, code)
    except cv2.error as error:
        raise CvBridgeError(f"an array {image.shape} {image.dtype} is not '{source}': {error}") from error


def _change_depth(image: NDArray[Any], source: str, target: str) -> NDArray[Any]:
    """8 and 16 bit integers are scaled to fill the range (rounded); widening to float keeps the values."""
    if source == target:
        return image.copy()
    if (source, target) == ("uint8", "uint16"):
        return image.astype(np.uint16) * np.uint16(_EIGHT_TO_SIXTEEN_BIT)
    if (source, target) == ("uint16", "uint8"):
        return np.rint(image / _EIGHT_TO_SIXTEEN_BIT).astype(np.uint8)
    if np.dtype(target).kind == "f" and np.can_cast(source, target):
        return image.astype(target)
    raise CvBridgeError(f"{source} to {target} is not supported by this stand-in")
