"""One thread that alone touches the tracker, its models and CUDA.

Frames come through a slot of size one: a frame that nobody took is replaced by a newer one and counted.
Everything else (load, references, reset, settings) is a request, done before the next frame.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from nocsfm_ros.config import Config
from nocsfm_ros.errors import ConfigError
from nocsfm_ros.types import Reference, RgbdFrame, Track

T = TypeVar("T")


class TrackerLike(Protocol):
    """What the worker needs of tracking.tracker.Tracker; tests hand over a scripted one."""

    @property
    def object_ids(self) -> Sequence[str]: ...

    @property
    def stage_ms(self) -> Mapping[str, float]: ...

    def set_reference(self, reference: Reference) -> Any: ...

    def remove_reference(self, object_id: str | None) -> list[str]: ...

    def reset(self) -> None: ...

    def configure(self, config: Config) -> None: ...

    def update(self, frame: RgbdFrame) -> list[Track]: ...


@dataclass(frozen=True)
class Result:
    """One frame, done. `latency_s` counts from the frame's arrival in the slot."""

    frame: RgbdFrame
    tracks: Sequence[Track]
    latency_s: float


@dataclass(frozen=True)
class WorkerStats:
    """Counters since start, facts of the last frame and when it was done (time.monotonic), the objects there are."""

    received: int = 0
    dropped: int = 0
    processed: int = 0
    failed: int = 0
    latency_s: float = 0.0
    last_failure: str = ""
    stage_ms: Mapping[str, float] = field(default_factory=dict)
    tracks: Sequence[Track] = ()
    tracks_s: float = 0.0
    object_ids: Sequence[str] = ()
    loaded: bool = False
    loading: bool = False
    paused: bool = False


@dataclass(frozen=True)
class _Request:
    job: Callable[[], Any]
    future: Future[Any]


class Worker:
    """Owns the tracker. All methods may be called from any thread and return at once, except stop()."""

    def __init__(
        self,
        build: Callable[[Config], TrackerLike],
        on_result: Callable[[Result], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        """Start the thread.

        Args:
            build: makes the tracker, weights loaded; called in the worker's thread.
            on_result: called in the worker's thread after every frame; if it raises, that frame failed.
            on_failure: told of every frame that failed; the worker goes on.
        """
        self._build, self._on_result, self._on_failure = build, on_result, on_failure
        self._tracker: TrackerLike | None = None
        self._wake = threading.Condition()
        self._requests: deque[_Request] = deque()
        self._running: _Request | None = None
        self._frame: tuple[RgbdFrame, float] | None = None
        self._stopping = False
        self._stats = WorkerStats()
        # A daemon: a load that cannot be interrupted (imports, a hub download) must not keep Ctrl-C waiting.
        self._thread = threading.Thread(target=self._run, name="nocsfm_worker", daemon=True)
        self._thread.start()

    @property
    def stats(self) -> WorkerStats:
        """A consistent picture of the counters."""
        with self._wake:
            return self._stats

    def put(self, frame: RgbdFrame) -> None:
        """Hand over the newest frame; one that is still unread is dropped and counted."""
        with self._wake:
            dropped = self._stats.dropped + (self._frame is not None)
            self._note(received=self._stats.received + 1, dropped=dropped)
            if not self._stats.paused:
                self._frame = (frame, time.monotonic())
                self._wake.notify()

    def clear(self) -> None:
        """Forget an unread frame."""
        with self._wake:
            self._frame = None

    def pause(self, paused: bool) -> None:
        """While paused frames are counted and thrown away; requests are served."""
        with self._wake:
            self._note(paused=paused)
            self._frame = None

    def load(self, config: Config) -> Future[None]:
        """Build the tracker. The future carries what `build` raises."""
        with self._wake:
            self._note(loading=True)
        return self._submit(lambda: self._load(config))

    def unload(self) -> Future[None]:
        """Let go of the tracker and its memory."""
        return self._submit(self._unload)

    def post(self, job: Callable[[TrackerLike], T]) -> Future[T]:
        """Have `job` called with the tracker before the next frame.

        Future.cancel() takes back what has not begun. The future raises ConfigError when no tracker is loaded
        and CancelledError when the worker stops.
        """
        return self._submit(lambda: job(self._loaded_tracker()))

    def note_objects(self, object_ids: Sequence[str]) -> None:
        """What a request has left to be looked for: the next frame may be long in coming."""
        with self._wake:
            self._note(object_ids=tuple(object_ids))

    def stop(self, timeout_s: float) -> bool:
        """End the thread; whoever waits for a request gets CancelledError.

        Returns:
            False when the thread is still inside a call that cannot be interrupted.
        """
        with self._wake:
            self._stopping = True
            waiting = list(self._requests) + ([self._running] if self._running else [])
            self._requests.clear()
            self._wake.notify()
        for request in waiting:
            _finish(request.future, error=CancelledError("the node is shutting down"))
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _submit(self, job: Callable[[], T]) -> Future[T]:
        request = _Request(job, Future())
        with self._wake:
            if not self._stopping:
                self._requests.append(request)
                self._wake.notify()
                return request.future
        _finish(request.future, error=CancelledError("the node is shutting down"))
        return request.future

    def _run(self) -> None:
        while True:
            with self._wake:
                self._running = None
                self._wake.wait_for(lambda: self._stopping or self._requests or self._frame)
                if self._stopping:
                    return
                item = None
                if self._requests:
                    request = self._requests.popleft()
                    self._running = request if request.future.set_running_or_notify_cancel() else None
                else:
                    item, self._frame = self._frame, None
            if self._running is not None:
                _serve(self._running)
            elif item is not None and self._tracker is not None:
                self._process(self._tracker, *item)

    def _process(self, tracker: TrackerLike, frame: RgbdFrame, arrived_s: float) -> None:
        try:
            tracks = tracker.update(frame)
            latency_s = time.monotonic() - arrived_s
            with self._wake:
                self._note(
                    processed=self._stats.processed + 1,
                    latency_s=latency_s,
                    tracks=tuple(tracks),
                    tracks_s=time.monotonic(),
                    object_ids=tuple(track.object_id for track in tracks),
                    stage_ms=dict(tracker.stage_ms),
                )
            self._on_result(Result(frame, tracks, latency_s))
        except Exception as error:
            with self._wake:
                self._note(failed=self._stats.failed + 1, last_failure=f"{type(error).__name__}: {error}")
            self._on_failure(error)

    def _load(self, config: Config) -> None:
        try:
            self._set_tracker(self._build(config))
        finally:
            with self._wake:
                self._note(loading=False)

    def _unload(self) -> None:
        self._set_tracker(None)
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def _loaded_tracker(self) -> TrackerLike:
        if self._tracker is None:
            raise ConfigError(
                "tracker",
                got="no weights loaded yet",
                expected="a configured node",
                mend="ros2 lifecycle set <node> configure (the log says why autostart failed)",
            )
        return self._tracker

    def _set_tracker(self, tracker: TrackerLike | None) -> None:
        self._tracker = tracker
        with self._wake:
            self._note(loaded=tracker is not None, tracks=(), object_ids=(), stage_ms={})

    def _note(self, **facts: Any) -> None:
        self._stats = dataclasses.replace(self._stats, **facts)


def _serve(request: _Request) -> None:
    try:
        result = request.job()
    except BaseException as error:  # the waiting thread gets it, whatever it is: nobody else would
        _finish(request.future, error=error)
    else:
        _finish(request.future, result)


def _finish(future: Future[Any], result: Any = None, error: BaseException | None = None) -> None:
    try:
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
    except InvalidStateError:
        pass  # stop() has answered it already
