"""The command line: every subcommand parses, user errors are one message and exit code 2, Ctrl-C is 130."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from nocsfm_ros import cli
from nocsfm_ros.config import Config
from nocsfm_ros.errors import ConfigError
from nocsfm_ros.tracking.offline_command import config_from_options
from nocsfm_ros.types import PoseEstimate, Reference, RgbdFrame, SimilarityPose, Track, TrackState


class FakeTracker:
    """Finds every object half a metre in front of the camera; keeps what it was given."""

    given: Reference
    interrupt_at: int | None = None

    def set_reference(self, reference: Reference) -> Any:
        FakeTracker.given = reference
        pixels = int(reference.mask.sum())
        return SimpleNamespace(
            object_id=reference.object_id, foreground_pixels=pixels, size_m=np.ones(3), scale_m=1.0
        )

    def update(self, frame: RgbdFrame) -> list[Track]:
        if FakeTracker.interrupt_at == round(frame.stamp_ns * 30 / 1e9):
            raise KeyboardInterrupt
        pose = SimilarityPose(np.eye(3), np.array([0, 0, 0.5]), 0.1)
        estimate = PoseEstimate(
            pose, np.zeros(frame.rgb.shape[:2], bool), np.zeros_like(frame.rgb, np.float32)
        )
        return [
            Track(
                self.given.object_id,
                TrackState.TRACKING,
                frame.stamp_ns,
                estimate,
                pose.T_cam_obj,
                np.ones(3),
                None,
                1,
            )
        ]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plain folder of five frames with an object of number 3, and the tracker replaced."""
    fake_module = SimpleNamespace(build_tracker=lambda config: FakeTracker())
    monkeypatch.setitem(sys.modules, "nocsfm_ros.tracking.tracker", fake_module)
    monkeypatch.setattr(FakeTracker, "interrupt_at", None)
    labels = np.zeros((60, 80), np.uint8)
    labels[20:40, 20:50] = 3
    for name, picture in (
        ("rgb", np.full((60, 80, 3), 90, np.uint8)),
        ("depth", np.full((60, 80), 500, np.uint16)),
        ("masks", labels),
    ):
        (tmp_path / "src" / name).mkdir(parents=True)
        for index in range(5):
            cv2.imwrite(str(tmp_path / "src" / name / f"{index:04d}.png"), picture)
    camera = json.dumps({"K": [100, 0, 40, 0, 100, 30, 0, 0, 1]})
    (tmp_path / "src" / "camera.json").write_text(camera)
    return tmp_path


def track(folder: Path, *arguments: str) -> int:
    return cli.main(["track", str(folder / "src"), "--out", str(folder / "out"), *arguments])


def num_lines(folder: Path) -> int:
    return len((folder / "out" / "tracks.jsonl").read_text().splitlines())


def test_track_with_frame_and_object_number_takes_its_mask(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert track(folder, "--reference", f"{folder / 'src'}:0001", "--reference-object", "3") == cli.DONE
    assert FakeTracker.given.mask.sum() == 600 and FakeTracker.given.object_id == "object_3"
    assert FakeTracker.given.depth_m is not None and FakeTracker.given.depth_m[30, 30] == pytest.approx(0.5)
    assert num_lines(folder) == 5
    assert (folder / "out" / "overlay.mp4").stat().st_size > 0
    assert "5 frames; frames with a pose: object_3 5" in capsys.readouterr().out


def test_track_with_picture_files_gives_them_all_to_the_tracker(folder: Path) -> None:
    source = folder / "src"
    assert (
        track(
            folder,
            "--reference",
            str(source / "rgb/0000.png"),
            "--reference-mask",
            str(source / "masks/0000.png"),
            "--reference-depth",
            str(source / "depth/0000.png"),
            "--reference-camera",
            str(source / "camera.json"),
            "--object-id",
            "mug",
            "--start",
            "1",
            "--stop",
            "5",
            "--stride",
            "2",
        )
        == cli.DONE
    )
    assert FakeTracker.given.object_id == "mug" and FakeTracker.given.mask.sum() == 600
    assert FakeTracker.given.K is not None and FakeTracker.given.K[0, 0] == 100
    frames = [
        json.loads(line)["frame"] for line in (folder / "out" / "tracks.jsonl").read_text().splitlines()
    ]
    assert frames == [1, 3]


def test_track_with_own_frame_and_box(folder: Path) -> None:
    assert track(folder, "--reference", ":2", "--reference-box", "20,20,30,20") == cli.DONE
    assert FakeTracker.given.mask.sum() == 600


def test_track_interrupted_says_how_far_it_got(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeTracker, "interrupt_at", 2)
    assert track(folder, "--reference", ":0", "--reference-object", "3") == cli.INTERRUPTED
    assert num_lines(folder) == 2
    assert "stopped after 2 of 5 frames" in capsys.readouterr().out


BLOCKED_TRACK = """
import sys, threading, types, test_cli
class Blocked(test_cli.FakeTracker):
    def update(self, frame):
        if frame.stamp_ns > 7e7:
            print("blocked", flush=True)
            threading.Event().wait(30)
        return super().update(frame)
sys.modules["nocsfm_ros.tracking.tracker"] = types.SimpleNamespace(build_tracker=lambda config: Blocked())
sys.exit(test_cli.cli.main(sys.argv[1:]))
"""


def test_track_killed_by_ctrl_c_leaves_valid_files(folder: Path) -> None:
    command = ["track", str(folder / "src"), "--out", str(folder / "out"), "--reference", ":0"]
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    # Where tests run in the background Ctrl-C is ignored: give the child Python's own handler back.
    code = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler){BLOCKED_TRACK}"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *command],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert any(line.strip() == "blocked" for line in process.stdout)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == cli.INTERRUPTED
    assert num_lines(folder) == 3
    assert cv2.VideoCapture(str(folder / "out" / "overlay.mp4")).read()[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--reference", "nothing.png"], "nothing.png"),
        (["--reference", ":9"], "0 to 4"),
        (["--reference", ":0", "--reference-object", "8"], "got 8, expected 3"),
        (["--reference", ":0", "--reference-mask", "no.png"], "no such file"),
        (["--reference", ":0", "--reference-depth", "d.png"], "brings its own"),
        (["--reference", ":0", "--start", "7"], "0 to 5"),
        (["--reference", ":0", "--set", "tracking.lost=1"], "tracking.lost (unknown)"),
        (["--reference", ":0", "--set", "tracking"], "KEY=VALUE"),
        (["--reference", ":0", "--config", "no.yaml"], "no.yaml"),
    ],
)
def test_track_user_error_is_one_message_and_exit_code_2(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert track(folder, *arguments) == cli.USER_ERROR
    message = capsys.readouterr().err.strip()
    assert words in message and message.startswith("nocsfm track: ") and "Traceback" not in message


def test_track_unknown_source_is_a_user_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        cli.main(["track", str(tmp_path / "none"), "--reference", ":0", "--out", str(tmp_path)])
        == cli.USER_ERROR
    )
    assert "no such file or folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["render", "--out", "o", "--clusters", "7", "--seed", "2"],
        ["render", "--demo", "d"],
        ["import", "s", "--out", "o", "--split", "test", "--stride", "5"],
        ["train", "autoencoder", "--data", "d", "--out", "o", "--hours", "0.5", "--resume"],
        ["train", "flow", "--data", "d", "--out", "o", "--hours", "1"],
        ["render", "--out", "o", "--split", "test", "--hands"],
        ["evaluate", "--out", "o"],
        ["evaluate-backbone", "--out", "o", "--backbone", "a", "--backbone", "b", "--frames", "9", "--real", "r"],
        ["real", "d", "--out", "o", "--questions", "6", "--set", "model.device=cpu"],
        ["evaluate", "--data", "d", "--out", "o", "--diffusion", "w", "--hands", "h", "--cache", "c"],
    ],
)
def test_parser_knows_every_subcommand(arguments: list[str]) -> None:
    assert cli.build_parser().parse_args(arguments).command == arguments[0]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["track", "s"],
        ["render"],
        ["render", "--out", "o", "--demo", "d"],
        ["render", "--out", "o", "--seed", "-1"],
        ["import", "s"],
        ["train", "mesh"],
        ["track", "s", "--reference", "r", "--out", "o", "--reference-box", "1,2,3"],
        ["track", "s", "--reference", "r", "--out", "o", "--stride", "0"],
    ],
)
def test_parser_refuses_malformed_command_lines(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.build_parser().parse_args(arguments)
    assert "usage: nocsfm" in capsys.readouterr().err


def test_evaluate_without_data_looks_for_the_splits_folder_and_says_how_to_make_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["evaluate", "--out", "o"]) == cli.USER_ERROR
    assert "nocsfm render --out data/test" in capsys.readouterr().err


def test_config_from_options_file_then_settings(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("tracking: {lost_after: 9, max_keyframes: 3}\n")
    config = config_from_options(tmp_path / "c.yaml", ["tracking.lost_after=11", "model.device=cpu"], Config())
    assert (config.tracking.lost_after, config.tracking.max_keyframes, config.model.device) == (11, 3, "cpu")
    with pytest.raises(ConfigError, match=r"a.b \(unknown\).*tracking.lost_after"):
        config_from_options(None, ["tracking.lost_after=many", "a.b=1"], Config())


def test_module_help_does_not_load_torch() -> None:
    code = "import sys, nocsfm_ros.cli as c; c.build_parser(); sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=False).returncode
        == 0
    )
