"""Starts the tracker for one camera: ``ros2 launch nocsfm_ros tracker.launch.py image_topic:=...``.

``demo:=true`` needs no camera: it plays the embedded sequence again and again and sets its reference.
"""

from importlib.resources import files
from pathlib import Path
from typing import Any

from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription

_SHARE = FindPackageShare("nocsfm_ros")
_DEMO = Path(str(files("nocsfm_ros"))) / "demo_data"
_RECORDED = {
    "image_topic": "/camera/rgb/image_rect_color",
    "depth_topic": "/camera/depth_registered/image_rect",
    "info_topic": "/camera/rgb/camera_info",
}
# Best effort loses megabyte pictures between processes; the reference is sent while the weights still load.
_DEMO_PARAMETERS = {"input_reliability": "reliable", "service_timeout_s": 120.0}
_ARGUMENTS = (
    (
        "params_file",
        PathJoinSubstitution([_SHARE, "config", "tracker.yaml"]),
        "YAML of parameters (docs/parameters.md)",
    ),
    ("namespace", "", "namespace of the node: one each for several cameras"),
    ("device", "", "where torch runs: auto, cpu or cuda; wins over params_file"),
    ("image_topic", "rgb/image_rect_color", "rectified colour picture (sensor_msgs/Image)"),
    (
        "depth_topic",
        "depth_registered/image_rect",
        "depth registered to the colour picture (sensor_msgs/Image)",
    ),
    ("info_topic", "rgb/camera_info", "camera info of the colour picture"),
    ("use_sim_time", "", "true takes the time from /clock; wins over params_file"),
    ("demo", "false", "play the embedded sequence on the input topics and set its reference"),
    ("rviz", "false", "open RViz with config/tracker.rviz"),
    (
        "fixed_frame",
        "camera_color_optical_frame",
        "RViz's fixed frame: header.frame_id of the colour picture",
    ),
)


def generate_launch_description() -> LaunchDescription:
    """The tracker, and RViz if wanted. The node walks to the active state by itself (parameter autostart)."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, default, text in _ARGUMENTS
    ]
    tracker, rviz = OpaqueFunction(function=_tracker), OpaqueFunction(function=_rviz)
    return LaunchDescription([*arguments, tracker, _player(), _reference(), rviz])


def _tracker(context: LaunchContext) -> list[Node]:
    value = LaunchConfiguration
    given = _sim_time(context)
    if device := value("device").perform(context):
        given["model.device"] = device
    if IfCondition(value("demo")).evaluate(context):
        given |= _DEMO_PARAMETERS
    tracker = Node(
        package="nocsfm_ros",
        executable="tracker_node",
        name="nocsfm_tracker",
        namespace=value("namespace"),
        output="screen",
        emulate_tty=True,
        parameters=[value("params_file"), *([given] if given else [])],
        remappings=[
            ("rgb/image_rect_color", value("image_topic")),
            ("depth_registered/image_rect", value("depth_topic")),
            ("rgb/camera_info", value("info_topic")),
        ],
    )
    return [tracker]


def _player() -> Node:
    """Plays where the tracker listens, from when it listens."""
    waited = [f"{topic}=1" for topic in _RECORDED.values()]
    return Node(
        package="nocsfm_ros",
        executable="player",
        namespace=LaunchConfiguration("namespace"),
        output="log",
        condition=IfCondition(LaunchConfiguration("demo")),
        arguments=[
            str(_DEMO / "sequence"),
            "--loop",
            "--timeout",
            "300",
            "--wait-for-subscribers",
            *waited,
        ],
        remappings=[(topic, LaunchConfiguration(name)) for name, topic in _RECORDED.items()],
    )


def _reference() -> Node:
    """Sets the reference once, and ends."""
    options = {"--mask": "mask.png", "--depth": "depth.png", "--camera": "camera.json", "--pose": "pose.json"}
    given = [part for option, end in options.items() for part in (option, str(_DEMO / f"reference_{end}"))]
    return Node(
        package="nocsfm_ros",
        executable="set_reference",
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        condition=IfCondition(LaunchConfiguration("demo")),
        arguments=[
            str(_DEMO / "reference.png"),
            *given,
            *("--id", "object", "--node", "nocsfm_tracker", "--timeout", "120"),
        ],
    )


def _rviz(context: LaunchContext) -> list[Node]:
    given = _sim_time(context)
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        name="rviz",
        namespace=LaunchConfiguration("namespace"),
        output="log",
        parameters=[given] if given else [],
        condition=IfCondition(LaunchConfiguration("rviz")),
        arguments=[
            "-d",
            PathJoinSubstitution([_SHARE, "config", "tracker.rviz"]),
            "-f",
            LaunchConfiguration("fixed_frame"),
        ],
    )
    return [rviz]


def _sim_time(context: LaunchContext) -> dict[str, Any]:
    """The parameter, where the argument is given: else params_file decides."""
    given = LaunchConfiguration("use_sim_time")
    return {"use_sim_time": IfCondition(given).evaluate(context)} if given.perform(context) else {}
