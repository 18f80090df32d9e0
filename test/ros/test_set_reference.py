"""The command set_reference against a node over real DDS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: ./run test prepares it, or source a distribution")
pytest.importorskip("nocsfm_msgs", reason="needs the built message package nocsfm_msgs")

from nocsfm_ros.data.pictures import read_depth_m, read_rgb
from nocsfm_ros.errors import NocsfmError
from nocsfm_ros.ros.conversions import depth_m_from_msg, rgb_from_msg
from nocsfm_ros.ros.set_reference import main, parse_arguments, request_from_arguments


@pytest.fixture()
def files(tmp_path: Path) -> dict[str, str]:
    """A red mug with everything that can be given."""
    red = np.zeros((48, 64, 3), np.uint8)
    red[..., 2] = 255
    mask = np.zeros((48, 64), np.uint8)
    mask[10:20, 10:30] = 255
    pictures: dict[str, np.ndarray] = {
        "mug.png": red,
        "mask.png": mask,
        "depth.png": np.full((48, 64), 600, np.uint16),
        "alpha.png": np.dstack([red, mask]),
    }
    for name, picture in pictures.items():
        assert cv2.imwrite(str(tmp_path / name), picture)
    camera = {"width": 64, "height": 48, "K": [60, 0, 31.5, 0, 60, 23.5, 0, 0, 1]}
    (tmp_path / "camera.json").write_text(json.dumps(camera))
    (tmp_path / "pose.json").write_text(json.dumps({"T_cam_obj": np.eye(4).ravel().tolist()}))
    (tmp_path / "bad.json").write_text('{"K": [1, 2]}')
    (tmp_path / "text.png").write_text("not a picture")
    return {path.name: str(path) for path in tmp_path.iterdir()}


def test_command_with_everything_sets_the_reference(robot: Any, files: dict[str, str], capsys: Any) -> None:
    robot.start_node()
    arguments = [
        "set_reference",
        files["mug.png"],
        "--mask",
        files["mask.png"],
        "--depth",
        files["depth.png"],
        "--camera",
        files["camera.json"],
        "--pose",
        files["pose.json"],
    ]
    assert main(arguments) == 0
    assert "mug" in capsys.readouterr().out
    reference = robot.trackers[0].references["mug"]
    assert reference.mask.sum() == 200 and reference.rgb[0, 0].tolist() == [255, 0, 0]
    assert reference.depth_m[0, 0] == pytest.approx(0.6) and reference.K[0, 2] == 31.5


def test_command_refused_by_the_node_exits_1_with_its_message(robot: Any, capsys: Any) -> None:
    robot.start_node()
    assert main(["set_reference", "--roi", "1,2,30,40", "--id", "mug"]) == 1
    assert "no live frame" in capsys.readouterr().err


def test_command_without_a_node_exits_1_and_says_what_to_start(files: dict[str, str], capsys: Any) -> None:
    assert main(["set_reference", files["mug.png"], "--node", "/nowhere", "--timeout", "0.1"]) == 1
    assert "/nowhere/set_reference" in capsys.readouterr().err


def test_transparent_pixels_become_the_mask(files: dict[str, str]) -> None:
    request = request_from_arguments(parse_arguments([files["alpha.png"], "--id", "cup"]))
    assert request.object_id == "cup" and request.image.encoding == "rgba8"
    assert np.count_nonzero(np.array(request.mask.data)) == 200


def test_files_are_read_as_everywhere_else(tmp_path: Path) -> None:
    """A phone's picture is turned by its EXIF, depth counts in the camera file's units, colours have 8 bits."""
    upright = np.zeros((48, 64, 3), np.uint8)
    upright[:, :20] = 200
    _, jpeg = cv2.imencode(".jpg", np.rot90(upright))
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    (tmp_path / "phone.jpg").write_bytes(jpeg.tobytes()[:2] + segment + jpeg.tobytes()[2:])
    cv2.imwrite(str(tmp_path / "deep.png"), np.full((48, 64, 3), 40000, np.uint16))
    cv2.imwrite(str(tmp_path / "depth.png"), np.full((48, 64), 6000, np.uint16))
    camera = {"fx": 60, "fy": 60, "cx": 31.5, "cy": 23.5, "depth_scale": 1e-4}
    (tmp_path / "camera.json").write_text(json.dumps(camera))
    given = ["--depth", str(tmp_path / "depth.png"), "--camera", str(tmp_path / "camera.json")]
    for name in ("phone.jpg", "deep.png"):
        request = request_from_arguments(parse_arguments([str(tmp_path / name), *given]))
        np.testing.assert_array_equal(rgb_from_msg(request.image, "image"), read_rgb(tmp_path / name))
        assert request.image.width == 64 and request.camera_info.width == 64 and request.camera_info.height == 48
        depth_m = depth_m_from_msg(request.depth, "depth")
        np.testing.assert_allclose(depth_m, read_depth_m(tmp_path / "depth.png", 1e-4))
        assert request.camera_info.k[2] == 31.5


@pytest.mark.parametrize(
    "arguments",
    [
        ["missing.png"],
        ["text.png"],
        ["mug.png", "--mask", "missing.png"],
        ["mug.png", "--depth", "mug.png"],
        ["mug.png", "--camera", "bad.json"],
        ["mug.png", "--camera", "missing.json"],
        ["mug.png", "--pose", "camera.json"],
    ],
)
def test_file_that_cannot_be_used_is_named(files: dict[str, str], arguments: list[str]) -> None:
    paths = [
        argument if argument.startswith("--") else files.get(argument, argument) for argument in arguments
    ]
    with pytest.raises(
        NocsfmError, match="|".join(name.rpartition(".")[0] for name in arguments if "." in name)
    ):
        request_from_arguments(parse_arguments(paths))


@pytest.mark.parametrize("roi", ["1,2,3", "a,b,c,d", "-1,0,5,5", "1.5,2,3,4"])
def test_box_that_is_none_is_refused(roi: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse_arguments([f"--roi={roi}"])
