"""ROS parameters, declared from the dataclasses: one place holds default, unit, range and reason."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from nocsfm_ros.config import Config, Tunable, iterate_tunables, replace_values
from nocsfm_ros.errors import ConfigError

# Parameters that rclpy itself declares on every node.
_ROS_OWN = ("use_sim_time", "start_type_description_service", "qos_overrides.")


def _setting(default: Any, reason: str, **facts: Any) -> Any:
    return field(default=default, metadata={"tunable": Tunable(reason, **facts)})


@dataclass(frozen=True)
class RosConfig(Config):
    """The tracker's settings, and what only the node needs."""

    autostart: bool = _setting(
        True,
        "walk to the active state at start; off leaves the transitions to a lifecycle manager",
        live=False,
    )
    image_transport: str = _setting(
        "raw",
        "colour picture as sensor_msgs/Image, or as CompressedImage on <topic>/compressed",
        choices=("raw", "compressed"),
        live=False,
    )
    depth_transport: str = _setting(
        "raw",
        "depth as sensor_msgs/Image, or as CompressedImage on <topic>/compressed (a plain PNG) or "
        "<topic>/compressedDepth (compressed_depth_image_transport)",
        choices=("raw", "compressed", "compressedDepth"),
        live=False,
    )
    input_reliability: str = _setting(
        "best_effort",
        "QoS of the subscriptions: best_effort hears every publisher; reliable only those that offer "
        "it, but loses no pictures between processes (best-effort megabytes often do not fit)",
        choices=("best_effort", "reliable"),
        live=False,
    )
    sync: str = _setting(
        "approximate",
        "how colour, depth and camera info are put together; exact needs equal stamps",
        choices=("approximate", "exact"),
        live=False,
    )
    queue_size: int = _setting(
        10,
        "messages of each input kept while waiting for their partners",
        unit="messages",
        low=1,
        high=1000,
        live=False,
    )
    slop_s: float = _setting(
        0.04,
        "the stamps of one set differ by less than this; used by sync=approximate (equal stamps: sync=exact)",
        unit="s",
        low=0.001,
        high=10.0,
        live=False,
    )
    object_frame_prefix: str = _setting("", "put before the object's name to make its TF frame")
    publish_tf: bool = _setting(True, "send camera -> object transforms while TRACKING")
    references: str = _setting(
        "", "folder of named references that are set at start (docs/conventions.md); empty for none", live=False
    )
    save_references: bool = _setting(
        False, "write to that folder what ~/set_reference sets, and delete from it what ~/remove_reference removes",
        live=False,
    )
    service_timeout_s: float = _setting(
        10.0,
        "a request the tracker has not finished by then is answered with a failure",
        unit="s",
        low=0.1,
        high=600.0,
    )


    @property
    def references_folder(self) -> Path | None:
        """Of the parameter references."""
        return Path(self.references).expanduser() if self.references else None


def declare_parameters(node: Node) -> RosConfig:
    """Declare every setting on a node made with ``automatically_declare_parameters_from_overrides=True``.

    Returns:
        The settings, start values of launch files and command lines included.

    Raises:
        ConfigError: names every start value of wrong type or range at once; or save_references without a folder.
    """
    defaults = RosConfig()
    tunables = {key: (value, tunable) for key, value, tunable in iterate_tunables(defaults)}
    overrides = {key: parameter.value for key, parameter in node.get_parameters_by_prefix("").items()}
    for key in overrides:
        if key not in tunables and not key.startswith(_ROS_OWN):
            near = difflib.get_close_matches(key, tunables, n=1)
            hint = f"did you mean {near[0]}?" if near else "docs/parameters.md lists every one"
            node.get_logger().warning(f"parameter {key} is unknown and has no effect: {hint}")
    config = replace_values(defaults, {key: value for key, value in overrides.items() if key in tunables})
    if config.save_references and not config.references:
        raise ConfigError("save_references", got="true without a folder", expected="the parameter references set",
                          mend="-p references:=/some/folder")
    for key, value, tunable in iterate_tunables(config):
        if key in overrides:
            node.set_descriptor(key, _descriptor(key, value, tunable))
        else:
            node.declare_parameter(key, value, _descriptor(key, value, tunable))
    return config


def checked_change(
    config: RosConfig, parameters: Sequence[Parameter[Any]]
) -> tuple[RosConfig, SetParametersResult]:
    """What an on-set callback needs: the changed settings, or the old ones and a refusal that says why."""
    known = {key for key, _, _ in iterate_tunables(config)}
    changes = {parameter.name: parameter.value for parameter in parameters if parameter.name in known}
    try:
        return replace_values(config, changes), SetParametersResult(successful=True)
    except ConfigError as error:
        return config, SetParametersResult(successful=False, reason=str(error))


def _descriptor(key: str, value: Any, tunable: Tunable) -> ParameterDescriptor:
    unit = f" [{tunable.unit}]" if tunable.unit else ""
    descriptor = ParameterDescriptor(
        name=key,
        description=f"{tunable.reason}{unit}",
        read_only=not tunable.live,
        # 1 for 1.0 is no reason to refuse a command line: types are checked by replace_values.
        dynamic_typing=True,
    )
    if tunable.choices:
        descriptor.additional_constraints = tunable.allowed()
    if tunable.low is not None and tunable.high is not None:
        if isinstance(value, float):
            limits = FloatingPointRange(from_value=float(tunable.low), to_value=float(tunable.high))
            descriptor.floating_point_range = [limits]
        else:
            descriptor.integer_range = [IntegerRange(from_value=int(tunable.low), to_value=int(tunable.high))]
    return descriptor
