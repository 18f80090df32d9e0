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

from nocsfm_ros.errors import ConfigError
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
        "deep.png": np.zeros((4, 4, 3), np.uint16),
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
    assert request.object_id == "cup" and request.image.encoding == "bgra8"
    assert np.count_nonzero(np.array(request.mask.data)) == 200


@pytest.mark.parametrize(
    "arguments",
    [
        ["missing.png"],
        ["text.png"],
        ["deep.png"],
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
        ConfigError, match="|".join(name.rpartition(".")[0] for name in arguments if "." in name)
    ):
        request_from_arguments(parse_arguments(paths))


@pytest.mark.parametrize("roi", ["1,2,3", "a,b,c,d", "-1,0,5,5", "1.5,2,3,4"])
def test_box_that_is_none_is_refused(roi: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse_arguments([f"--roi={roi}"])
