"""A small demo sequence in the format of nocsfm_ros/demo_data: a printed box before a wall, ray traced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from scipy.spatial.transform import Rotation

from nocsfm_ros.geometry.transforms import make_T, quat_xyzw_from_rotation
from nocsfm_ros.types import Float32Array, Float64Array, Uint8Array

SIDES_M = np.array([0.12, 0.18, 0.07])
WALL_M = 1.0
FRAME_ID = "camera_color_optical_frame"
RATE_HZ = 15.0
FIRST_NS = 1_700_000_000_000_000_000
TOPICS = {
    "/camera/rgb/image_rect_color/compressed": "sensor_msgs/msg/CompressedImage",
    "/camera/depth_registered/image_rect/compressed": "sensor_msgs/msg/CompressedImage",
    "/camera/rgb/camera_info": "sensor_msgs/msg/CameraInfo",
    "/ground_truth/pose": "geometry_msgs/msg/PoseStamped",
    "/ground_truth/mask/compressed": "sensor_msgs/msg/CompressedImage",
}


def write_demo(
    folder: Path, frames: int = 12, size_wh: tuple[int, int] = (160, 120), rate_hz: float = RATE_HZ
) -> None:
    """Fill `folder`: sequence/ and the reference. The box is hidden by half in the 3rd quarter and gone
    before the last.

    The reference shows the box 15 degrees turned, before another wall.
    """
    folder.mkdir(parents=True)
    K = _camera(size_wh)
    rgb, depth_m, labels = trace(make_T(_turn(0, 15), np.array([0.0, 0, 0.6])), K, size_wh, wall_seed=9)
    T_cam_obj = make_T(_turn(0, 15), np.array([0.0, 0, 0.6]))
    for name, picture in (
        ("reference", rgb[..., ::-1]),
        ("reference_mask", labels),
        ("reference_depth", np.round(1000 * depth_m).astype(np.uint16)),
    ):
        cv2.imwrite(str(folder / f"{name}.png"), picture)
    camera = {"width": size_wh[0], "height": size_wh[1], "K": K.ravel().tolist()}
    (folder / "reference_camera.json").write_text(json.dumps(camera), encoding="utf-8")
    (folder / "reference_pose.json").write_text(
        json.dumps({"T_cam_obj": T_cam_obj.ravel().tolist()}), encoding="utf-8"
    )
    store = get_typestore(Stores.LATEST)
    with Writer(folder / "sequence", version=9, storage_plugin=StoragePlugin.MCAP) as bag:
        outlets = {topic: bag.add_connection(topic, kind, typestore=store) for topic, kind in TOPICS.items()}
        for index in range(frames):
            stamp_ns = FIRST_NS + int(index * 1e9 / rate_hz)
            for topic, message in _messages(store, K, size_wh, stamp_ns, index / frames):
                bag.write(outlets[topic], stamp_ns, store.serialize_cdr(message, TOPICS[topic]))


def trace(
    T_cam_obj: Float64Array, K: Float64Array, size_wh: tuple[int, int], wall_seed: int, hidden: bool = False
) -> tuple[Uint8Array, Float32Array, Uint8Array]:
    """Picture, depth and labels of the box before a wall, by the slab method; `hidden` puts a board before
    its left half.
    """
    u, v = np.meshgrid(np.arange(size_wh[0]), np.arange(size_wh[1]))
    rays_cam = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(u)], axis=-1)
    origin, rays = -T_cam_obj[:3, :3].T @ T_cam_obj[:3, 3], rays_cam @ T_cam_obj[:3, :3]
    with np.errstate(divide="ignore"):
        crossings = np.stack([(sign * SIDES_M / 2 - origin) / rays for sign in (-1, 1)])
    near, far = crossings.min(axis=0).max(axis=-1), crossings.max(axis=0).min(axis=-1)
    hit = (near < far) & (near > 0)
    depth_m = np.where(hit, near, WALL_M)
    rgb = np.where(
        hit[..., None], _print(origin + rays * near[..., None], 1, 40), _print(rays_cam, wall_seed, 12)
    )
    labels = np.where(hit, 255, 0).astype(np.uint8)
    if hidden:
        board = u < K[0, 0] * T_cam_obj[0, 3] / T_cam_obj[2, 3] + K[0, 2]
        labels[board & hit] = 128
        rgb, depth_m = np.where(board[..., None], 90, rgb), np.where(board, 0.35, depth_m)
    return rgb.astype(np.uint8), depth_m.astype(np.float32), labels


def _print(points: Float64Array, seed: int, cells_per_m: float) -> Float64Array:
    """Coloured patches of a random table, looked up by cell."""
    table = np.random.default_rng(seed).integers(30, 250, (4096, 3))
    cells = np.floor(np.nan_to_num(points, posinf=0, neginf=0) * cells_per_m).astype(np.int64)
    return np.asarray(table[(cells @ np.array([73, 179, 283])) % 4096], dtype=np.float64)


def _messages(
    store: Any, K: Float64Array, size_wh: tuple[int, int], stamp_ns: int, phase: float
) -> list[tuple[str, Any]]:
    make = store.types
    gone = 0.75 <= phase < 0.85
    T_cam_obj = make_T(_turn(40 * phase, 15), np.array([1.5 if gone else 0.1 * np.sin(6 * phase), 0.02, 0.6]))
    rgb, depth_m, labels = trace(T_cam_obj, K, size_wh, wall_seed=5, hidden=0.5 <= phase < 0.65)
    stamp = make["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 10**9))
    header = make["std_msgs/msg/Header"](stamp, FRAME_ID)
    point = make["geometry_msgs/msg/Point"](*T_cam_obj[:3, 3].tolist())
    turn = make["geometry_msgs/msg/Quaternion"](*quat_xyzw_from_rotation(T_cam_obj[:3, :3]).tolist())
    roi = make["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    P = np.hstack([K, np.zeros((3, 1))])
    info = make["sensor_msgs/msg/CameraInfo"](
        header,
        size_wh[1],
        size_wh[0],
        "plumb_bob",
        np.zeros(5),
        K.ravel(),
        np.eye(3).ravel(),
        P.ravel(),
        0,
        0,
        roi,
    )

    def packed(picture: Any, suffix: str, kind: str) -> Any:
        _, data = cv2.imencode(suffix, picture)
        return make["sensor_msgs/msg/CompressedImage"](header, kind, data.ravel())

    messages = [
        packed(rgb[..., ::-1], ".jpg", "jpeg"),
        packed(np.round(1000 * depth_m).astype(np.uint16), ".png", "16UC1; png"),
        info,
        make["geometry_msgs/msg/PoseStamped"](header, make["geometry_msgs/msg/Pose"](point, turn)),
        packed(labels, ".png", "mono8; png"),
    ]
    return list(zip(TOPICS, messages, strict=True))


def _camera(size_wh: tuple[int, int]) -> Float64Array:
    return np.array(
        [[size_wh[0], 0, (size_wh[0] - 1) / 2], [0, size_wh[0], (size_wh[1] - 1) / 2], [0, 0, 1.0]]
    )


def _turn(yaw_deg: float, pitch_deg: float) -> Float64Array:
    return np.asarray(Rotation.from_euler("yx", [yaw_deg, pitch_deg], degrees=True).as_matrix())
