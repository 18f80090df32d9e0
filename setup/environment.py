"""Decides where ROS 2 comes from, which packages pip installs, and what the environment looks like."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path

from failure import SetupError

SECTIONS = ("torch", "python", "ros")
# What a distribution brings itself, built against each other: replacing one of them breaks cv_bridge and the
# messages' extension modules, so pip leaves those alone that can be imported. Package name -> import name.
FROM_DISTRIBUTION = {
    "numpy": "numpy",
    "scipy": "scipy",
    "matplotlib": "matplotlib",
    "PyYAML": "yaml",
    "opencv-python-headless": "cv2",
}
STANDINS = ("cv_bridge", "message_filters", "tf2_ros")
MESSAGE_STANDINS = ("tf2_msgs", "vision_msgs")


def uses_distribution(environ: Mapping[str, str], can_import: Callable[[str], bool]) -> bool:
    """Whether ROS 2 comes from a sourced distribution (else from wheels).

    Raises:
        SetupError: a distribution is sourced, but the Python at hand is not the one it was built for.
    """
    distro = environ.get("ROS_DISTRO", "")
    if distro and not can_import("rclpy"):
        raise SetupError(
            f"ROS_DISTRO={distro} is set, but no Python 3.10-3.13 found here can import rclpy. Source "
            f"/opt/ros/{distro}/setup.bash completely (its Python must come first on PATH), or unset "
            "ROS_DISTRO to use the ROS 2 wheels."
        )
    return bool(distro)


def read_sections(text: str) -> dict[str, list[str]]:
    """requirements.txt by its '# [name]' headings."""
    sections: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        heading = re.fullmatch(r"# \[(\w+)\]", line)
        if heading:
            name = heading[1]
            sections[name] = []
        elif line and not line.startswith("#"):
            sections[name].append(line)
    return sections


def choose_requirements(text: str, distribution_versions: Mapping[str, str] | None) -> dict[str, list[str]]:
    """The lines pip gets, by section, and under 'constraints' all that bounds them.

    Args:
        text: requirements.txt.
        distribution_versions: None when ROS 2 comes from wheels; else the version of every package of
            FROM_DISTRIBUTION that the distribution's Python can import.
    """
    sections = read_sections(text)
    if distribution_versions is None:
        return {**{name: sections[name] for name in SECTIONS}, "constraints": list(chain(*sections.values()))}
    kept = {
        name: [line for line in sections[name] if _name(line) not in distribution_versions]
        for name in SECTIONS
        if name != "ros"
    }
    fixed = [f"numpy=={version}" for name, version in distribution_versions.items() if name == "numpy"]
    return {**kept, "constraints": [*chain(*kept.values()), *sections["locked"], *fixed]}


def missing_standins(can_import: Callable[[str], bool], names: Sequence[str]) -> list[str]:
    """The stand-ins of these names, those whose real package is there left out."""
    return [name for name in names if not can_import(name)]


def environment_script(root: Path, site_packages: Path, libraries: Sequence[Path], wheels: bool) -> str:
    """The shell lines that make everything importable; sourced by ./run before a command.

    Args:
        root: the repository.
        site_packages: the folder below the built interfaces' prefix, or the environment's own, relative.
        libraries: folders with shared libraries that the wheels bring outside lib/.
        wheels: ROS 2 comes from wheels, so that the environment itself is the ROS prefix.
    """
    venv, interfaces = root / ".venv", root / ".build" / "interfaces"
    prefixes = [interfaces, venv] if wheels else [interfaces]
    values = {
        "PATH": [venv / "bin"],
        "AMENT_PREFIX_PATH": prefixes,
        "CMAKE_PREFIX_PATH": prefixes,
        "LD_LIBRARY_PATH": [interfaces / "lib", *([venv / "lib", *libraries] if wheels else [])],
        "PYTHONPATH": [root, interfaces / site_packages, root / ".build" / "standins"],
    }
    lines = [f"export VIRTUAL_ENV={shlex.quote(str(venv))}"]
    for name, folders in values.items():
        joined = shlex.quote(":".join(map(str, folders)))
        lines.append(f'export {name}={joined}"${{{name}:+:${name}}}"')
    if wheels:
        # The wheels' start hook would run Python once more to set LD_LIBRARY_PATH, which is done here.
        lines += ["export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1", "export RMW_IMPLEMENTATION=rmw_fastrtps_cpp"]
    return "\n".join(lines) + "\n"


def _name(line: str) -> str:
    return re.split(r"[=<>;\s]", line)[0]
