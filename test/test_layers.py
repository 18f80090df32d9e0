"""The house rules that imports and sizes can show: layers, ROS only in ros/, short files and functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "nocsfm_ros"
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_FILE_LINES, MAX_FUNCTION_LINES = 400, 60
ROS_PACKAGES = {
    "rclpy", "cv_bridge", "message_filters", "tf2_ros", "tf2_msgs", "std_msgs", "std_srvs", "sensor_msgs",
    "geometry_msgs", "diagnostic_msgs", "visualization_msgs", "vision_msgs", "lifecycle_msgs", "rcl_interfaces",
    "builtin_interfaces", "nocsfm_msgs", "launch", "launch_ros", "ament_index_python",
}
BASE = {"errors", "types", "config"}
GEOMETRY = BASE | {"geometry"}
LEARNED = GEOMETRY | {"matching", "flow", "registration"}
ESTIMATION = LEARNED | {
    "object_model", "hypotheses", "masks", "verification", "confidence", "colour_alignment", "estimator",
}
# part of the package -> the parts it may import from; parts that are not listed are the outermost and may import all
ALLOWED = {
    "errors": BASE, "types": BASE, "config": BASE, "device": BASE, "checkpoints": BASE, "geometry": GEOMETRY,
    "visualization": GEOMETRY,
    "matching": GEOMETRY | {"device", "checkpoints", "matching"}, "flow": GEOMETRY | {"device", "checkpoints", "flow"},
    "registration": GEOMETRY | {"registration"},
    "data": GEOMETRY | {"data"}, "object_model": LEARNED | {"object_model"},
    "hypotheses": LEARNED | {"object_model", "hypotheses"},
    "verification": LEARNED | {"object_model", "verification"},
    "confidence": set(), "revolution": LEARNED | {"object_model", "colour_alignment"},
    "masks": LEARNED | {"object_model"}, "colour_alignment": LEARNED | {"object_model", "verification"},
    "estimator": ESTIMATION,
}
OUTERMOST = {"training", "evaluation", "cli", "ros", "demo"}


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_names(path: Path) -> Iterator[str]:
    """Dotted names of every import in the file, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                above = path.relative_to(PACKAGE.parent).with_suffix("").parts[: -node.level]
                module = ".".join([*above, module]).rstrip(".")
            yield from (f"{module}.{alias.name}" for alias in node.names)


def own_parts(path: Path) -> set[str]:
    """Parts of this package that the file imports."""
    names = (name.split(".") for name in imported_names(path))
    return {name[1] for name in names if name[0] == PACKAGE.name and len(name) > 1}


def each(files: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", files, ids=lambda path: str(path.relative_to(PACKAGE)))


def test_package_has_files_of_every_layer() -> None:
    assert {"errors", "geometry", "registration"} <= {part_of(path) for path in FILES}


@each(FILES)
def test_file_and_its_functions_are_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_FILE_LINES
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    too_long = [f.name for f in functions if (f.end_lineno or 0) - f.lineno + 1 > MAX_FUNCTION_LINES]
    assert not too_long


@each([path for path in FILES if part_of(path) != "ros"])
def test_file_outside_ros_imports_no_ros(path: Path) -> None:
    assert not ROS_PACKAGES & {name.split(".")[0] for name in imported_names(path)}


@each([path for path in FILES if part_of(path) in ALLOWED])
def test_file_imports_only_lower_layers(path: Path) -> None:
    assert own_parts(path) <= ALLOWED[part_of(path)]


@each([path for path in FILES if part_of(path) == "tracking"])
def test_tracking_imports_nothing_that_is_built_on_it(path: Path) -> None:
    assert not own_parts(path) & OUTERMOST


@each([path for path in FILES if part_of(path) == "ros"])
def test_ros_imports_no_training(path: Path) -> None:
    assert not own_parts(path) & {"training", "evaluation"}


def test_no_file_is_called_utils() -> None:
    assert not [path for path in FILES if path.stem in {"utils", "util", "helpers", "common", "misc"}]
