"""The worker alone: no ROS needed."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError
from typing import Any

import numpy as np
import pytest

from nocsfm_ros.config import Config
from nocsfm_ros.errors import ConfigError
from nocsfm_ros.ros.worker import Result, Worker
from nocsfm_ros.types import RgbdFrame

DEADLINE_S = 5.0


def _frame(stamp_ns: int) -> RgbdFrame:
    return RgbdFrame(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.float32), np.eye(3), stamp_ns, "cam")


class Bench:
    """A worker with a fake tracker and everything it says."""

    def __init__(self, fake_tracker: Any) -> None:
        self.tracker = fake_tracker(Config())
        self.results: list[Result] = []
        self.failures: list[Exception] = []
        self.worker = Worker(lambda config: self.tracker, self.results.append, self.failures.append)


@pytest.fixture()
def bench(fake_tracker: Any) -> Any:
    made = Bench(fake_tracker)
    yield made
    made.tracker.gate.set()
    assert made.worker.stop(DEADLINE_S)


def test_put_while_busy_keeps_only_the_newest_frame_and_counts_drops(bench: Any, eventually: Any) -> None:
    bench.worker.load(Config()).result(DEADLINE_S)
    bench.tracker.gate.clear()
    bench.worker.put(_frame(0))
    eventually(lambda: bench.worker._frame is None, "frame 0 taken")
    for stamp_ns in (1, 2, 3):
        bench.worker.put(_frame(stamp_ns))
    bench.tracker.gate.set()
    eventually(lambda: len(bench.results) == 2)
    assert [result.frame.stamp_ns for result in bench.results] == [0, 3]
    stats = bench.worker.stats
    assert (stats.received, stats.dropped, stats.processed) == (4, 2, 2)


def test_request_goes_before_a_waiting_frame(bench: Any, eventually: Any) -> None:
    bench.worker.load(Config()).result(DEADLINE_S)
    bench.tracker.gate.clear()
    first = bench.worker.post(lambda tracker: tracker.reset())
    bench.worker.put(_frame(1))
    bench.worker.post(lambda tracker: tracker.configure(Config()))
    bench.tracker.gate.set()
    first.result(DEADLINE_S)
    eventually(lambda: bench.results)
    assert bench.tracker.calls == ["reset", "configure", "update"]


def test_exception_in_update_is_reported_and_the_next_frame_is_done(bench: Any, eventually: Any) -> None:
    bench.worker.load(Config()).result(DEADLINE_S)
    bench.tracker.failure = MemoryError("full")
    bench.worker.put(_frame(1))
    eventually(lambda: bench.failures)
    bench.tracker.failure = None
    bench.worker.put(_frame(2))
    eventually(lambda: bench.results)
    assert bench.worker.stats.failed == 1 and "full" in bench.worker.stats.last_failure


def test_exception_in_a_request_comes_out_of_its_future(bench: Any) -> None:
    bench.worker.load(Config()).result(DEADLINE_S)
    bench.tracker.failure = KeyError("odd")
    with pytest.raises(KeyError, match="odd"):
        bench.worker.post(lambda tracker: tracker.reset()).result(DEADLINE_S)


def test_request_before_load_and_after_unload_says_configure(bench: Any) -> None:
    for prepare in (lambda: None, lambda: (bench.worker.load(Config()), bench.worker.unload())):
        prepare()
        with pytest.raises(ConfigError, match="configure"):
            bench.worker.post(lambda tracker: tracker.reset()).result(DEADLINE_S)


def test_cancelled_request_is_never_run(bench: Any) -> None:
    bench.worker.load(Config()).result(DEADLINE_S)
    bench.tracker.gate.clear()
    bench.worker.post(lambda tracker: tracker.reset())
    late = bench.worker.post(lambda tracker: tracker.configure(Config()))
    assert late.cancel()
    bench.tracker.gate.set()
    bench.worker.unload().result(DEADLINE_S)
    assert bench.tracker.calls == ["reset"]


def test_stop_during_an_endless_load_frees_who_waits_and_returns_in_time(fake_tracker: Any) -> None:
    begun, release = threading.Event(), threading.Event()

    def endless(config: Config) -> Any:
        begun.set()
        release.wait(DEADLINE_S)
        return fake_tracker(config)

    worker = Worker(endless, lambda result: None, lambda error: None)
    loading, waiting = worker.load(Config()), worker.post(lambda tracker: tracker.reset())
    assert begun.wait(DEADLINE_S) and not worker.stop(timeout_s=0.05)
    for future in (loading, waiting, worker.post(lambda tracker: tracker.reset())):
        with pytest.raises(CancelledError):
            future.result(0.0)
    release.set()
    assert worker.stop(DEADLINE_S)


def test_stop_while_idle_joins_the_thread(fake_tracker: Any) -> None:
    worker = Worker(fake_tracker, lambda result: None, lambda error: None)
    assert worker.stop(DEADLINE_S)
