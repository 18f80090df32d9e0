"""Starts the tracker for one camera: ``ros2 launch nocsfm_ros tracker.launch.py image_topic:=...``."""

from launch.actions import DeclareLaunchArgument
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

_SHARE = FindPackageShare("nocsfm_ros")
_ARGUMENTS = (
    (
        "params_file",
        PathJoinSubstitution([_SHARE, "config", "tracker.yaml"]),
        "YAML of parameters (docs/parameters.md)",
    ),
    ("namespace", "", "namespace of the node: one each for several cameras"),
    ("device", "auto", "where torch runs: auto, cpu or cuda; wins over params_file"),
    ("image_topic", "rgb/image_rect_color", "rectified colour picture (sensor_msgs/Image)"),
    (
        "depth_topic",
        "depth_registered/image_rect",
        "depth registered to the colour picture (sensor_msgs/Image)",
    ),
    ("info_topic", "rgb/camera_info", "camera info of the colour picture"),
    ("use_sim_time", "false", "take the time from /clock"),
    ("rviz", "false", "open RViz with config/tracker.rviz"),
    (
        "fixed_frame",
        "camera_color_optical_frame",
        "RViz's fixed frame: header.frame_id of the colour picture",
    ),
)


def generate_launch_description() -> LaunchDescription:
    """The tracker, and RViz if wanted. The node walks to the active state by itself (parameter autostart)."""
    value = LaunchConfiguration
    use_sim_time = {"use_sim_time": ParameterValue(value("use_sim_time"), value_type=bool)}
    tracker = Node(
        package="nocsfm_ros",
        executable="tracker_node",
        name="nocsfm_tracker",
        namespace=value("namespace"),
        output="screen",
        emulate_tty=True,
        parameters=[
            value("params_file"),
            use_sim_time,
            {"model.device": ParameterValue(value("device"), value_type=str)},
        ],
        remappings=[
            ("rgb/image_rect_color", value("image_topic")),
            ("depth_registered/image_rect", value("depth_topic")),
            ("rgb/camera_info", value("info_topic")),
        ],
    )
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        name="rviz",
        namespace=value("namespace"),
        output="log",
        parameters=[use_sim_time],
        condition=IfCondition(value("rviz")),
        arguments=[
            "-d",
            PathJoinSubstitution([_SHARE, "config", "tracker.rviz"]),
            "-f",
            value("fixed_frame"),
        ],
    )
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, default, text in _ARGUMENTS
    ]
    return LaunchDescription([*arguments, tracker, rviz])
