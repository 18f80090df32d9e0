"""Rendered sequences with their truth: a folder with a reference picture and sequence/ (rosbag2, MCAP).

`nocsfm track`, `ros2 bag play` and the evaluations read the same files.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from nocsfm_ros.data.bag_images import decoded
from nocsfm_ros.data.pictures import read_depth_m, read_labels, read_rgb
from nocsfm_ros.data.renderer import Item, Light, Renderer
from nocsfm_ros.data.sensor import sensed_depth_mm, sensed_rgb
from nocsfm_ros.geometry.transforms import make_T, rotation_from_quat_xyzw
from nocsfm_ros.types import Float32Array, Float64Array, Reference, Uint8Array

SIZE_WH = (640, 480)
FRAME_ID = "camera_color_optical_frame"
START_NS = 1_700_000_000_000_000_000
JPEG_QUALITY = 82
LABEL_VISIBLE, LABEL_HIDDEN = 255, 128
TOPICS = {
    "color": ("/camera/rgb/image_rect_color/compressed", "sensor_msgs/msg/CompressedImage"),
    "depth": ("/camera/depth_registered/image_rect/compressed", "sensor_msgs/msg/CompressedImage"),
    "info": ("/camera/rgb/camera_info", "sensor_msgs/msg/CameraInfo"),
    "pose": ("/ground_truth/pose", "geometry_msgs/msg/PoseStamped"),
    "mask": ("/ground_truth/mask/compressed", "sensor_msgs/msg/CompressedImage"),
}


@dataclass(frozen=True)
class SequenceFrame:
    """A clean picture and what is true in it.

    Attributes:
        rgb: (H, W, 3) uint8.
        depth_m: (H, W) float32 without noise.
        labels: (H, W) uint8, LABEL_VISIBLE object, LABEL_HIDDEN object behind something, 0 elsewhere.
        T_cam_obj: (4, 4).
        K: (3, 3).
        stamp_ns: of all messages.
    """

    rgb: Uint8Array
    depth_m: Float32Array
    labels: Uint8Array
    T_cam_obj: Float64Array
    K: Float64Array
    stamp_ns: int = START_NS


@dataclass(frozen=True)
class FrameTruth:
    """What is true in one played frame.

    Attributes:
        stamp_ns: of the colour picture.
        T_cam_obj: (4, 4) pose of the object, also when it is out of view.
        labels: (H, W) uint8: LABEL_VISIBLE object, LABEL_HIDDEN object hidden behind something, 0 elsewhere.
    """

    stamp_ns: int
    T_cam_obj: Float64Array
    labels: Uint8Array


def draw_frame(
    renderer: Renderer, items: list[Item], K: Float64Array, light: Light, stamp_ns: int = START_NS
) -> SequenceFrame:
    """The picture of the items; the first one is the object, and no other has its instance."""
    picture = renderer.render(items, K, SIZE_WH, light)
    labels = object_labels(renderer, items, K)
    return SequenceFrame(picture.rgb, picture.depth_m, labels, items[0].T_cam_obj, K, stamp_ns)


def object_labels(renderer: Renderer, items: list[Item], K: Float64Array) -> Uint8Array:
    """(H, W): where the first of the items is LABEL_VISIBLE, and where it is LABEL_HIDDEN behind the others."""
    alone, seen = renderer.silhouettes(items, K, SIZE_WH, 1)
    instance = items[0].instance
    return np.where(seen == instance, LABEL_VISIBLE, np.where(alone == instance, LABEL_HIDDEN, 0)).astype(np.uint8)


def write_sequence(
    folder: Path, reference: SequenceFrame, frames: Iterable[SequenceFrame], png_level: int = 9
) -> None:
    """Write reference.png, its mask, depth, camera and pose, and sequence/; replaces older ones."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_reference(folder, reference)
    partial = folder / "sequence.partial"
    shutil.rmtree(partial, ignore_errors=True)
    _write_bag(partial / "sequence", frames, png_level)
    shutil.rmtree(folder / "sequence", ignore_errors=True)
    (partial / "sequence").rename(folder / "sequence")
    partial.rmdir()


def read_reference(folder: Path, object_id: str) -> Reference:
    """The reference that write_sequence wrote; its pose makes the tracker answer in the truth's own object frame."""
    camera = json.loads((folder / "reference_camera.json").read_text(encoding="utf-8"))
    pose = json.loads((folder / "reference_pose.json").read_text(encoding="utf-8"))
    return Reference(
        object_id, read_rgb(folder / "reference.png"), read_labels(folder / "reference_mask.png") > 0,
        read_depth_m(folder / "reference_depth.png"), np.array(camera["K"], np.float64).reshape(3, 3),
        np.array(pose["T_cam_obj"], np.float64).reshape(4, 4),
    )


def read_truths(sequence: Path) -> list[FrameTruth]:
    """The truth of every frame of a bag that write_sequence wrote, in the order of time."""
    messages = stamped_messages(sequence, (TOPICS["pose"][0], TOPICS["mask"][0]))
    poses, masks = messages[TOPICS["pose"][0]], messages[TOPICS["mask"][0]]
    return [
        FrameTruth(
            stamp_ns, T_from_message(poses[stamp_ns].pose),
            decoded(masks[stamp_ns].data, cv2.IMREAD_GRAYSCALE).astype(np.uint8),
        )
        for stamp_ns in sorted(poses)
    ]


def stamped_messages(bag: Path, topics: tuple[str, ...] = ()) -> dict[str, dict[int, Any]]:
    """topic -> stamp in ns -> message, of the messages with a header; all topics if none are named."""
    from rosbags.highlevel import AnyReader
    from rosbags.typesys import Stores, get_typestore

    found: dict[str, dict[int, Any]] = {}
    with AnyReader([bag], default_typestore=get_typestore(Stores.LATEST)) as reader:
        chosen = [connection for connection in reader.connections if not topics or connection.topic in topics]
        for connection, _, raw in reader.messages(chosen):
            message: Any = reader.deserialize(raw, connection.msgtype)
            if hasattr(message, "header"):
                stamp = message.header.stamp
                found.setdefault(connection.topic, {})[stamp.sec * 1_000_000_000 + stamp.nanosec] = message
    return found


def T_from_message(pose: Any) -> Float64Array:
    """(4, 4) of a geometry_msgs/Pose."""
    turn, place = pose.orientation, pose.position
    return make_T(
        rotation_from_quat_xyzw(np.array([turn.x, turn.y, turn.z, turn.w])), np.array([place.x, place.y, place.z])
    )


def _write_reference(folder: Path, frame: SequenceFrame) -> None:
    rng = np.random.default_rng(1)
    cv2.imwrite(str(folder / "reference.png"), sensed_rgb(frame.rgb, rng)[..., ::-1])
    cv2.imwrite(str(folder / "reference_mask.png"), np.where(frame.labels == LABEL_VISIBLE, 255, 0).astype(np.uint8))
    cv2.imwrite(str(folder / "reference_depth.png"), sensed_depth_mm(frame.depth_m, frame.K, rng))
    camera = {"width": frame.rgb.shape[1], "height": frame.rgb.shape[0], "K": frame.K.ravel().tolist()}
    (folder / "reference_camera.json").write_text(json.dumps(camera, indent=1) + "\n", encoding="utf-8")
    pose = {"T_cam_obj": frame.T_cam_obj.ravel().tolist()}
    (folder / "reference_pose.json").write_text(json.dumps(pose, indent=1) + "\n", encoding="utf-8")


def _write_bag(path: Path, frames: Iterable[SequenceFrame], png_level: int) -> None:
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    path.parent.mkdir(parents=True)
    writer = Writer(path, version=9, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    with writer:
        channels = {
            name: writer.add_connection(topic, kind, typestore=store) for name, (topic, kind) in TOPICS.items()
        }
        for index, frame in enumerate(frames):
            for name, message in _sensed(store.types, frame, np.random.default_rng([2, index]), png_level).items():
                writer.write(channels[name], frame.stamp_ns, store.serialize_cdr(message, TOPICS[name][1]))


def _sensed(types: Any, frame: SequenceFrame, rng: np.random.Generator, png_level: int) -> dict[str, Any]:
    """The messages of a frame as a camera would send them."""
    Time, Header = types["builtin_interfaces/msg/Time"], types["std_msgs/msg/Header"]
    header = Header(Time(frame.stamp_ns // 10**9, frame.stamp_ns % 10**9), FRAME_ID)
    compressed, png = types["sensor_msgs/msg/CompressedImage"], [cv2.IMWRITE_PNG_COMPRESSION, png_level]
    jpeg = cv2.imencode(".jpg", sensed_rgb(frame.rgb, rng)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    depth = cv2.imencode(".png", sensed_depth_mm(frame.depth_m, frame.K, rng), png)[1]
    return {
        "color": compressed(header, "jpeg", jpeg.ravel()),
        "depth": compressed(header, "16UC1; png", depth.ravel()),
        "info": _camera_info(types, header, frame),
        "pose": _pose(types, header, frame.T_cam_obj),
        "mask": compressed(header, "mono8; png", cv2.imencode(".png", frame.labels, png)[1].ravel()),
    }


def _camera_info(types: Any, header: Any, frame: SequenceFrame) -> Any:
    K, (height, width) = frame.K, frame.rgb.shape[:2]
    P = np.hstack([K, np.zeros((3, 1))])
    region = types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    return types["sensor_msgs/msg/CameraInfo"](
        header, height, width, "plumb_bob", np.zeros(5), K.ravel(), np.eye(3).ravel(), P.ravel(), 0, 0, region
    )


def _pose(types: Any, header: Any, T_cam_obj: Float64Array) -> Any:
    x, y, z, w = Rotation.from_matrix(T_cam_obj[:3, :3]).as_quat().tolist()
    position = types["geometry_msgs/msg/Point"](*T_cam_obj[:3, 3].tolist())
    orientation = types["geometry_msgs/msg/Quaternion"](x, y, z, w)
    return types["geometry_msgs/msg/PoseStamped"](header, types["geometry_msgs/msg/Pose"](position, orientation))
