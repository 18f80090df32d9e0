"""`nocsfm render --demo DIR`: the demo's bag with ground truth, and its reference picture."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from nocsfm_ros.data.demo_scene import (
    K_REFERENCE,
    K_SEQUENCE,
    NUM_FRAMES,
    NUM_SURFACES,
    RATE_HZ,
    SIZE_WH,
    SURFACE_SEED,
    DemoFrame,
    demo_frame,
    reference_frame,
)
from nocsfm_ros.data.renderer import Renderer
from nocsfm_ros.data.scenes import surface_pool
from nocsfm_ros.data.sensor import sensed_depth_mm, sensed_rgb
from nocsfm_ros.types import Float64Array

FRAME_ID = "camera_color_optical_frame"
START_NS = 1_700_000_000_000_000_000
TOPICS = {
    "color": ("/camera/rgb/image_rect_color/compressed", "sensor_msgs/msg/CompressedImage"),
    "depth": ("/camera/depth_registered/image_rect/compressed", "sensor_msgs/msg/CompressedImage"),
    "info": ("/camera/rgb/camera_info", "sensor_msgs/msg/CameraInfo"),
    "pose": ("/ground_truth/pose", "geometry_msgs/msg/PoseStamped"),
    "mask": ("/ground_truth/mask/compressed", "sensor_msgs/msg/CompressedImage"),
}


def render_demo(folder: Path, num_frames: int = NUM_FRAMES) -> None:
    """Write reference.png, its mask, depth, camera and pose, and sequence/ (rosbag2, MCAP); replaces older
    ones.

    Raises:
        ConfigError: no off-screen OpenGL here.
    """
    renderer = Renderer(surface_pool(SURFACE_SEED, NUM_SURFACES))
    folder.mkdir(parents=True, exist_ok=True)
    _write_reference(folder, reference_frame(renderer))
    partial = folder / "sequence.partial"
    shutil.rmtree(partial, ignore_errors=True)
    _write_bag(partial / "sequence", renderer, num_frames)
    shutil.rmtree(folder / "sequence", ignore_errors=True)
    (partial / "sequence").rename(folder / "sequence")
    partial.rmdir()


def _write_reference(folder: Path, frame: DemoFrame) -> None:
    rng = np.random.default_rng(1)
    cv2.imwrite(str(folder / "reference.png"), sensed_rgb(frame.rgb, rng)[..., ::-1])
    cv2.imwrite(str(folder / "reference_mask.png"), np.where(frame.mask == 255, 255, 0).astype(np.uint8))
    cv2.imwrite(str(folder / "reference_depth.png"), sensed_depth_mm(frame.depth_m, K_REFERENCE, rng))
    camera = {"width": SIZE_WH[0], "height": SIZE_WH[1], "K": K_REFERENCE.ravel().tolist()}
    (folder / "reference_camera.json").write_text(json.dumps(camera, indent=1) + "\n", encoding="utf-8")
    pose = {"T_cam_obj": frame.T_cam_obj.ravel().tolist()}
    (folder / "reference_pose.json").write_text(json.dumps(pose, indent=1) + "\n", encoding="utf-8")


def _write_bag(path: Path, renderer: Renderer, num_frames: int) -> None:
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    path.parent.mkdir(parents=True)
    writer = Writer(path, version=9, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    with writer:
        channels = {
            name: writer.add_connection(topic, kind, typestore=store)
            for name, (topic, kind) in TOPICS.items()
        }
        for index in range(num_frames):
            stamp_ns = START_NS + round(index * 1e9 / RATE_HZ)
            messages = _messages(
                store.types, demo_frame(renderer, index), stamp_ns, np.random.default_rng([2, index])
            )
            for name, message in messages.items():
                writer.write(channels[name], stamp_ns, store.serialize_cdr(message, TOPICS[name][1]))


def _messages(types: Any, frame: DemoFrame, stamp_ns: int, rng: np.random.Generator) -> dict[str, Any]:
    Time, Header = types["builtin_interfaces/msg/Time"], types["std_msgs/msg/Header"]
    header = Header(Time(stamp_ns // 10**9, stamp_ns % 10**9), FRAME_ID)
    compressed = types["sensor_msgs/msg/CompressedImage"]
    jpeg = cv2.imencode(".jpg", sensed_rgb(frame.rgb, rng)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])[1]
    best = [cv2.IMWRITE_PNG_COMPRESSION, 9]
    depth = cv2.imencode(".png", sensed_depth_mm(frame.depth_m, K_SEQUENCE, rng), best)[1]
    return {
        "color": compressed(header, "jpeg", jpeg.ravel()),
        "depth": compressed(header, "16UC1; png", depth.ravel()),
        "info": _camera_info(types, header, K_SEQUENCE),
        "pose": _pose(types, header, frame.T_cam_obj),
        "mask": compressed(header, "mono8; png", cv2.imencode(".png", frame.mask, best)[1].ravel()),
    }


def _camera_info(types: Any, header: Any, K: Float64Array) -> Any:
    P = np.hstack([K, np.zeros((3, 1))])
    region = types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    return types["sensor_msgs/msg/CameraInfo"](
        header,
        SIZE_WH[1],
        SIZE_WH[0],
        "plumb_bob",
        np.zeros(5),
        K.ravel(),
        np.eye(3).ravel(),
        P.ravel(),
        0,
        0,
        region,
    )


def _pose(types: Any, header: Any, T_cam_obj: Float64Array) -> Any:
    x, y, z, w = Rotation.from_matrix(T_cam_obj[:3, :3]).as_quat().tolist()
    position = types["geometry_msgs/msg/Point"](*T_cam_obj[:3, 3].tolist())
    orientation = types["geometry_msgs/msg/Quaternion"](x, y, z, w)
    return types["geometry_msgs/msg/PoseStamped"](
        header, types["geometry_msgs/msg/Pose"](position, orientation)
    )
