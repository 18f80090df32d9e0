import os
import signal
import subprocess
import sys
import time
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from nocsfm_ros.data.workers import worker_pool

PARENT = """
import os, sys, time
from nocsfm_ros.data.workers import worker_pool
if __name__ == "__main__":
    with worker_pool(1) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 120).result()
"""


def test_worker_pool_is_entered_and_works() -> None:
    with worker_pool(0, os.putenv, "NOCSFM_TEST", "1") as pool:
        assert pool.submit(int, "7").result() == 7


def test_leaving_the_pool_by_an_error_drops_what_has_not_begun() -> None:
    with pytest.raises(KeyboardInterrupt), worker_pool(1) as pool:
        futures = [pool.submit(time.sleep, 0.05) for _ in range(200)]
        futures[0].result()
        raise KeyboardInterrupt
    with pytest.raises(CancelledError):
        futures[-1].result()


def test_worker_ends_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        os.kill(worker, 0)  # it is there
        parent.send_signal(signal.SIGKILL)
    for _ in range(200):
        if not _runs(worker):
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    raise AssertionError("the worker went on without its parent")


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
