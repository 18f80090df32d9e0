"""Messages to arrays: every encoding, and every way a message can be wrong."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: ./run test prepares it, or source a distribution")
pytest.importorskip("nocsfm_msgs", reason="needs the built message package nocsfm_msgs")

from geometry_msgs.msg import Point, Pose, Quaternion
from sensor_msgs.msg import CameraInfo, CompressedImage
from std_msgs.msg import Header

from nocsfm_ros.errors import ConfigError, FrameError
from nocsfm_ros.ros.conversions import (
    InputNames,
    K_from_info,
    T_from_pose,
    depth_m_from_msg,
    mask_from_msg,
    rgb_from_msg,
    rgbd_frame_from_msgs,
)
from nocsfm_ros.ros.outputs import (
    header_of,
    image_msg,
    mask_msg,
    nocs_msg,
    pose_from_T,
    pose_with_covariance,
    track_array,
)
from nocsfm_ros.types import RgbdFrame


@pytest.mark.parametrize(
    ("encoding", "channels"),
    [
        ("rgb8", [10, 20, 30]),
        ("bgr8", [30, 20, 10]),
        ("rgba8", [10, 20, 30, 255]),
        ("bgra8", [30, 20, 10, 255]),
    ],
)
def test_colour_of_every_encoding_becomes_rgb(messages: Any, encoding: str, channels: list[int]) -> None:
    array = np.tile(np.array(channels, np.uint8), (5, 7, 1))
    rgb = rgb_from_msg(messages.image(array, encoding), "t")
    assert rgb.shape == (5, 7, 3) and rgb.dtype == np.uint8 and (rgb == [10, 20, 30]).all()


def test_grey_picture_becomes_rgb_with_equal_channels(messages: Any) -> None:
    rgb = rgb_from_msg(messages.image(np.full((5, 7), 9, np.uint8), "mono8"), "t")
    assert rgb.shape == (5, 7, 3) and (rgb == 9).all()


def test_padded_rows_are_cut_off(messages: Any) -> None:
    padded = np.zeros((5, 32), np.uint8)
    padded[:, :21] = 77
    rgb = rgb_from_msg(messages.image(padded, "rgb8", width=7), "t")
    assert rgb.shape == (5, 7, 3) and (rgb == 77).all()


def test_depth_of_16_bits_is_millimetres_in_either_byte_order(messages: Any) -> None:
    depth = np.array([[0, 1, 65535]], np.uint16)
    little = depth_m_from_msg(messages.image(depth, "16UC1"), "t")
    big = depth_m_from_msg(messages.image(depth.byteswap(), "16UC1", is_bigendian=1), "t")
    assert (
        little.dtype == np.float32
        and np.allclose(little, [[0, 0.001, 65.535]])
        and np.array_equal(little, big)
    )


def test_float_depth_is_metres_and_what_is_not_positive_is_invalid(messages: Any) -> None:
    depth = np.array([[0.5, np.nan, np.inf, -np.inf, -1.0, 0.0]], np.float32)
    assert depth_m_from_msg(messages.image(depth, "32FC1"), "t").tolist() == [[0.5, 0, 0, 0, 0, 0]]


def test_float_depth_in_millimetres_is_refused(messages: Any) -> None:
    with pytest.raises(FrameError, match="metres"):
        depth_m_from_msg(messages.image(np.full((2, 2), 800, np.float32), "32FC1"), "t")


def _compressed(array: np.ndarray, extension: str, format_: str, prefix: bytes = b"") -> CompressedImage:
    return CompressedImage(
        header=Header(), format=format_, data=prefix + cv2.imencode(extension, array)[1].tobytes()
    )


def test_compressed_depth_with_and_without_the_transports_header(messages: Any) -> None:
    depth = np.array([[0, 500, 1500]], np.uint16)
    plain = depth_m_from_msg(_compressed(depth, ".png", "16UC1; png"), "t")
    with_header = depth_m_from_msg(_compressed(depth, ".png", "16UC1; compressedDepth png", b"\0" * 12), "t")
    assert np.allclose(plain, [[0, 0.5, 1.5]]) and np.array_equal(plain, with_header)


def test_compressed_float_depth_undoes_the_inverse_depth_code() -> None:
    a, b = 4000.0, -1.0
    code = np.array([[0, round(a / 0.8 + b)]], np.uint16)
    prefix = np.array([(1, a, b)], [("format", "<i4"), ("a", "<f4"), ("b", "<f4")]).tobytes()
    depth = depth_m_from_msg(_compressed(code, ".png", "32FC1; compressedDepth png", prefix), "t")
    assert depth[0, 0] == 0 and depth[0, 1] == pytest.approx(0.8, abs=1e-4)


@pytest.mark.parametrize("cut", [0, 1, 40])
def test_truncated_compressed_picture_is_refused(cut: int) -> None:
    message = _compressed(np.zeros((40, 40, 3), np.uint8), ".png", "png")
    message.data = bytes(message.data)[:cut]
    with pytest.raises(FrameError, match="truncated"):
        rgb_from_msg(message, "t")


def test_jpeg_as_depth_is_refused() -> None:
    with pytest.raises(FrameError, match="16-bit"):
        depth_m_from_msg(_compressed(np.zeros((8, 8), np.uint8), ".jpg", "jpeg"), "t")


def test_error_names_the_topic_and_the_mend(messages: Any) -> None:
    names = InputNames("/a/color", "/a/depth", "/a/info")
    small = messages.image(np.full((24, 32), 700, np.uint16), "16UC1")
    with pytest.raises(FrameError, match=r"/a/depth: got 32x24, expected 64x48.*align_depth.enable:=true"):
        rgbd_frame_from_msgs(messages.color(), small, messages.info(), names)
    with pytest.raises(
        FrameError, match=r"/a/depth: got 'depth_frame', expected 'camera_color_optical_frame'"
    ):
        rgbd_frame_from_msgs(messages.color(), messages.depth(frame_id="depth_frame"), messages.info(), names)
    with pytest.raises(FrameError, match="/a/color: got 'yuv'"):
        rgbd_frame_from_msgs(
            messages.color(encoding="rgb8").__class__(encoding="yuv", width=1, height=1),
            messages.depth(),
            messages.info(),
            names,
        )


@pytest.mark.parametrize(
    "k",
    [
        [0.0] * 9,
        [float("nan")] * 9,
        [60.0, 0, 30, 0, -60.0, 20, 0, 0, 1],
        [60.0, 0, 30, 0, 60.0, 20, 0, 0, 0],
        [60.0, 0, float("inf"), 0, 60.0, 20, 0, 0, 1],
        [60.0, 0, 1e9, 0, 60.0, 20, 0, 0, 1],
        [1e-9, 0, 30, 0, 1e-9, 20, 0, 0, 1],
        [1e12, 0, 30, 0, 1e12, 20, 0, 0, 1],
    ],
)
def test_camera_matrix_that_cannot_be_is_refused(messages: Any, k: list[float]) -> None:
    with pytest.raises(FrameError, match="camera matrix"):
        K_from_info(messages.info(k=k), (64, 48), "t")


def test_stray_pixel_farther_than_any_camera_sees_is_invalid(messages: Any) -> None:
    metres = np.full((48, 64), 0.7, np.float32)
    metres[0] = 1e30
    depth_m = depth_m_from_msg(messages.image(metres, "32FC1"), "t")
    assert not depth_m[0].any() and np.all(depth_m[1:] == np.float32(0.7))


def test_projection_matrix_of_a_rectified_camera_wins_over_k() -> None:
    info = CameraInfo(
        width=64, height=48, k=[60.0, 0, 31, 0, 60, 23, 0, 0, 1], p=[50.0, 0, 30, 0, 0, 51, 22, 0, 0, 0, 1, 0]
    )
    assert K_from_info(info, (64, 48), "t").tolist() == [[50, 0, 30], [0, 51, 22], [0, 0, 1]]


def test_header_of_a_frame_is_the_colour_header_to_the_nanosecond(messages: Any) -> None:
    color = messages.color(stamp_ns=1_763_900_000_123_456_789)
    frame = rgbd_frame_from_msgs(color, messages.depth(), messages.info())
    assert header_of(frame) == color.header


def test_pose_and_transform_are_inverse_to_each_other() -> None:
    T = np.eye(4)
    T[:3, :3] = cv2.Rodrigues(np.array([0.3, -1.2, 2.0]))[0]
    T[:3, 3] = 1, -2, 3
    assert np.allclose(T_from_pose(pose_from_T(T)), T, atol=1e-12)


@pytest.mark.parametrize(
    "pose",
    [
        Pose(orientation=Quaternion(w=0.0)),
        Pose(position=Point(x=float("nan"))),
        Pose(orientation=Quaternion(w=float("nan"))),
    ],
)
def test_pose_that_is_none_is_refused(pose: Pose) -> None:
    with pytest.raises(ConfigError, match="object_pose"):
        T_from_pose(pose)


def test_covariance_of_a_shifted_frame_carries_the_turn_over_the_lever_arm(fake_track: Any) -> None:
    import dataclasses

    frame = RgbdFrame(np.zeros((48, 64, 3), np.uint8), np.ones((48, 64), np.float32), np.eye(3))
    track = fake_track(frame, "mug")
    shifted = track.T_cam_user.copy()
    shifted[0, 3] += 2.0
    covariance = np.array(
        pose_with_covariance(dataclasses.replace(track, T_cam_user=shifted)).covariance
    ).reshape(6, 6)
    # 2 m along x: turning about y and z by 0.01 rad (variance 1e-4) shifts z and y by 0.02 m.
    assert np.allclose(np.diag(covariance), [1e-6, 4e-4 + 1e-6, 4e-4 + 1e-6, 1e-4, 1e-4, 1e-4])
    assert covariance[2, 4] == pytest.approx(-2e-4) and covariance[1, 5] == pytest.approx(2e-4)


def test_masks_of_several_objects_are_labels_and_searching_ones_are_left_out(fake_track: Any) -> None:
    import dataclasses

    from nocsfm_ros.types import TrackState

    frame = RgbdFrame(np.zeros((48, 64, 3), np.uint8), np.ones((48, 64), np.float32), np.eye(3))
    lost = dataclasses.replace(fake_track(frame, "a"), state=TrackState.LOST, T_cam_user=None, box_xywh=None)
    both = [lost, fake_track(frame, "b")]
    assert set(np.unique(np.array(mask_msg(frame, both).data))) == {0, 2}
    assert not np.array(nocs_msg(frame, [lost]).data).any()
    first, second = track_array(header_of(frame), both).tracks
    assert (first.state, first.has_pose, first.box.width) == (2, False, 0) and second.has_pose


def test_box_hanging_out_of_the_picture_is_cut_at_its_border(fake_track: Any) -> None:
    import dataclasses

    frame = RgbdFrame(np.zeros((48, 64, 3), np.uint8), np.ones((48, 64), np.float32), np.eye(3))
    track = dataclasses.replace(fake_track(frame, "a"), box_xywh=(-3.5, -1.0, 10.0, 5.0))
    box = track_array(header_of(frame), [track]).tracks[0].box
    assert (box.x_offset, box.y_offset, box.width, box.height) == (0, 0, 7, 4)


def test_mask_is_every_pixel_over_zero(messages: Any) -> None:
    mask = mask_from_msg(messages.image(np.array([[0, 1, 255]], np.uint8), "mono8"), "t")
    assert mask.dtype == bool and mask.tolist() == [[False, True, True]]


def test_picture_out_and_in_again_is_the_same(messages: Any) -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    assert np.array_equal(rgb_from_msg(image_msg(rgb[:, ::-1], "rgb8", Header()), "t"), rgb[:, ::-1])
