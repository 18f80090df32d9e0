"""``ros2 run nocsfm_ros set_reference mug.png``: gives the node the picture of an object."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
from nocsfm_msgs.srv import SetReference
from numpy.typing import NDArray
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CameraInfo, RegionOfInterest
from std_msgs.msg import Header

from nocsfm_ros.errors import ConfigError
from nocsfm_ros.ros.outputs import image_msg, pose_from_T


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
    parser.add_argument("--depth", type=Path, help="16-bit PNG, millimetres, registered to the picture")
    parser.add_argument("--camera", type=Path, help='JSON {"width", "height", "K": [9 numbers]}')
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
    """Read the files.

    Raises:
        ConfigError: names the file that is missing or holds something else.
    """
    request = SetReference.Request(object_id=arguments.id)
    if arguments.image is not None:
        request.object_id = arguments.id or arguments.image.stem
        picture = _read(arguments.image, cv2.IMREAD_UNCHANGED)
        if picture.dtype != np.uint8:
            raise ConfigError(f"picture {arguments.image}", got=picture.dtype, expected="8 bits per channel")
        if (
            picture.ndim == 3
            and picture.shape[2] == 4
            and arguments.mask is None
            and (picture[..., 3] < 128).any()
        ):
            request.mask = image_msg(
                np.where(picture[..., 3] >= 128, 255, 0).astype(np.uint8), "mono8", Header()
            )
        encodings = {1: "mono8", 3: "bgr8", 4: "bgra8"}
        request.image = image_msg(picture, encodings[1 if picture.ndim == 2 else picture.shape[2]], Header())
    if arguments.mask is not None:
        mask = _read(arguments.mask, cv2.IMREAD_GRAYSCALE)
        request.mask = image_msg(np.where(mask > 0, 255, 0).astype(np.uint8), "mono8", Header())
    if arguments.depth is not None:
        depth = _read(arguments.depth, cv2.IMREAD_UNCHANGED)
        if depth.dtype != np.uint16 or depth.ndim != 2:
            raise ConfigError(
                f"depth {arguments.depth}",
                got=f"{depth.dtype} {depth.shape}",
                expected="one 16-bit channel, millimetres",
            )
        request.depth = image_msg(depth, "16UC1", Header())
    if arguments.roi is not None:
        request.roi = arguments.roi
    if arguments.camera is not None:
        request.camera_info = _camera_info(arguments.camera)
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
    except ConfigError as error:
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


def _read(path: Path, flags: int) -> NDArray[Any]:
    picture = cv2.imread(str(path), flags) if path.is_file() else None
    if picture is None:
        raise ConfigError(f"picture {path}", got="no readable file", expected="a PNG or JPEG")
    return np.asarray(picture)


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


def _camera_info(path: Path) -> CameraInfo:
    width, height = (int(_numbers(path, key, 1)[0]) for key in ("width", "height"))
    return CameraInfo(width=width, height=height, k=_numbers(path, "K", 9).tolist())


if __name__ == "__main__":
    sys.exit(main())
