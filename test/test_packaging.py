"""The packages: one version, complete manifests, and colcon builds them in every layout."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def manifest(folder: Path = ROOT) -> ElementTree.Element:
    return ElementTree.parse(folder / "package.xml").getroot()


def imported_packages(folder: str) -> set[str]:
    """Top-level names that the Python files below a folder import."""
    names = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    return names


# --- packages


def test_version_of_both_packages_is_one() -> None:
    assert manifest().findtext("version") == manifest(ROOT / "msg").findtext("version")


def test_setup_py_version_is_the_manifests() -> None:
    answer = subprocess.run(
        [sys.executable, "setup.py", "--version"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert answer.stdout.split()[-1] == manifest().findtext("version")


def test_manifest_lists_every_ros_package_the_code_imports() -> None:
    listed = {element.text for tag in ("depend", "exec_depend") for element in manifest().findall(tag)}
    imported = imported_packages("nocsfm_ros") | imported_packages("launch")
    ros = {name for name in imported if name.endswith(("_msgs", "_srvs", "_interfaces"))}
    ros |= imported & {"rclpy", "cv_bridge", "message_filters", "tf2_ros", "launch", "launch_ros"}
    assert ros - {"vision_msgs"} <= listed


def test_messages_manifest_lists_what_the_definitions_use() -> None:
    listed = {element.text for element in manifest(ROOT / "msg").findall("depend")}
    text = "\n".join(path.read_text() for path in (ROOT / "msg").glob("*/*.*"))
    assert set(re.findall(r"^(\w+_msgs)/", text, re.MULTILINE)) == listed


def test_cmake_generates_every_definition() -> None:
    named = set(
        re.findall(r"^\s+((?:msg|srv)/\S+)$", (ROOT / "msg/CMakeLists.txt").read_text(), re.MULTILINE)
    )
    assert named == {str(path.relative_to(ROOT / "msg")) for path in (ROOT / "msg").glob("*/*.*")}


def test_console_scripts_point_to_functions_that_exist() -> None:
    for _, module, function in re.findall(
        r'"(\w+) = \{NAME\}\.([\w.]+):(\w+)"', (ROOT / "setup.py").read_text()
    ):
        tree = ast.parse((ROOT / "nocsfm_ros" / (module.replace(".", "/") + ".py")).read_text())
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, module


def test_launch_file_starts_only_executables_that_are_installed() -> None:
    installed = set(re.findall(r'"(\w+) = \{NAME\}', (ROOT / "setup.py").read_text()))
    launch = (ROOT / "launch/tracker.launch.py").read_text()
    started = set(re.findall(r'package="nocsfm_ros",\s+executable="(\w+)"', launch))
    assert started and started <= installed


# --- colcon, for real


def workspace(tmp_path: Path) -> Path:
    """A workspace with a copy of the repository, as git would clone it."""
    target = tmp_path / "src" / "nocsfm_ros"
    shutil.copytree(
        ROOT,
        target,
        ignore=shutil.ignore_patterns(
            ".venv",
            ".build",
            ".git",
            "build",
            "install",
            "log",
            "out",
            "data",
            "runs",
            "weights",
            "demo_data",
            "__pycache__",
            ".*_cache",
        ),
    )
    return tmp_path


@pytest.mark.colcon
@pytest.mark.skipif(shutil.which("colcon") is None, reason="colcon is not installed")
@pytest.mark.parametrize(
    ("base", "arguments"),
    [
        ("src/nocsfm_ros", []),
        (".", ["--base-paths", "src", "src/nocsfm_ros/msg"]),
        (".", "symlink"),
    ],
)
def test_colcon_list_finds_just_the_two_packages(
    tmp_path: Path, base: str, arguments: list[str] | str
) -> None:
    root = workspace(tmp_path)
    if arguments == "symlink":
        (root / "src/nocsfm_msgs").symlink_to("nocsfm_ros/msg")
        arguments = []
    answer = subprocess.run(
        ["colcon", "list", "--names-only", *arguments],
        cwd=root / base,
        check=True,
        capture_output=True,
        text=True,
    )
    assert sorted(answer.stdout.split()) == ["nocsfm_msgs", "nocsfm_ros"]


@pytest.mark.colcon
@pytest.mark.skipif(shutil.which("colcon") is None, reason="colcon is not installed")
@pytest.mark.skipif(importlib.util.find_spec("rclpy") is None, reason="ROS 2 is not installed")
def test_colcon_build_in_a_workspace_installs_the_commands(tmp_path: Path) -> None:
    root = workspace(tmp_path)
    subprocess.run(
        [
            "colcon",
            "build",
            "--base-paths",
            "src",
            "src/nocsfm_ros/msg",
            "--cmake-args",
            "-GNinja",
            "-DBUILD_TESTING=OFF",
        ],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    )
    command = (
        "source install/setup.bash && cd install/nocsfm_ros/lib/nocsfm_ros && "
        "test -x tracker_node -a -x set_reference -a -x player && "
        'python3 -c "import nocsfm_msgs, nocsfm_ros; print(nocsfm_msgs.__file__, nocsfm_ros.__file__)"'
    )
    environ = {**os.environ, "PYTHONPATH": ""}
    answer = subprocess.run(
        ["bash", "-c", command], cwd=root, check=True, capture_output=True, text=True, env=environ
    )
    assert answer.stdout.count(str(root / "install")) == 2
    share = root / "install/nocsfm_ros/share/nocsfm_ros"
    assert (share / "launch/tracker.launch.py").is_file()
    assert (share / "config/tracker.yaml").is_file()
    assert not (root / "install/tf2_msgs").exists() and not (root / "install/vision_msgs").exists()
