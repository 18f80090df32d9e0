"""The loop behind `nocsfm track`: frames in, tracks.jsonl and overlay.mp4 out, valid after Ctrl-C too."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Protocol

import cv2

from nocsfm_ros.data.sources import FrameSource
from nocsfm_ros.errors import ConfigError, FrameError
from nocsfm_ros.types import RgbdFrame, Track, Uint8Array
from nocsfm_ros.visualization import overlay

if TYPE_CHECKING:
    from typing_extensions import Self  # noqa: UP035  typing has it from Python 3.11 only

TRACKS_NAME, VIDEO_NAME = "tracks.jsonl", "overlay.mp4"

logger = logging.getLogger(__name__)


class FrameTracker(Protocol):
    """What this loop needs of tracking.tracker.Tracker."""

    def update(self, frame: RgbdFrame) -> list[Track]: ...


@dataclass
class TrackReport:
    """What was done; filled while it is being done, so it is true after an interruption too."""

    frames: int = 0
    dropped: int = 0
    tracked: Counter[str] = field(default_factory=Counter)
    update_s: list[float] = field(default_factory=list)

    def count(self, tracks: Sequence[Track], seconds: float) -> None:
        """Add one frame that is written."""
        self.frames += 1
        self.update_s.append(seconds)
        self.tracked.update(track.object_id for track in tracks if track.T_cam_user is not None)


def track_source(
    source: FrameSource,
    tracker: FrameTracker,
    indices: Sequence[int],
    out_dir: Path,
    video_hz: float,
    report: TrackReport,
    on_frame: Callable[[TrackReport], None] = lambda _: None,
) -> None:
    """Track through a source. A frame that cannot be read is counted as dropped and has no lines.

    Args:
        source: frames.
        tracker: with its references set.
        indices: 0-based frames of the source, in the order they are shown to the tracker.
        out_dir: made if missing; gets tracks.jsonl (see track_record) and overlay.mp4.
        video_hz: frames per second of the video.
        report: filled in place; on_frame is called with it after every frame.

    Raises:
        ConfigError: the folder cannot be written, or no frame could be used.
    """
    problem: FrameError | None = None
    with TrackWriter(out_dir, video_hz) as writer:
        for index in indices:
            try:
                frame = source.frame(index)
                start_s = time.perf_counter()
                tracks = tracker.update(frame)
            except FrameError as error:
                problem = error
                report.dropped += 1
                logger.warning("frame %s dropped: %s", source.name(index), error)
                continue
            seconds = time.perf_counter() - start_s
            writer.write(index, source.name(index), frame, tracks, 1000 * seconds)
            report.count(tracks, seconds)
            on_frame(report)
    if problem is not None and report.frames == 0:
        raise ConfigError("source", got=f"no usable frame; the last: {problem}", expected="at least one")


def track_record(index: int, name: str, track: Track) -> dict[str, Any]:
    """One line of tracks.jsonl. Poses in metres, T_cam_obj row by row or null, box as x, y, width, height."""
    return {
        "frame": index,
        "name": name,
        "stamp_ns": track.stamp_ns,
        "object_id": track.object_id,
        "state": track.state.name,
        "T_cam_obj": None if track.T_cam_user is None else _numbers(track.T_cam_user.ravel(), 9),
        "scale_m": None if track.estimate.pose is None else round(float(track.estimate.pose.scale_m), 6),
        "size_m": _numbers(track.size_m, 6),
        "confidence": round(float(track.estimate.confidence), 4),
        "inlier_ratio": round(float(track.estimate.inlier_ratio), 4),
        "box": None if track.box_xywh is None else _numbers(track.box_xywh, 2),
        "reason": track.estimate.reason,
    }


class TrackWriter:
    """tracks.jsonl, flushed line by line, and overlay.mp4, closed properly whatever happens."""

    def __init__(self, out_dir: Path, video_hz: float) -> None:
        self._out_dir, self._video_hz = out_dir, video_hz
        self._video: cv2.VideoWriter | None = None
        self._size_wh = (0, 0)
        try:
            out_dir.mkdir(parents=True, exist_ok=True)
            self._lines: IO[str] = (out_dir / TRACKS_NAME).open("w", encoding="utf-8")
        except OSError as error:
            raise self._cannot_write(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._video is not None:
            self._video.release()  # writes the index without which the video does not open
        try:
            self._lines.close()
        except OSError as closing_error:
            if error is None:
                raise self._cannot_write(closing_error) from closing_error
        if error is None and self._video is not None:
            self._check_video()

    def write(
        self, index: int, name: str, frame: RgbdFrame, tracks: Sequence[Track], latency_ms: float
    ) -> None:
        """Append one frame. Raises ConfigError when the disk refuses."""
        try:
            for track in tracks:
                self._lines.write(json.dumps(track_record(index, name, track)) + "\n")
            self._lines.flush()
        except OSError as error:
            raise self._cannot_write(error) from error
        self._write_video(overlay(frame.rgb, tracks, frame.K, latency_ms))

    def _write_video(self, picture: Uint8Array) -> None:
        if self._video is None:
            # The codec halves the chroma, so its sides are even.
            self._size_wh = picture.shape[1] // 2 * 2, picture.shape[0] // 2 * 2
            fourcc = cv2.VideoWriter.fourcc(*"mp4v")
            self._video = cv2.VideoWriter(
                str(self._out_dir / VIDEO_NAME), fourcc, self._video_hz, self._size_wh
            )
            if not self._video.isOpened():
                raise self._cannot_write("OpenCV could not open the video writer (codec mp4v)")
        if (picture.shape[1], picture.shape[0]) != self._size_wh:
            picture = cv2.resize(picture, self._size_wh).astype("uint8")
        self._video.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))

    def _check_video(self) -> None:
        # OpenCV's writer never says that the disk is full: look at what it left.
        capture = cv2.VideoCapture(str(self._out_dir / VIDEO_NAME))
        readable, _ = capture.read()
        capture.release()
        if not readable:
            raise self._cannot_write("a video that does not decode")

    def _cannot_write(self, got: object) -> ConfigError:
        return ConfigError(
            f"output folder {self._out_dir}",
            got=got,
            expected="a folder with free space",
            mend="free some disk space or name another --out; what was written so far is kept",
        )


def _numbers(values: Iterable[Any], digits: int) -> list[float]:
    return [round(float(value), digits) for value in values]
