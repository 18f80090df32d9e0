"""The demo: player, node and recorder over real DDS, the numbers that come out, and what happens when
something fails.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from synthetic_demo import write_demo

from nocsfm_ros import demo
from nocsfm_ros.errors import ConfigError
from nocsfm_ros.processes import Crew, ProcessError

HERE = Path(__file__).parent
WITHOUT_ROS = importlib.util.find_spec("rclpy") is None or importlib.util.find_spec("nocsfm_msgs") is None
needs_ros = pytest.mark.skipif(
    WITHOUT_ROS, reason="rclpy or nocsfm_msgs is not installed: ./run test sets them up"
)
ENDLESS = [sys.executable, "-c", "import signal; print('up', flush=True); signal.pause()"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "data"
    write_demo(folder, frames=20, rate_hz=10.0)
    return folder


@needs_ros
def test_demo_with_oracle_measures_the_oracles_errors(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "demo"
    demo.run_demo(out, data, node_command=[sys.executable, str(HERE / "oracle_node.py"), str(data)])
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert summary["frames"] == 20
    assert summary["rot_err_deg_p50"] == pytest.approx(5.0, abs=0.01)
    assert summary["trans_err_m_p50"] == pytest.approx(0.01, abs=1e-4)
    assert summary["mask_iou_p50"] == 1.0
    assert summary["tracked_visible_ratio"] == 1.0 and summary["reacquired"] is True
    assert summary["false_poses_when_gone"] == 0 and summary["lost_when_gone"] is True
    assert 0 < summary["latency_ms_p50"] <= summary["latency_ms_p95"]
    lines = [json.loads(line) for line in (out / "tracks.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == summary["results"] and lines[0]["object_id"] == demo.OBJECT_ID
    assert sum(line["state"] == "TRACKING" for line in lines) == summary["tracked_frames"]
    assert {len(line["T_cam_obj"]) for line in lines if line["T_cam_obj"]} == {16}
    _check_pictures(out)
    _check_bag(out / "output.mcap", summary["results"])


@needs_ros
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.mcap"], "bag nothing.mcap"),
        (
            ["{data}", "--wait-for-subscribers", "/camera/rgb/camera_info=1", "--timeout", "0"],
            "too few of /camera/rgb/cam",
        ),
        (["{data}", "--wait-for-subscribers", "/no/such=1"], "got /no/such"),
    ],
)
def test_player_without_bag_or_listener_says_so(
    data: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from nocsfm_ros.ros import player

    filled = [argument.format(data=data / "sequence") for argument in arguments]
    assert player.main(["player", *filled]) == 2
    assert said in capsys.readouterr().err


@needs_ros
def test_bag_round_trip_keeps_pictures_stamps_and_truth(data: Path) -> None:
    from nocsfm_ros.ros.player import Bag

    bag = Bag(data / "sequence")
    first, again = (list(bag.items(shift)) for shift in (0, bag.round_ns))
    assert bag.round_ns == pytest.approx(2e9, abs=1e3)  # 20 frames at 10 Hz
    assert len(first) == 20 * 5 and again[0].stamp_ns == first[0].stamp_ns + bag.round_ns
    images = {item.topic: item.message for item in again[:5]}
    assert images[demo.COLOUR].encoding == "bgr8" and images["/ground_truth/mask"].encoding == "mono8"
    depth = images[demo.DEPTH]
    assert (
        depth.encoding == "16UC1"
        and depth.header.stamp.sec * 10**9 + depth.header.stamp.nanosec == again[0].stamp_ns
    )
    assert int(np.frombuffer(depth.data, np.uint16).max()) == 1000  # the wall, mm


@needs_ros
def test_demo_node_that_dies_is_reported_with_its_log(data: Path, tmp_path: Path) -> None:
    dying = [sys.executable, "-c", "import sys; print('no such weights'); sys.exit(3)"]
    with pytest.raises(ProcessError, match=r"(?s)process node: got exit code 3 .*no such weights"):
        demo.run_demo(tmp_path / "demo", data, node_command=dying)
    assert not (tmp_path / "demo").exists()
    assert "no such weights" in (tmp_path / "demo.failed" / "log" / "node.log").read_text(encoding="utf-8")


@needs_ros
def test_demo_refused_reference_is_reported(data: Path, tmp_path: Path) -> None:
    spoiled = tmp_path / "data"
    spoiled.mkdir()
    for item in data.iterdir():
        (spoiled / item.name).symlink_to(item)
    (spoiled / "reference_mask.png").unlink()
    cv2.imwrite(str(spoiled / "reference_mask.png"), np.zeros((120, 160), np.uint8))
    node = [sys.executable, str(HERE / "oracle_node.py"), str(data)]
    with pytest.raises(ProcessError, match="process set_reference: got exit code 1"):
        demo.run_demo(tmp_path / "demo", spoiled, node_command=node)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_demo_interrupted_leaves_neither_processes_nor_files(
    data: Path, tmp_path: Path, sign: signal.Signals
) -> None:
    pid_file = tmp_path / "pid"
    program = (
        "import sys; from pathlib import Path; from nocsfm_ros import demo, processes\n"
        f"endless = {ENDLESS!r}\n"
        "start = processes.Crew.start\n"
        "def started(self, name, command):\n"
        "    start(self, name, endless)\n"
        f"    Path({str(pid_file)!r}).write_text(str(self._children[name].pid))\n"
        "processes.Crew.start = started\n"
        f"sys.exit(demo.main(['--out', {str(tmp_path / 'demo')!r}, '--data', {str(data)!r}]))\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        stderr=subprocess.PIPE,
        cwd=HERE.parent,
    )
    assert child.stdout is not None
    child.stdout.readline()
    for _ in range(1000):
        if pid_file.exists() and pid_file.read_text(encoding="utf-8"):
            break
        threading.Event().wait(0.01)
    child.send_signal(sign)
    _, errors = child.communicate(timeout=20)
    assert child.returncode == 130 and "stopped" in errors
    assert list(tmp_path.iterdir()) == [pid_file]
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text(encoding="utf-8")), 0)


def test_demo_full_disk_is_said_before_anything_starts(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "NEEDED_BYTES", 10**18)
    with pytest.raises(ConfigError, match="MB free"):
        demo.run_demo(tmp_path / "demo", data)


def test_demo_never_replaces_a_folder_of_somebody_else(data: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(ConfigError, match="not a demo"):
        demo.run_demo(tmp_path, data)
    assert (tmp_path / "thesis.txt").exists()


def test_demo_missing_data_says_how_to_make_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--out", str(tmp_path / "demo"), "--data", str(tmp_path)]) == 2
    assert "nocsfm render --demo" in capsys.readouterr().err


def test_free_domain_id_is_one_nobody_uses() -> None:
    assert 1 <= demo.free_domain_id() <= 101


def test_crew_ends_who_ignores_ctrl_c(tmp_path: Path) -> None:
    stubborn = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); print('up', flush=True); signal.pause()"
    )
    with Crew(tmp_path) as crew:
        crew.start("stubborn", [sys.executable, "-c", stubborn])
        assert crew.next_event(10.0, "it starts").line == "up"
        crew.stop("stubborn", patience_s=0.2)
        assert crew.exit_code("stubborn") == -signal.SIGKILL


def test_crew_ends_a_process_whose_start_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[subprocess.Popen[str]] = []
    popen = subprocess.Popen

    def interrupted(*args: Any, **options: Any) -> subprocess.Popen[str]:
        begun.append(popen(*args, **options))
        signal.raise_signal(signal.SIGINT)
        return begun[0]

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    with pytest.raises(KeyboardInterrupt), Crew(tmp_path) as crew:
        crew.start("endless", ENDLESS)
    assert begun[0].poll() is not None
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_crew_silence_raises(tmp_path: Path) -> None:
    with Crew(tmp_path) as crew:
        crew.start("endless", ENDLESS)
        assert crew.next_event(10.0, "it starts").line == "up"
        with pytest.raises(ProcessError, match="silence while waiting for Godot"):
            crew.next_event(0.01, "waiting for Godot")


@pytest.mark.demo
@needs_ros
@pytest.mark.skipif(not (demo.EMBEDDED / "sequence").is_dir(), reason="there is no nocsfm_ros/demo_data")
def test_demo_of_the_package_reaches_its_goals(tmp_path: Path) -> None:
    demo.run_demo(tmp_path / "demo")
    summary = json.loads((tmp_path / "demo" / "summary.json").read_text(encoding="utf-8"))
    assert summary["frames"] >= 90
    assert summary["tracked_visible_ratio"] >= 0.9
    assert summary["reacquired"] is True
    assert summary["rot_err_deg_p50"] <= 10 and summary["trans_err_m_p50"] <= 0.02
    assert summary["rate_hz"] > 0  # the goal of 5 Hz is printed, but a busy machine is no fault of the code


def _check_pictures(out: Path) -> None:
    for name in ("sheet.png", "errors.png"):
        picture = cv2.imread(str(out / name))
        assert picture is not None and picture.std() > 10
    video = cv2.VideoCapture(str(out / "overlay.mp4"))
    readable: Sequence[bool] = [video.read()[0] for _ in range(21)]
    assert list(readable) == [True] * 20 + [False]


def _check_bag(path: Path, results: int) -> None:
    from rosbags.highlevel import AnyReader

    with AnyReader([path]) as reader:  # without type definitions from outside
        kinds = {item.topic: (item.msgtype, item.msgcount) for item in reader.connections}
        assert kinds["/nocsfm_tracker/tracks"] == ("nocsfm_msgs/msg/TrackArray", results)
        assert kinds["/tf"][0] == "tf2_msgs/msg/TFMessage"
        assert {
            "/nocsfm_tracker/pose",
            "/nocsfm_tracker/mask/compressed",
            "/nocsfm_tracker/nocs/compressed",
            "/nocsfm_tracker/overlay/compressed",
        } < kinds.keys()
        messages: list[Any] = [
            reader.deserialize(raw, connection.msgtype)
            for connection, _, raw in reader.messages()
            if connection.topic == "/nocsfm_tracker/tracks"
        ]
        assert messages[0].tracks[0].object_id == demo.OBJECT_ID
