"""A few processes that work together: started, listened to, and always ended together."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

from nocsfm_ros.errors import NocsfmError

if TYPE_CHECKING:
    from typing_extensions import Self  # noqa: UP035  typing has it from Python 3.11 only

_TAIL_LINES = 15


class ProcessError(NocsfmError):
    """A process failed, or did not do what it was waited for."""


class Event(NamedTuple):
    """Something a process said; None when it has ended."""

    name: str
    line: str | None


class Crew:
    """Named child processes. Each one's output goes to ``<log_dir>/<name>.log`` and, line by line, to
    `events`.

    Leaving the context ends all of them: Ctrl-C first, a kill for who does not listen. They get sessions of
    their own, so that a Ctrl-C of the terminal reaches the parent only, which then decides.
    """

    def __init__(self, log_dir: Path, env: Mapping[str, str] | None = None) -> None:
        log_dir.mkdir(parents=True, exist_ok=True)
        self.log_dir = log_dir
        self._env = {**os.environ, "PYTHONUNBUFFERED": "1", "RCUTILS_COLORIZED_OUTPUT": "0", **(env or {})}
        self._children: dict[str, subprocess.Popen[str]] = {}
        self._listeners: dict[str, threading.Thread] = {}
        self._events: queue.Queue[Event] = queue.Queue()
        self._said: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(*self._children)

    def start(self, name: str, command: Sequence[str]) -> None:
        """Start a process and listen to it; from the main thread, whose Ctrl-C waits until that is done."""
        with _ctrl_c_waits():
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=self._env,
                start_new_session=True,
            )
            self._children[name] = child
            self._listeners[name] = threading.Thread(target=self._listen, args=(name, child), daemon=True)
            self._listeners[name].start()

    def next_event(self, timeout_s: float, waiting_for: str) -> Event:
        """The next line or end of any process.

        Raises:
            ProcessError: none within `timeout_s`.
        """
        try:
            event = self._events.get(timeout=max(0.0, timeout_s))
        except queue.Empty:
            raise ProcessError(
                "processes",
                got=f"silence while {waiting_for}",
                expected="a sign of life",
                mend="Look at their logs",
            ) from None
        if event.line is not None:
            self._said[event.name] = event.line
        return event

    def said(self, name: str) -> str:
        """The last line of a process that was returned as an event."""
        return self._said.get(name, "")

    def has_ended(self, name: str) -> bool:
        """Whether it is over, with whatever exit code."""
        return self._children[name].poll() is not None

    def exit_code(self, name: str) -> int:
        """Of a process that has ended."""
        return self._children[name].wait()

    def failed(self, name: str, doing: str) -> ProcessError:
        """The error to raise for a process that ended although it should not have: with the end of its
        log.
        """
        lines = (self.log_dir / f"{name}.log").read_text(encoding="utf-8", errors="replace").splitlines()
        tail = "\n".join(f"    {line}" for line in lines[-_TAIL_LINES:])
        return ProcessError(
            f"process {name}",
            got=f"exit code {self.exit_code(name)} while {doing}",
            expected="it to finish its work",
            mend=f"The end of its log:\n{tail}\n",
        )

    def stop(self, *names: str, patience_s: float = 5.0) -> None:
        """Ctrl-C to these, all at once, then kill whoever is left."""
        children = [self._children[name] for name in names]
        deadline = time.monotonic() + patience_s
        for sign in (signal.SIGINT, signal.SIGKILL):
            for child in children:
                if child.poll() is None:
                    _signal_session(child, sign)
            for child in children:
                try:
                    child.wait(max(0.05, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    pass
        for name in names:
            self._listeners[name].join(1.0)

    def _listen(self, name: str, child: subprocess.Popen[str]) -> None:
        said = child.stdout
        if said is None:
            return
        with (self.log_dir / f"{name}.log").open("w", encoding="utf-8") as log:
            for line in said:
                try:
                    log.write(line)
                    log.flush()
                except OSError:
                    pass  # a full disk: who reads the lines still gets them, and the process must not block
                self._events.put(Event(name, line.rstrip("\n")))
        child.wait()
        self._events.put(Event(name, None))


@contextmanager
def _ctrl_c_waits() -> Iterator[None]:
    """A Ctrl-C within the block acts at its end: a child known in half could not be ended."""
    pressed: list[int] = []
    usual = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
        if pressed:
            signal.raise_signal(signal.SIGINT)


def _signal_session(child: subprocess.Popen[str], sign: signal.Signals) -> None:
    try:
        os.killpg(child.pid, sign)
    except ProcessLookupError:
        pass
