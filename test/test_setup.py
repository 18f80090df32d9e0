"""The set-up: what it decides, what it says when something is missing, and how it resumes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import bootstrap
import environment
import failure
import interfaces
import packages
import pytest

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = (ROOT / "requirements.txt").read_text()


# --- requirements


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
def test_requirements_pin_each_package_once_on_every_python(version: str) -> None:
    names = []
    for line in environment.read_sections(REQUIREMENTS).values():
        for requirement in line:
            pin = re.fullmatch(r'([\w.-]+)==[\w.]+(?:; python_version (>=|<) "3.11")?', requirement)
            assert pin, requirement
            if pin[2] is None or (pin[2] == "<") == (version == "3.10"):
                names.append(pin[1].lower().replace("_", "-"))
    assert sorted(names) == sorted(set(names))


def test_requirements_with_wheels_take_every_section() -> None:
    chosen = environment.choose_requirements(REQUIREMENTS, None)
    assert any(line.startswith("ros-rclpy==") for line in chosen["ros"])
    assert set(chosen["torch"] + chosen["python"] + chosen["ros"]) <= set(chosen["constraints"])


def test_requirements_beside_a_distribution_leave_its_packages_alone() -> None:
    chosen = environment.choose_requirements(
        REQUIREMENTS, {"numpy": "1.26.4", "opencv-python-headless": "4.6.0"}
    )
    asked = chosen["torch"] + chosen["python"]
    assert "ros" not in chosen
    assert not [line for line in asked if re.match(r"numpy|opencv|ros-", line)]
    assert [line for line in chosen["constraints"] if line.startswith("numpy==")] == ["numpy==1.26.4"]
    assert any(line.startswith("scipy==") for line in asked)


# --- where ROS comes from


def test_source_without_distribution_is_the_wheels() -> None:
    assert environment.uses_distribution({}, lambda name: True) is False


def test_source_with_distribution_is_the_distribution() -> None:
    assert environment.uses_distribution({"ROS_DISTRO": "jazzy"}, lambda name: name == "rclpy") is True


def test_source_with_distribution_of_another_python_tells_so() -> None:
    with pytest.raises(failure.SetupError, match=r"jazzy.*unset ROS_DISTRO"):
        environment.uses_distribution({"ROS_DISTRO": "jazzy"}, lambda name: False)


def test_source_of_an_imitated_distribution_is_found_by_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("rclpy", "tf2_ros"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("__version__ = '1'\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("ROS_DISTRO", "imitated")
    monkeypatch.delenv("_ROS_WHEELS_BOOTSTRAP_COMPLETE", raising=False)
    assert environment.uses_distribution(os.environ, bootstrap.can_import)
    assert "tf2_ros" not in environment.missing_standins(bootstrap.can_import, environment.STANDINS)


def test_every_standin_is_offered_where_its_package_is_missing() -> None:
    folders = {path.parent.name for path in (ROOT / "standins").glob("*/CMakeLists.txt")}
    modules = {path.parent.name for path in (ROOT / "standins" / "python").glob("*/__init__.py")}
    nothing = environment.missing_standins(lambda name: False, environment.MESSAGE_STANDINS)
    assert set(nothing) == folders and set(environment.STANDINS) == modules


def test_environment_with_a_distribution_keeps_its_prefixes_behind_the_messages(tmp_path: Path) -> None:
    script = environment.environment_script(tmp_path, Path("lib/python3.12/site-packages"), [], wheels=False)
    answer = subprocess.run(
        ["bash", "-c", script + 'echo "$AMENT_PREFIX_PATH"'],
        capture_output=True,
        text=True,
        check=True,
        env={"AMENT_PREFIX_PATH": "/opt/ros/x", "PATH": os.environ["PATH"]},
    )
    assert answer.stdout.strip() == f"{tmp_path}/.build/interfaces:/opt/ros/x"
    assert "RMW_IMPLEMENTATION" not in script


def test_environment_of_a_folder_with_blanks_and_quotes_is_quoted(tmp_path: Path) -> None:
    root = tmp_path / "it's a $HOME"
    script = environment.environment_script(root, Path("lib/p"), [], wheels=True)
    answer = subprocess.run(
        ["bash", "-c", script + 'echo "$VIRTUAL_ENV"; echo "$PYTHONPATH"'],
        check=True,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"]},
    )
    assert answer.stdout.splitlines()[0] == f"{root}/.venv"
    assert answer.stdout.splitlines()[1].startswith(f"{root}:")


# --- what is missing


@pytest.mark.parametrize(
    ("version", "machine"), [((3, 9), "x86_64"), ((3, 14), "x86_64"), ((3, 11), "aarch64")]
)
def test_check_python_outside_the_range_stops(version: tuple[int, int], machine: str) -> None:
    with pytest.raises(failure.SetupError, match=r"ROS 2 wheels"):
        failure.check_python(version, "Linux", machine)


def test_check_compiler_without_one_stops(tmp_path: Path) -> None:
    with pytest.raises(failure.SetupError, match=r"No C compiler.*build-essential"):
        failure.check_compiler({"PATH": str(tmp_path)})


def test_check_headers_without_python_h_stops(tmp_path: Path) -> None:
    with pytest.raises(failure.SetupError, match=r"Python\.h is missing.*-dev"):
        failure.check_headers(tmp_path)


def test_check_disk_too_small_stops() -> None:
    failure.check_disk(6.1, 6.0)
    with pytest.raises(failure.SetupError, match=r"2\.0 GB .* 6 GB are needed"):
        failure.check_disk(2.0, 6.0)


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (
            "ERROR: Could not find a version that satisfies the requirement foo==9 (from versions: 1)\n"
            "ERROR: No matching distribution found for foo==9\n",
            "foo==9",
        ),
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n",
            "disk ran full",
        ),
        (
            "Collecting torch==2\nWARNING: Retrying after NewConnectionError: name resolution failed\n"
            "ERROR: Could not install packages\n",
            "torch==2: the package index could not be reached",
        ),
    ],
)
def test_explain_pip_names_the_package_and_the_log(log: str, words: str) -> None:
    text = str(packages.explain_pip(log, Path("pip.log")))
    assert words in text
    assert "pip.log" in text
    assert "same command again" in text


# --- resuming


def test_drop_unfinished_forgets_half_installed_packages_only(tmp_path: Path) -> None:
    for name, record in (("whole", "whole/a.py,,\n"), ("torn", "torn/a.py,,\n"), ("cut", None)):
        (tmp_path / f"{name}-1.dist-info").mkdir()
        if record:
            (tmp_path / f"{name}-1.dist-info/RECORD").write_text(record)
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole/a.py").touch()
    (tmp_path / "~orch").mkdir()
    assert packages.drop_unfinished(tmp_path) == ["cut-1.dist-info", "torn-1.dist-info"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["whole", "whole-1.dist-info"]


def test_is_usable_of_a_half_made_environment_is_false(tmp_path: Path) -> None:
    assert not packages.is_usable(tmp_path, sys.version_info[:2], False)
    (tmp_path / "pyvenv.cfg").write_text(
        f"version = {sys.version_info[0]}.{sys.version_info[1]}.0\ninclude-system-site-packages = false\n"
    )
    assert not packages.is_usable(tmp_path, sys.version_info[:2], False)


def test_patch_cmake_exports_replaces_the_builders_folders_once(tmp_path: Path) -> None:
    path = tmp_path / "x_msgs/cmake/xExport.cmake"
    path.parent.mkdir(parents=True)
    path.write_text(
        '"/opt/python/cp312-cp312/include/python3.12;'
        '/opt/python/cp312-cp312/lib/python3.12/site-packages/numpy/_core/include"'
    )
    assert interfaces.patch_cmake_exports(tmp_path, "/inc", "/np\\1") == 1
    assert path.read_text() == '"/inc;/np\\1"'
    assert interfaces.patch_cmake_exports(tmp_path, "/inc", "/np\\1") == 0


def test_leave_own_environment_keeps_foreign_folders() -> None:
    environ = {
        "PATH": f"{ROOT}/.venv/bin:/usr/bin",
        "PYTHONPATH": f"{ROOT}:{ROOT}/.build/standins:/mine",
        "AMENT_PREFIX_PATH": f"{ROOT}/.venv:/opt/ros/x",
    }
    bootstrap.leave_own_environment(environ)
    assert environ == {"PATH": "/usr/bin", "PYTHONPATH": "/mine", "AMENT_PREFIX_PATH": "/opt/ros/x"}
