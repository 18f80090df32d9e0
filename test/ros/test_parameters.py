"""Parameters come from the dataclasses, and so do the files about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("rclpy", reason="needs ROS 2: ./run test prepares it, or source a distribution")
pytest.importorskip("nocsfm_msgs", reason="needs the built message package nocsfm_msgs")

from nocsfm_ros.config import flatten, iterate_tunables
from nocsfm_ros.errors import ConfigError
from nocsfm_ros.ros.parameter_docs import parameters_markdown, parameters_yaml
from nocsfm_ros.ros.parameters import RosConfig

REMAKE = "run: python -m nocsfm_ros.ros.parameter_docs"


def test_tracker_yaml_lists_every_key_at_its_default(project_root: Path) -> None:
    text = (project_root / "config" / "tracker.yaml").read_text(encoding="utf-8")
    values = flatten(yaml.safe_load(text)["/**"]["ros__parameters"])
    assert values == {key: value for key, value, _ in iterate_tunables(RosConfig())}, REMAKE
    assert text == parameters_yaml(), REMAKE


def test_parameters_page_is_up_to_date(project_root: Path) -> None:
    assert (project_root / "docs" / "parameters.md").read_text(encoding="utf-8") == parameters_markdown(), (
        REMAKE
    )


def test_every_parameter_is_declared_with_description_range_and_read_only(robot: Any) -> None:
    node = robot.start_node(active=False, parameters={"autostart": False, "tracking.min_confidence": 1})
    for key, value, tunable in iterate_tunables(RosConfig()):
        descriptor = node.describe_parameter(key)
        assert descriptor.description.startswith(tunable.reason) and descriptor.read_only is not tunable.live
        limits = [*descriptor.integer_range, *descriptor.floating_point_range]
        assert bool(limits) == (tunable.low is not None), key
        if key not in ("autostart", "tracking.min_confidence"):
            assert node.get_parameter(key).value == value
    assert node._config.tracking.min_confidence == 1.0


def test_bad_start_values_are_all_named_at_once(robot: Any) -> None:
    with pytest.raises(ConfigError, match=r"(?s)queue_size=0.*sync='often'.*tracking.lost_after='x'"):
        robot.start_node(parameters={"queue_size": 0, "sync": "often", "tracking.lost_after": "x"})


def test_tracker_yaml_starts_a_node_in_any_namespace(robot: Any, project_root: Path) -> None:
    arguments = ["--ros-args", "--params-file", str(project_root / "config" / "tracker.yaml")]
    node = robot.start_node(
        active=False, namespace="arm/wrist", cli_args=[*arguments, "-p", "autostart:=false"]
    )
    assert node._config == RosConfig(autostart=False)
