"""Writes docs/parameters.md and config/tracker.yaml from the dataclasses.

Run: ``python -m nocsfm_ros.ros.parameter_docs``. A test compares the files with what this makes.
"""

from __future__ import annotations

import json
import textwrap
from itertools import groupby
from pathlib import Path
from typing import Any

from nocsfm_ros.config import Tunable, iterate_tunables
from nocsfm_ros.ros.parameters import RosConfig

_INTRO = """# Parameters

Made by `python -m nocsfm_ros.ros.parameter_docs` from `nocsfm_ros/config.py` and
`nocsfm_ros/ros/parameters.py`; a test fails when this page is out of date. Every key is a ROS parameter of
`nocsfm_tracker`; `config/tracker.yaml` lists all of them. Without ROS, `nocsfm track --config FILE` takes the
sections of this page (not "Node") as YAML.

*live*: may be changed while the node runs (`ros2 param set /nocsfm_tracker KEY VALUE`); the others are
read at start.
"""


def parameters_markdown() -> str:
    """The page docs/parameters.md."""
    parts = [_INTRO]
    for section, rows in _sections():
        parts.append(
            f"\n## {section or 'Node'}\n\n"
            "| key | default | allowed | live | meaning |\n|---|---|---|---|---|\n"
        )
        for key, value, tunable in rows:
            live = "yes" if tunable.live else "no"
            parts.append(
                f"| `{key}` | `{json.dumps(value)}` | {tunable.allowed()} | {live} | {tunable.reason} |\n"
            )
    return "".join(parts)


def parameters_yaml() -> str:
    """The file config/tracker.yaml: every key at its default."""
    lines = [
        "# Every parameter of nocsfm_tracker at its default; docs/parameters.md explains them.",
        "/**:",
        "  ros__parameters:",
    ]
    for section, rows in _sections():
        indent = "      " if section else "    "
        lines += [f"    {section}:"] if section else []
        for key, value, tunable in rows:
            comment = (
                f"{tunable.reason} ({tunable.allowed()})" if tunable.allowed() != "any" else tunable.reason
            )
            lines += textwrap.wrap(
                comment, 110, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
            )
            lines.append(f"{indent}{key.rpartition('.')[2]}: {json.dumps(value)}")
    return "\n".join(lines) + "\n"


def _sections() -> list[tuple[str, list[tuple[str, Any, Tunable]]]]:
    return [
        (section, list(rows))
        for section, rows in groupby(iterate_tunables(RosConfig()), key=lambda row: row[0].rpartition(".")[0])
    ]


def main() -> None:
    """Write both files of the source tree."""
    root = Path(__file__).resolve().parents[2]
    (root / "docs" / "parameters.md").write_text(parameters_markdown(), encoding="utf-8")
    (root / "config" / "tracker.yaml").write_text(parameters_yaml(), encoding="utf-8")


if __name__ == "__main__":
    main()
