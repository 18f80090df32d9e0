"""Readers of single labelled frames: names, masks, poses and units as the data sets store them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from nocsfm_ros.data.single_frames import read_arc2017, read_dexycb, read_posecnn_demo
from nocsfm_ros.errors import FrameError

SIZE_HW = (48, 64)
CAMERA_YML = "color:\n  fx: 60.5\n  fy: 61.0\n  ppx: 31.5\n  ppy: 23.5\nextrinsics: !!python/tuple\n- 1.0\n- 0.0\n"


def write_pictures(colour: Path, depth: Path, raw_depth: npt.NDArray[np.uint16]) -> None:
    colour.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(colour), np.full((*SIZE_HW, 3), 80, np.uint8))
    cv2.imwrite(str(depth), raw_depth)


@pytest.fixture
def dexycb(tmp_path: Path) -> Path:
    depth = np.full(SIZE_HW, 800, np.uint16)
    depth[0, 0] = 65535
    write_pictures(tmp_path / "color.png", tmp_path / "depth.png", depth)
    seg = np.zeros(SIZE_HW, np.uint8)
    seg[10:20, 10:20], seg[30:40, 10:20], seg[0:5, 40:50] = 5, 13, 255
    poses = np.stack([np.eye(3, 4), np.eye(3, 4)]).astype(np.float32)
    poses[:, 2, 3] = 0.8, 0.9
    np.savez(tmp_path / "labels.npz", seg=seg, pose_y=poses)
    (tmp_path / "camera.yml").write_text(CAMERA_YML)
    return tmp_path


def test_dexycb_objects_have_names_masks_and_only_angular_ones_a_pose(dexycb: Path) -> None:
    mustard, bowl = read_dexycb(dexycb).objects
    assert (mustard.name, bowl.name) == ("mustard bottle", "bowl")
    assert mustard.mask[15, 15] and mustard.mask.sum() == 100 and bowl.mask[35, 15]
    assert mustard.T_cam_obj is not None and mustard.T_cam_obj.shape == (4, 4) and bowl.T_cam_obj is None
    assert mustard.T_cam_obj[2, 3] == pytest.approx(0.8)


def test_dexycb_camera_is_the_colour_camera_and_saturated_depth_is_none(dexycb: Path) -> None:
    rgbd = read_dexycb(dexycb).rgbd
    assert rgbd.K.tolist() == [[60.5, 0, 31.5], [0, 61.0, 23.5], [0, 0, 1]]
    assert rgbd.depth_m[0, 0] == 0 and rgbd.depth_m[5, 5] == pytest.approx(0.8)


def test_dexycb_without_camera_file_says_so(dexycb: Path) -> None:
    (dexycb / "camera.yml").unlink()
    with pytest.raises(FrameError, match="camera file"):
        read_dexycb(dexycb)


def test_arc2017_objects_are_the_instances_in_the_order_of_their_labels(tmp_path: Path) -> None:
    write_pictures(tmp_path / "rgb.png", tmp_path / "depth.png", np.full(SIZE_HW, 700, np.uint16))
    instances = np.zeros(SIZE_HW, np.uint8)
    instances[5:15, 5:15], instances[5:15, 30:40] = 1, 2
    cv2.imwrite(str(tmp_path / "instance.png"), instances)
    (tmp_path / "labels.json").write_text(json.dumps({"labels": [25, 6]}))
    (tmp_path / "camera_info.json").write_text(json.dumps({"K": [50, 0, 32, 0, 50, 24, 0, 0, 1]}))
    first, second = read_arc2017(tmp_path).objects
    assert (first.name, second.name) == ("item 25", "item 6")
    assert first.mask[10, 10] and second.mask[10, 35]


def test_posecnn_depth_counts_tenths_of_a_millimetre(tmp_path: Path) -> None:
    for name in ("000001", "000002"):
        depth = np.full(SIZE_HW, 9000, np.uint16)
        write_pictures(tmp_path / f"{name}-color.png", tmp_path / f"{name}-depth.png", depth)
    frames = read_posecnn_demo(tmp_path)
    assert [frame.name for frame in frames] == ["posecnn 1", "posecnn 2"]
    assert frames[0].rgbd.depth_m[0, 0] == pytest.approx(0.9) and not frames[0].objects
