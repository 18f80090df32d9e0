"""Messages to the core's arrays. Encodings, units, sizes, frame ids and K are checked here and nowhere else.

8-bit BGR and millimetres stop at this file: what comes out is uint8 RGB and float32 metres with 0 = invalid.
"""

from __future__ import annotations

from array import array
from typing import NamedTuple

import cv2
import numpy as np
from cv_bridge import CvBridge, CvBridgeError
from geometry_msgs.msg import Pose
from nocsfm_msgs.srv import SetReference
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from nocsfm_ros.data.bag_images import K_of_camera_info
from nocsfm_ros.errors import ConfigError, FrameError
from nocsfm_ros.geometry.transforms import rotation_from_quat_xyzw
from nocsfm_ros.types import BoolArray, Float32Array, Float64Array, Reference, RgbdFrame, Uint8Array

_BRIDGE = CvBridge()
_COLOR_BYTES = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}
_DEPTH_BYTES = {"16UC1": 2, "mono16": 2, "32FC1": 4}
_MASK_BYTES = {"mono8": 1, "8UC1": 1}
_FARTHEST_POSE_M = 1000.0
# Header of compressed_depth_image_transport: int32 format, then the two float32 of its inverse-depth code.
_COMPRESSED_DEPTH_HEADER = np.dtype([("format", "<i4"), ("a", "<f4"), ("b", "<f4")])
# No RGB-D camera sees this far: a 32FC1 picture with such a median holds millimetres, a pixel is a mistake.
_FARTHEST_DEPTH_M = 100.0
# From fisheye to telescope: focal length over the longer side.
_SHORTEST_FOCAL, _LONGEST_FOCAL = 0.05, 100.0
_REGISTRATION_MEND = (
    "Turn on depth registration in the camera driver (realsense2_camera align_depth.enable:=true, orbbec "
    "depth_registration:=true), or run depth_image_proc's register node"
)


class InputNames(NamedTuple):
    """Full topic names, for messages that people read."""

    color: str = "rgb/image_rect_color"
    depth: str = "depth_registered/image_rect"
    info: str = "rgb/camera_info"


DEFAULT_NAMES = InputNames()


def rgbd_frame_from_msgs(
    color: Image | CompressedImage,
    depth: Image | CompressedImage,
    info: CameraInfo,
    names: InputNames = DEFAULT_NAMES,
) -> RgbdFrame:
    """One synchronised set of messages as a frame; the stamp and frame id are those of the colour picture.

    Raises:
        FrameError: names the topic, what is wrong with its message and the mend.
    """
    rgb = rgb_from_msg(color, names.color)
    height, width = rgb.shape[:2]
    K = K_from_info(info, (width, height), names.info)
    _check_same_frame(
        info.header.frame_id, color.header.frame_id, names.info, "Publish the colour camera's info"
    )
    _check_same_frame(depth.header.frame_id, color.header.frame_id, names.depth, _REGISTRATION_MEND)
    depth_m = depth_m_from_msg(depth, names.depth)
    if depth_m.shape != (height, width):
        raise FrameError(
            f"size of the depth picture on {names.depth}",
            got=f"{depth_m.shape[1]}x{depth_m.shape[0]}",
            expected=f"{width}x{height} as the colour picture (depth registered to colour)",
            mend=_REGISTRATION_MEND,
        )
    stamp = color.header.stamp
    return RgbdFrame(rgb, depth_m, K, stamp.sec * 1_000_000_000 + stamp.nanosec, color.header.frame_id)


def frame_warning(frame: RgbdFrame, names: InputNames = DEFAULT_NAMES) -> str:
    """What is odd about a frame that can be used all the same, or an empty text."""
    if not frame.depth_m.any():
        return f"every pixel of the depth on {names.depth} is invalid (0 or NaN): no pose can be measured"
    if not frame.frame_id:
        return f"header.frame_id of {names.color} is empty: no TF is sent"
    return ""


def rgb_from_msg(msg: Image | CompressedImage, topic: str) -> Uint8Array:
    """(H, W, 3) uint8 RGB of a colour or grey picture.

    Raises:
        FrameError: unknown encoding, empty or truncated data.
    """
    if isinstance(msg, CompressedImage):
        return np.ascontiguousarray(_decoded(msg, topic, cv2.IMREAD_COLOR)[:, :, ::-1])
    msg = _checked(msg, topic, _COLOR_BYTES, "Convert it with image_proc, or remap to another topic")
    return np.ascontiguousarray(_array(msg, topic, "rgb8"))


def depth_m_from_msg(msg: Image | CompressedImage, topic: str) -> Float32Array:
    """(H, W) float32 metres, 0 = invalid. 16UC1 counts millimetres, 32FC1 metres (REP 118).

    Raises:
        FrameError: unknown encoding, empty or truncated data, millimetres in a float picture.
    """
    if isinstance(msg, CompressedImage):
        raw = _decoded_depth(msg, topic)
    else:
        msg = _checked(msg, topic, _DEPTH_BYTES, "Depth must be 16UC1 in millimetres or 32FC1 in metres")
        raw = _array(msg, topic, "passthrough")
    if raw.dtype == np.uint16:
        return raw.astype(np.float32) * np.float32(0.001)
    with np.errstate(invalid="ignore"):
        depth_m = np.where(np.isfinite(raw) & (raw > 0), raw, 0).astype(np.float32)
    if depth_m.any() and (median := float(np.median(depth_m[depth_m > 0]))) > _FARTHEST_DEPTH_M:
        raise FrameError(
            f"depth picture on {topic}",
            got=f"a median of {median:.0f}",
            expected="metres in 32FC1",
            mend="These are millimetres: publish them as 16UC1, or divide by 1000",
        )
    depth_m[depth_m > _FARTHEST_DEPTH_M] = 0
    return depth_m


def mask_from_msg(msg: Image, topic: str) -> BoolArray:
    """(H, W) bool: every pixel over 0 is the object.

    Raises:
        FrameError: unknown encoding, empty or truncated data.
    """
    msg = _checked(msg, topic, _MASK_BYTES, "A mask is mono8: 255 on the object, 0 elsewhere")
    return np.asarray(_array(msg, topic, "passthrough") > 0)


def K_from_info(info: CameraInfo, size_wh: tuple[int, int], topic: str) -> Float64Array:
    """(3, 3) float64 intrinsics of the rectified picture, see K_of_camera_info.

    Raises:
        FrameError: not calibrated, not finite, or of another picture size.
    """
    chosen = K_of_camera_info(info.k, info.p)
    focal, side = chosen.diagonal()[:2], max(info.width, info.height, *size_wh)
    is_lens = bool(((focal > _SHORTEST_FOCAL * side) & (focal < _LONGEST_FOCAL * side)).all())
    has_centre = bool((np.abs(chosen[:2, 2]) < 10 * side).all() and (np.abs(chosen[[0, 1], [1, 0]]) < side).all())
    if not (np.isfinite(chosen).all() and is_lens and has_centre and chosen[2].tolist() == [0, 0, 1]):
        raise FrameError(
            f"camera matrix on {topic}",
            got=[float(f"{value:.6g}") for value in chosen.ravel()],
            expected=f"focal lengths and centre of a {size_wh[0]}x{size_wh[1]} picture, a last row of 0 0 1",
            mend="Calibrate the camera, or give its driver the calibration file",
        )
    if (info.width, info.height) != size_wh:
        raise FrameError(
            f"size in {topic}",
            got=f"{info.width}x{info.height}",
            expected=f"{size_wh[0]}x{size_wh[1]} as the colour picture",
            mend="Remap camera_info to the topic that belongs to the colour picture",
        )
    return chosen


def reference_from_request(request: SetReference.Request, newest: RgbdFrame | None) -> Reference:
    """A SetReference request as a Reference; without a picture the newest live frame is taken.

    Raises:
        NocsfmError: says which part cannot be used, and why.
    """
    from nocsfm_ros.tracking.reference import checked_name, reference_from_arrays

    object_id = checked_name(request.object_id or "object")
    mask = mask_from_msg(request.mask, "mask") if _is_given(request.mask) else None
    roi = request.roi
    if bool(roi.width) != bool(roi.height):
        raise ConfigError(
            "roi", got=f"{roi.width}x{roi.height} pixels", expected="both sides over 0, or both 0 for no roi"
        )
    roi_xywh = (roi.x_offset, roi.y_offset, roi.width, roi.height) if roi.width and roi.height else None
    T_cam_user = T_from_pose(request.object_pose) if request.has_object_pose else None
    has_depth, has_camera = _is_given(request.depth), any(request.camera_info.k)
    depth_m, K = None, None
    if _is_given(request.image):
        rgb = rgb_from_msg(request.image, "image")
        if has_depth and not has_camera:
            raise ConfigError(
                "reference", got="depth without camera_info", expected="the intrinsics K with it",
                mend="Give camera_info (set_reference: --camera), or leave the depth out",
            )
        if has_depth:
            depth_m = depth_m_from_msg(request.depth, "depth")
        if has_camera:
            K = K_from_info(request.camera_info, (rgb.shape[1], rgb.shape[0]), "camera_info")
    elif has_depth or has_camera:
        raise ConfigError(
            "reference", got="depth or camera_info without an image", expected="the picture they belong to, or neither",
            mend="Give the image; without one the newest live frame is taken, with its own depth and camera",
        )
    elif newest is not None:
        rgb, depth_m, K = newest.rgb, newest.depth_m, newest.K
    else:
        raise ConfigError(
            "reference",
            got="an empty image and no live frame now",
            expected="a picture in the request, or a frame of the last seconds",
            mend="Give a picture, or look at /diagnostics for the input that is missing",
        )
    return reference_from_arrays(object_id, rgb, mask, roi_xywh, depth_m, K, T_cam_user)


def T_from_pose(pose: Pose) -> Float64Array:
    """(4, 4) float64.

    Raises:
        ConfigError: not finite, farther than any camera sees, or a quaternion that is not of unit length.
    """
    position, turn = pose.position, pose.orientation
    quat_xyzw = np.array([turn.x, turn.y, turn.z, turn.w])
    T = np.eye(4)
    T[:3, 3] = position.x, position.y, position.z
    is_near = bool((np.abs(T[:3, 3]) < _FARTHEST_POSE_M).all())  # False for NaN
    if not (is_near and abs(np.linalg.norm(quat_xyzw) - 1.0) < 1e-3):
        raise ConfigError(
            "object_pose",
            got=f"position {T[:3, 3]}, quaternion {quat_xyzw}",
            expected=f"metres within {_FARTHEST_POSE_M:g} of the camera and a quaternion x, y, z, w of length 1",
        )
    T[:3, :3] = rotation_from_quat_xyzw(quat_xyzw)
    return T


def _is_given(picture: Image) -> bool:
    """Whether a request holds this picture; one whose data got lost is given, and cannot be used."""
    return bool(picture.data or picture.width or picture.height)


def _check_same_frame(got: str, color_frame: str, topic: str, mend: str) -> None:
    if got and color_frame and got != color_frame:
        raise FrameError(
            f"header.frame_id on {topic}",
            got=repr(got),
            expected=f"{color_frame!r} as the colour picture",
            mend=mend,
        )


def _checked(msg: Image, topic: str, bytes_of: dict[str, int], mend: str) -> Image:
    """The message, its rows packed: cv_bridge reads padding only where it is a whole number of pixels."""
    if msg.encoding not in bytes_of:
        raise FrameError(
            f"encoding on {topic}",
            got=repr(msg.encoding),
            expected="one of " + ", ".join(bytes_of),
            mend=mend,
        )
    if not msg.width or not msg.height:
        raise FrameError(
            f"picture on {topic}", got=f"{msg.width}x{msg.height}", expected="at least one pixel"
        )
    row = msg.width * bytes_of[msg.encoding]
    if msg.step < row or len(msg.data) < msg.step * msg.height:
        raise FrameError(
            f"picture on {topic}",
            got=f"{len(msg.data)} bytes in rows of {msg.step}",
            expected=f"{msg.height} rows of at least {row} bytes ({msg.width}x{msg.height} {msg.encoding})",
            mend="It is truncated: look at what publishes it",
        )
    if msg.step == row:
        return msg
    rows = np.frombuffer(msg.data, np.uint8)[: msg.step * msg.height].reshape(msg.height, msg.step)[:, :row]
    packed = Image(header=msg.header, height=msg.height, width=msg.width, encoding=msg.encoding, step=row)
    packed.is_bigendian, packed.data = msg.is_bigendian, array("B", rows.tobytes())
    return packed


def _array(msg: Image, topic: str, encoding: str) -> np.ndarray:
    try:
        return np.asarray(_BRIDGE.imgmsg_to_cv2(msg, encoding))
    except (CvBridgeError, ValueError, TypeError, cv2.error) as error:
        raise FrameError(
            f"picture on {topic}", got=error, expected=f"a readable {msg.encoding} picture"
        ) from error


def _decoded(msg: CompressedImage, topic: str, flags: int, skip: int = 0) -> np.ndarray:
    data = np.frombuffer(msg.data, np.uint8)[skip:]
    try:
        picture = cv2.imdecode(data, flags) if data.size else None
    except cv2.error:
        picture = None
    if picture is None:
        raise FrameError(
            f"compressed picture on {topic}",
            got=f"{len(msg.data)} bytes of format {msg.format!r}",
            expected="a whole JPEG or PNG",
            mend="It is truncated or empty: look at what publishes it",
        )
    return picture


def _decoded_depth(msg: CompressedImage, topic: str) -> np.ndarray:
    """uint16 millimetres, or float32 metres from the transport's quantised inverse depth: d = a / (q - b)."""
    transport = "compressedDepth" in msg.format
    picture = _decoded(
        msg, topic, cv2.IMREAD_UNCHANGED, _COMPRESSED_DEPTH_HEADER.itemsize if transport else 0
    )
    if picture.dtype != np.uint16 or picture.ndim != 2:
        raise FrameError(
            f"compressed depth on {topic}",
            got=f"{picture.dtype} {picture.shape}, format {msg.format!r}",
            expected="a PNG of one 16-bit channel",
            mend="JPEG cannot hold depth: use the compressedDepth transport, or raw",
        )
    if not (transport and msg.format.startswith("32FC1")):
        return picture
    header = np.frombuffer(msg.data, _COMPRESSED_DEPTH_HEADER, count=1)[0]
    with np.errstate(divide="ignore"):
        metres = np.float32(header["a"]) / (picture.astype(np.float32) - np.float32(header["b"]))
    return np.where(picture > 0, metres, 0).astype(np.float32)
