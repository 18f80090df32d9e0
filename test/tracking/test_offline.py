"""The loop behind `nocsfm track`, with a scripted tracker: files stay valid whatever happens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from nocsfm_ros.errors import ConfigError, FrameError
from nocsfm_ros.tracking.offline import TrackReport, track_source
from nocsfm_ros.types import BoolArray, PoseEstimate, RgbdFrame, SimilarityPose, Track, TrackState

K = np.array([[300.0, 0, 80], [0, 300, 60], [0, 0, 1]])


def make_track(stamp_ns: int, state: TrackState) -> Track:
    mask = np.zeros((121, 161), bool)
    mask[40:80, 60:100] = True
    pose = (
        SimilarityPose(np.eye(3), np.array([0.01, 0.02, 0.6]), 0.15) if state is TrackState.TRACKING else None
    )
    nocs = np.zeros((121, 161, 3), np.float32)
    estimate = PoseEstimate(
        pose, mask, nocs, confidence=0.81234567, inlier_ratio=0.5, reason="" if pose else "gone"
    )
    T_cam_user = None if pose is None else pose.T_cam_obj
    return Track(
        "mug", state, stamp_ns, estimate, T_cam_user, np.array([0.1, 0.08, 0.06]), (60, 40, 40, 40), 1
    )


class ScriptedSource:
    """Frames of 161x121; the indices in `bad` cannot be read."""

    rate_hz = 10.0

    def __init__(self, num_frames: int, bad: tuple[int, ...] = ()) -> None:
        self.num_frames, self.bad, self.notes = num_frames, bad, list[str]()

    def __len__(self) -> int:
        return self.num_frames

    def __iter__(self) -> Iterator[RgbdFrame]:
        return (self.frame(index) for index in range(len(self)))

    def name(self, index: int) -> str:
        return f"f{index}"

    def frame(self, index: int) -> RgbdFrame:
        if index in self.bad:
            raise FrameError("depth", got="nothing", expected="something")
        rgb = np.full((121, 161, 3), 10 * index, np.uint8)
        return RgbdFrame(rgb, np.ones((121, 161), np.float32), K, stamp_ns=1000 * index)

    def objects(self, index: int) -> list[int]:
        return []

    def mask(self, index: int, object_number: int) -> BoolArray | None:
        return None


class ScriptedTracker:
    """Answers with the scripted states; raises what the script holds instead of a state."""

    def __init__(self, script: list[Any]) -> None:
        self.script = list(script)

    def update(self, frame: RgbdFrame) -> list[Track]:
        step = self.script.pop(0)
        if isinstance(step, BaseException):
            raise step
        return [make_track(frame.stamp_ns, step)]


SEARCHING, TRACKING = TrackState.SEARCHING, TrackState.TRACKING


def read_lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "tracks.jsonl").read_text().splitlines()]


def count_video_frames(path: Path) -> int:
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.read()[0]:
        count += 1
    return count


def test_track_source_writes_a_line_and_a_video_frame_per_frame(tmp_path: Path) -> None:
    report = TrackReport()
    track_source(
        ScriptedSource(3), ScriptedTracker([SEARCHING, TRACKING, TRACKING]), range(3), tmp_path, 10, report
    )
    lines = read_lines(tmp_path)
    assert [line["state"] for line in lines] == ["SEARCHING", "TRACKING", "TRACKING"]
    assert lines[0]["T_cam_obj"] is None and lines[0]["scale_m"] is None and lines[0]["reason"] == "gone"
    assert lines[1] == {
        "frame": 1,
        "name": "f1",
        "stamp_ns": 1000,
        "object_id": "mug",
        "state": "TRACKING",
        "T_cam_obj": [1, 0, 0, 0.01, 0, 1, 0, 0.02, 0, 0, 1, 0.6, 0, 0, 0, 1],
        "scale_m": 0.15,
        "size_m": [0.1, 0.08, 0.06],
        "confidence": 0.8123,
        "inlier_ratio": 0.5,
        "box": [60, 40, 40, 40],
        "reason": "",
    }
    assert count_video_frames(tmp_path / "overlay.mp4") == 3
    assert (report.frames, report.dropped, report.tracked["mug"]) == (3, 0, 2)


def test_track_source_bad_frame_is_dropped_and_counted(tmp_path: Path) -> None:
    report = TrackReport()
    track_source(ScriptedSource(3, bad=(1,)), ScriptedTracker([TRACKING] * 2), range(3), tmp_path, 10, report)
    assert [line["frame"] for line in read_lines(tmp_path)] == [0, 2]
    assert (report.frames, report.dropped) == (2, 1)


def test_track_source_without_any_good_frame_raises_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no usable frame.*depth"):
        track_source(
            ScriptedSource(2, bad=(0, 1)), ScriptedTracker([]), range(2), tmp_path, 10, TrackReport()
        )


def test_track_source_interrupted_leaves_valid_files(tmp_path: Path) -> None:
    report = TrackReport()
    script = [TRACKING, TRACKING, KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        track_source(ScriptedSource(9), ScriptedTracker(script), range(9), tmp_path, 10, report)
    assert len(read_lines(tmp_path)) == report.frames == 2
    assert count_video_frames(tmp_path / "overlay.mp4") == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full to play a full disk")
def test_track_source_full_disk_raises_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "tracks.jsonl").symlink_to("/dev/full")
    with pytest.raises(ConfigError, match=r"No space left.*free some disk space"):
        track_source(
            ScriptedSource(2), ScriptedTracker([TRACKING] * 2), range(2), tmp_path, 10, TrackReport()
        )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full to play a full disk")
def test_track_source_full_disk_for_the_video_raises(tmp_path: Path) -> None:
    (tmp_path / "overlay.mp4").symlink_to("/dev/full")
    with pytest.raises(ConfigError, match="video"):
        track_source(
            ScriptedSource(2), ScriptedTracker([TRACKING] * 2), range(2), tmp_path, 10, TrackReport()
        )
    assert len(read_lines(tmp_path)) > 0


def test_track_source_out_is_a_file_raises(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(ConfigError, match="taken"):
        track_source(ScriptedSource(1), ScriptedTracker([]), range(1), tmp_path / "taken", 10, TrackReport())
