"""Generates and builds the interface packages with rosidl, and mends the ROS wheels' CMake files first."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

Runner = Callable[..., None]
BUILDER_INCLUDE = re.compile(r"/opt/python/cp\d+-cp\d+/include/python3\.\d+")
BUILDER_NUMPY = re.compile(r"/opt/python/cp\d+-cp\d+/lib/python3\.\d+/site-packages/numpy/_core/include")


def python_paths(python: Path) -> tuple[str, str]:
    """The include folders of a Python and of its numpy."""
    code = "import sysconfig, numpy; print(sysconfig.get_paths()['include']); print(numpy.get_include())"
    answer = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    include, numpy_include = answer.stdout.split("\n")[:2]
    return include, numpy_include


def patch_cmake_exports(share: Path, python_include: str, numpy_include: str) -> int:
    """Replace the wheel builder's folders in the exported CMake files; the answer is how many files changed.

    CMake refuses imported targets whose include folders do not exist, and these exist only on the machine
    that built the wheels.
    """
    changed = 0
    for path in sorted(share.glob("*/cmake/*.cmake")):
        text = path.read_text(encoding="utf-8")
        mended = BUILDER_INCLUDE.sub(
            lambda _: python_include, BUILDER_NUMPY.sub(lambda _: numpy_include, text)
        )
        if mended != text:
            part = path.with_suffix(".part")
            part.write_text(mended, encoding="utf-8")
            part.replace(path)  # a kill leaves the old file or the new one
            changed += 1
    return changed


def build_interfaces(packages: Sequence[Path], prefix: Path, python: Path, run: Runner) -> None:
    """Build ament_cmake interface packages and install them together into `prefix`, all or nothing.

    Args:
        packages: folders that hold a package.xml and a CMakeLists.txt.
        prefix: folder to make; what stood there before is replaced once everything is built.
        python: the Python whose extension modules are built.
        run: runs a command, run(command, name) and raises when it fails.
    """
    part = prefix.with_name(prefix.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    for package in packages:
        build = part / "build" / package.name
        run(
            [
                "cmake",
                "-GNinja",
                "-S",
                package,
                "-B",
                build,
                f"-DCMAKE_INSTALL_PREFIX={part / 'install'}",
                f"-DPython3_EXECUTABLE={python}",
                "-DPython3_FIND_VIRTUALENV=FIRST",
                "-DBUILD_TESTING=OFF",
            ],
            f"{package.name}-configure",
        )
        run(["cmake", "--build", build, "--target", "install"], f"{package.name}-build")
    (part / "install").mkdir(parents=True, exist_ok=True)
    if prefix.exists():
        prefix.replace(part / "old")
    (part / "install").replace(prefix)
    shutil.rmtree(part, ignore_errors=True)
