"""Where frames come from: a BOP scene, a plain folder, a NOCS scene or a bag, behind one FrameSource."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from nocsfm_ros.data.folders import BopScene, NocsScene, PictureFolder
from nocsfm_ros.errors import ConfigError
from nocsfm_ros.types import BoolArray, RgbdFrame

BAG_SUFFIXES = (".mcap", ".db3")


class FrameSource(Protocol):
    """A sequence of frames that can be asked in any order.

    Attributes:
        rate_hz: frames per second, for videos.
        notes: what was left out and why, for people.
    """

    rate_hz: float
    notes: list[str]

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[RgbdFrame]: ...

    def name(self, index: int) -> str:
        """The frame's own name (file stem); of a bag its stamp."""

    def frame(self, index: int) -> RgbdFrame:
        """The frame at a 0-based index. Raises FrameError when this one cannot be used."""

    def objects(self, index: int) -> list[int]:
        """Numbers of the objects that have a mask in this frame."""

    def mask(self, index: int, object_number: int) -> BoolArray | None:
        """(H, W) bool, or None where this frame has no mask of that object."""


def open_source(
    path: Path, image_topic: str = "", depth_topic: str = "", info_topic: str = ""
) -> FrameSource:
    """Find out what `path` is and open it.

    Args:
        path: a folder or a bag.
        image_topic, depth_topic, info_topic: for bags only; empty finds them (see data.bags).

    Raises:
        ConfigError: nothing there, or nothing that is known.
    """
    if is_bag(path):
        from nocsfm_ros.data.bags import BagSource

        return BagSource(path, image_topic, depth_topic, info_topic)
    if (path / "scene_camera.json").is_file():
        return BopScene(path)
    if path.is_dir() and next(path.glob("*_color.png"), None) is not None:
        return NocsScene(path)
    if (path / "rgb").is_dir() and (path / "depth").is_dir():
        return PictureFolder(path)
    raise ConfigError(
        f"source {path}",
        got=_what_is(path),
        expected="a BOP scene (rgb/, depth/, scene_camera.json), a folder (rgb/, depth/, camera.json), "
        "a NOCS scene (0000_color.png ...) or a rosbag2 / MCAP",
    )


def is_bag(path: Path) -> bool:
    """A bag file, or a rosbag2 folder."""
    return (path / "metadata.yaml").is_file() or (path.is_file() and path.suffix in BAG_SUFFIXES)


def frame_index(source: FrameSource, wanted: str) -> int:
    """The index of a frame given by its name, its name's number (BOP image ids), or else a 0-based index.

    Raises:
        ConfigError: no such frame.
    """
    names = [source.name(index) for index in range(len(source))]
    if wanted in names:
        return names.index(wanted)
    if wanted.isdigit():
        numbers = [int(name) if name.isdigit() else None for name in names]
        if int(wanted) in numbers:
            return numbers.index(int(wanted))
        if None in numbers and int(wanted) < len(names):
            return int(wanted)
    raise ConfigError(
        "frame of the source",
        got=wanted,
        expected=f"a name from {names[0]} to {names[-1]}, or 0 to {len(names) - 1}",
    )


def _what_is(path: Path) -> str:
    if not path.exists():
        return "no such file or folder"
    if path.is_file():
        return f"a {path.suffix or 'nameless'} file"
    return "a folder of " + (", ".join(sorted(item.name for item in path.iterdir())[:6]) or "nothing")
