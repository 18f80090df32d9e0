"""``ros2 run nocsfm_ros set_reference mug.png``: gives the node the picture of an object."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from nocsfm_msgs.srv import SetReference
from numpy.typing import NDArray
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CameraInfo, Image, RegionOfInterest
from std_msgs.msg import Header

from nocsfm_ros.data.pictures import MILLIMETRE, read_camera, read_depth_m, read_labels, read_rgb_or_rgba
from nocsfm_ros.errors import ConfigError, NocsfmError
from nocsfm_ros.ros.outputs import image_msg, pose_from_T
from nocsfm_ros.types import BoolArray


def parse_arguments(args: list[str]) -> argparse.Namespace:
    """The command line, ROS arguments removed."""
    parser = argparse.ArgumentParser(prog="set_reference", description=__doc__)
    parser.add_argument(
        "image",
        nargs="?",
        type=Path,
        help="picture of the object; without it the node takes its newest live frame",
    )
    parser.add_argument("--mask", type=Path, help="picture of the same size: over 0 on the object")
    parser.add_argument("--roi", type=_roi, metavar="X,Y,W,H", help="box around the object, pixels")
    parser.add_argument("--id", default="", help="name of the object (default: the picture's file name)")
    parser.add_argument(
        "--depth", type=Path, help="16-bit PNG registered to the picture; millimetres, or the camera file's depth_scale"
    )
    parser.add_argument(
        "--camera", type=Path, help='JSON {"K": [9 numbers]} or fx, fy, cx, cy; optional "depth_scale" in metres'
    )
    parser.add_argument(
        "--pose", type=Path, help='JSON {"T_cam_obj": [16 numbers row-major]}: your own object frame'
    )
    parser.add_argument(
        "--node", default="/nocsfm_tracker", help="full name of the node (default: %(default)s)"
    )
    parser.add_argument(
        "--timeout", type=float, default=20.0, help="seconds until giving up (default: %(default)s)"
    )
    return parser.parse_args(args)


def request_from_arguments(arguments: argparse.Namespace) -> SetReference.Request:
    """Read the files, as `nocsfm track` and the folder of saved references do.

    Raises:
        NocsfmError: names the file that is missing or holds something else.
    """
    request = SetReference.Request(object_id=arguments.id)
    width, height = 0, 0
    if arguments.image is not None:
        request.object_id = arguments.id or arguments.image.stem
        picture = read_rgb_or_rgba(arguments.image)
        height, width, channels = picture.shape
        request.image = image_msg(picture, "rgb8" if channels == 3 else "rgba8", Header())
        if channels == 4 and arguments.mask is None and (picture[..., 3] < 128).any():
            request.mask = _mask_msg(picture[..., 3] >= 128)
    if arguments.mask is not None:
        request.mask = _mask_msg(read_labels(arguments.mask) > 0)
    metres_per_unit = MILLIMETRE
    if arguments.camera is not None:
        K, metres_per_unit = read_camera(arguments.camera)
        request.camera_info = CameraInfo(width=width, height=height, k=K.ravel().tolist())
    if arguments.depth is not None:
        request.depth = image_msg(read_depth_m(arguments.depth, metres_per_unit), "32FC1", Header())
    if arguments.roi is not None:
        request.roi = arguments.roi
    if arguments.pose is not None:
        request.has_object_pose = True
        request.object_pose = pose_from_T(_numbers(arguments.pose, "T_cam_obj", 16).reshape(4, 4))
    return request


def call(request: SetReference.Request, node_name: str, timeout_s: float) -> SetReference.Response:
    """Call the service; rclpy must be initialised.

    Raises:
        ConfigError: no such service, or no answer in time.
    """
    node = rclpy.create_node("set_reference")
    try:
        service = f"{node_name.rstrip('/')}/set_reference"
        client: Any = node.create_client(SetReference, service)
        if not client.wait_for_service(timeout_s):
            raise ConfigError(
                f"service {service}",
                got="nothing offers it",
                expected=f"it within {timeout_s:g} s",
                mend="Start the node, give its name with --node, check ROS_DOMAIN_ID",
            )
        future = client.call_async(request)
        rclpy.spin_until_future_complete(node, future, timeout_sec=timeout_s)
        response = future.result() if future.done() else None
        if response is None:
            raise ConfigError(
                f"service {service}",
                got="no answer",
                expected=f"one within {timeout_s:g} s",
                mend="Look at the node's log and at /diagnostics",
            )
        return response
    finally:
        node.destroy_node()


def main(args: list[str] | None = None) -> int:
    """0 when the node took the reference, else 1 and the reason on stderr."""
    arguments = parse_arguments(remove_ros_args(args if args is not None else sys.argv)[1:])
    try:
        request = request_from_arguments(arguments)
        rclpy.init(args=args)
        try:
            response = call(request, arguments.node, arguments.timeout)
        finally:
            rclpy.try_shutdown()
    except NocsfmError as error:
        sys.stderr.write(f"set_reference: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    (sys.stdout if response.success else sys.stderr).write(f"{response.message}\n")
    return 0 if response.success else 1


def _roi(text: str) -> RegionOfInterest:
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not X,Y,W,H in whole pixels") from error
    if min(x, y, width - 1, height - 1) < 0:
        raise argparse.ArgumentTypeError(f"{text!r}: X, Y must be 0 or more, W, H 1 or more")
    return RegionOfInterest(x_offset=x, y_offset=y, width=width, height=height)


def _mask_msg(mask: BoolArray) -> Image:
    return image_msg(np.where(mask, 255, 0).astype(np.uint8), "mono8", Header())


def _numbers(path: Path, key: str, count: int) -> NDArray[np.float64]:
    try:
        numbers = np.array(json.loads(path.read_text(encoding="utf-8"))[key], dtype=np.float64).ravel()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"file {path}", got=error, expected=f'JSON with "{key}": {count} numbers'
        ) from error
    if numbers.size != count:
        raise ConfigError(f'"{key}" in {path}', got=f"{numbers.size} numbers", expected=count)
    return numbers


if __name__ == "__main__":
    sys.exit(main())
