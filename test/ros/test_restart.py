"""A node that is started again knows its references."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: ./run test prepares it, or source a distribution")
pytest.importorskip("nocsfm_msgs", reason="needs the built message package nocsfm_msgs")

from nocsfm_msgs.srv import RemoveReference, SetReference

from nocsfm_ros.errors import ConfigError

NODE = "/nocsfm_tracker"


def _set(robot: Any, object_id: str) -> Any:
    messages = robot.messages
    request = SetReference.Request(
        object_id=object_id, image=messages.color(), depth=messages.depth(), camera_info=messages.info()
    )
    return robot.call(SetReference, f"{NODE}/set_reference", request)


def _remove(robot: Any, object_id: str) -> Any:
    return robot.call(RemoveReference, f"{NODE}/remove_reference", RemoveReference.Request(object_id=object_id))


def _keeping(folder: Path) -> dict[str, Any]:
    return {"parameters": {"references": str(folder), "save_references": True}}


def test_the_next_node_looks_for_what_this_one_was_told_and_not_for_what_it_forgot(robot: Any, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "references"
    robot.start_node(**_keeping(folder))
    for name in ("mug", "box.2"):
        response = _set(robot, name)
        assert response.success and str(folder) in response.message
    assert _remove(robot, "mug").success
    first = robot.trackers[0].references["box.2"]
    robot.nodes[0].destroy_node()

    robot.start_node(parameters={"references": str(folder)})
    (name, again), = robot.trackers[1].references.items()
    assert name == "box.2" and np.array_equal(again.rgb, first.rgb) and np.allclose(again.K, first.K)
    assert "saved" not in _set(robot, "cup").message
    assert [path.name for path in folder.iterdir()] == ["box.2"]


def test_a_broken_reference_is_left_out_and_the_node_works(robot: Any, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    node = robot.start_node(parameters={"references": str(tmp_path)})
    assert robot.state(node) == "active" and not robot.trackers[0].references


def test_a_folder_that_cannot_be_written_is_said_and_the_reference_is_set(robot: Any, tmp_path: Path) -> None:
    folder = tmp_path / "file"
    robot.start_node(**_keeping(folder))
    folder.write_text("in the way", encoding="utf-8")
    response = _set(robot, "mug")
    assert response.success and "not saved" in response.message and "mug" in robot.trackers[0].references


def test_a_missing_folder_is_refused_unless_it_is_to_be_made(robot: Any, tmp_path: Path, eventually: Any) -> None:
    node = robot.start_node(active=False, parameters={"references": str(tmp_path / "missing")})
    eventually(lambda: "no folder" in node._problem)
    robot.wait_state(node, "unconfigured")  # back from configuring


def test_saving_without_a_folder_is_refused_at_start(robot: Any) -> None:
    with pytest.raises(ConfigError, match="save_references"):
        robot.start_node(parameters={"save_references": True})
