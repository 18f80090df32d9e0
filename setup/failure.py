"""The one error of the set-up, and what a machine must have before anything is installed."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import sysconfig
from pathlib import Path

PYTHON_RANGE = ((3, 10), (3, 13))
DISK_GB = 6.0


class SetupError(Exception):
    """The set-up cannot go on; the message says what is wrong and what mends it."""


def check_machine(root: Path, installed: bool) -> None:
    """Stop before the first download when something is missing that pip cannot bring.

    Raises:
        SetupError: with the one thing to mend.
    """
    check_python(sys.version_info[:2], platform.system(), platform.machine())
    check_venv()
    check_compiler(dict(os.environ))
    check_headers(Path(sysconfig.get_paths()["include"]))
    check_disk(shutil.disk_usage(root).free / 1e9, 1.0 if installed else DISK_GB)


def check_python(version: tuple[int, ...], system: str, machine: str) -> None:
    """CPython 3.10-3.13 on x86-64 Linux: nothing else has ROS 2 wheels."""
    if (system, machine) != ("Linux", "x86_64"):
        raise SetupError(
            f"This is {system} on {machine}; the ROS 2 wheels exist for Linux on x86-64 only. "
            "Source a ROS 2 distribution there and build with colcon (README)."
        )
    if not PYTHON_RANGE[0] <= version <= PYTHON_RANGE[1]:
        raise SetupError(
            f"This is Python {version[0]}.{version[1]}; the ROS 2 wheels need CPython 3.10 to 3.13. "
            "Install one of them, for example: sudo apt-get install python3.11 python3.11-venv "
            "python3.11-dev"
        )


def check_venv() -> None:
    """The module venv, and ensurepip, which Debian and Ubuntu keep in a package of its own."""
    if not all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")):
        raise SetupError(
            f"{sys.executable} cannot make virtual environments: its module venv is not installed. "
            f"Install it: sudo apt-get install {_apt('venv')}"
        )


def check_compiler(environ: dict[str, str]) -> None:
    """A C and a C++ compiler: rosidl compiles the project's messages."""
    for variable, names in (("CC", ("cc", "gcc", "clang")), ("CXX", ("c++", "g++", "clang++"))):
        wanted = environ.get(variable, "").split()[:1] or names
        if not any(shutil.which(name, path=environ.get("PATH")) for name in wanted):
            raise SetupError(
                f"No {'C' if variable == 'CC' else 'C++'} compiler was found (looked for "
                f"{', '.join(wanted)}): the project's ROS messages are compiled here. "
                "Install one: sudo apt-get install build-essential"
            )


def check_headers(include: Path) -> None:
    """Python.h: the messages become extension modules."""
    if not (include / "Python.h").is_file():
        raise SetupError(
            f"{include / 'Python.h'} is missing: the project's ROS messages are compiled against it. "
            f"Install it: sudo apt-get install {_apt('dev')}"
        )


def check_disk(free_gb: float, needed_gb: float) -> None:
    """Room for what comes; PyTorch is most of it."""
    if free_gb < needed_gb:
        raise SetupError(
            f"{free_gb:.1f} GB of disk space are free here and {needed_gb:.0f} GB are needed, "
            "most of it for PyTorch. Make room, or put the repository on a larger disk."
        )


def _apt(suffix: str) -> str:
    return f"python{sys.version_info[0]}.{sys.version_info[1]}-{suffix}"
