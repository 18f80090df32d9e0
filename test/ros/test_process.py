"""The node as a process of its own: Ctrl-C at any moment, bad start values."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: ./run test prepares it, or source a distribution")
pytest.importorskip("nocsfm_msgs", reason="needs the built message package nocsfm_msgs")

# A tracker whose weights take for ever, and one that is there at once.
_ENDLESS = "import time; from nocsfm_ros.ros.node import main; exit(main(build=lambda _: time.sleep(60)))"
# The second one's interpreter ends as slowly as one that has loaded torch.
_QUICK = """
import atexit, sys, time
from nocsfm_ros.ros.node import main
atexit.register(time.sleep, 60)
sys.modules.setdefault("torch", None)
exit(main(build=lambda _: object()))
"""
_END_S = 4.5  # ros2 launch waits 5 s before it sends SIGTERM, then SIGKILL


class Node:
    """A started process; reads its log until a text appears."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env=os.environ | {"RCUTILS_LOGGING_BUFFERED_STREAM": "0"},
        )
        self.log = ""

    def read_until(self, text: str) -> None:
        assert self.process.stdout is not None
        while text not in self.log:
            line = self.process.stdout.readline()
            assert line, f"ended without {text!r}:\n{self.log}"
            self.log += line

    def end(self, signum: int) -> tuple[int, float]:
        """Send a signal; exit code and seconds until the end."""
        start = time.monotonic()
        self.process.send_signal(signum)
        output, _ = self.process.communicate(timeout=20)
        self.log += output
        return self.process.returncode, time.monotonic() - start


@pytest.fixture()
def start() -> Iterator[Any]:
    nodes: list[Node] = []

    def start_node(*arguments: str) -> Node:
        nodes.append(Node(*arguments))
        return nodes[-1]

    yield start_node
    for node in nodes:
        node.process.kill()
        node.process.communicate()


@pytest.mark.parametrize(("code", "moment"), [(_ENDLESS, "loading the weights"), (_QUICK, "active; waiting")])
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_signal_while_loading_or_active_ends_cleanly_in_time(
    start: Any, code: str, moment: str, signum: int
) -> None:
    node = start("-c", code)
    node.read_until(moment)
    returned, took_s = node.end(signum)
    assert returned == 0 and "Traceback" not in node.log, node.log
    assert took_s < _END_S


@pytest.mark.parametrize("after_s", [0.05, 0.1, 0.3, 0.6])
def test_signal_while_importing_ends_without_a_traceback(start: Any, after_s: float) -> None:
    node = start("-c", "from nocsfm_ros.start import tracker_node; print('started', flush=True); exit(tracker_node())")
    node.read_until("started")
    with contextlib.suppress(subprocess.TimeoutExpired):  # the moment itself is what is tested
        node.process.wait(after_s)
    returned, took_s = node.end(signal.SIGINT)
    assert returned in (0, 130, -signal.SIGINT) and "Traceback" not in node.log, node.log
    assert took_s < _END_S


def test_bad_start_values_end_the_process_with_all_of_them_named(start: Any) -> None:
    node = start("-m", "nocsfm_ros.ros.node", "--ros-args", "-p", "queue_size:=0", "-p", "sync:=often")
    output, _ = node.process.communicate(timeout=20)
    assert node.process.returncode == 2 and "queue_size=0" in output and "sync='often'" in output, output
    assert "Traceback" not in output


def test_misspelt_parameter_is_warned_about_with_the_nearest_name(start: Any) -> None:
    node = start("-m", "nocsfm_ros.ros.node", "--ros-args", "-p", "queue_sise:=5", "-p", "autostart:=false")
    node.read_until("did you mean queue_size?")
    assert node.end(signal.SIGINT)[0] == 0
