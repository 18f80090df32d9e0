"""Processes that work for one command, and end with it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any


@contextmanager
def worker_pool(count: int, enter: Callable[..., None] | None = None, *args: Any) -> Iterator[ProcessPoolExecutor]:
    """A pool of `count` fresh processes, one at least; each begins with `enter(*args)`.

    The parent alone answers Ctrl-C. Leaving the context drops what has not begun. Where the parent is killed its
    workers end too, rather than go on writing unseen.
    """
    pool = ProcessPoolExecutor(max(1, count), get_context("spawn"), _enter, (enter, args))
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _enter(enter: Callable[..., None] | None, args: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if (parent := parent_process()) is not None:
        Thread(target=_end_with, args=(parent,), daemon=True).start()
    if enter is not None:
        enter(*args)


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
