"""Answers 'why does nothing come out?': /diagnostics at 1 Hz."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible

from nocsfm_ros.ros.worker import WorkerStats
from nocsfm_ros.types import TrackState

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
# An input that was silent for this long counts as missing.
SILENT_S = 2.0
# A stamp this much older than its predecessor: the clock went back, or a recording began anew.
_JUMP_S = 0.5
# An input this much slower than another loses messages.
_LOST_SHARE = 0.6


@dataclass
class InputWatch:
    """One subscribed topic: what is expected, and what came so far."""

    topic: str
    type_name: str
    qos: QoSProfile
    count: int = 0
    last_s: float = -1e9
    last_stamp_s: float = 0.0

    def received(self, msg: Any) -> bool:
        """Note one message; whether time went back since the last one."""
        stamp_s = msg.header.stamp.sec + 1e-9 * msg.header.stamp.nanosec
        went_back = self.count > 0 and stamp_s < self.last_stamp_s - _JUMP_S
        self.count += 1
        self.last_s, self.last_stamp_s = time.monotonic(), stamp_s
        return went_back

    def is_alive(self) -> bool:
        """Whether a message came lately."""
        return time.monotonic() - self.last_s < SILENT_S


class InputMonitor:
    """Watches the three inputs, their synchronisation and the frames made of them."""

    def __init__(self, node: Node, watches: Sequence[InputWatch], slop_s: float) -> None:
        self.watches, self._node, self.slop_s = watches, node, slop_s
        self.num_sets, self._last_set_s = 0, -1e9
        self.num_rejected, self._last_problem_s, self._problem = 0, -1e9, ""

    def synchronised(self) -> None:
        """Note one set of three messages."""
        self.num_sets += 1
        self._last_set_s = time.monotonic()

    def rejected(self, problem: str) -> None:
        """Note a set that could not be used."""
        self.num_rejected += 1
        self.odd(problem)

    def odd(self, problem: str) -> None:
        """Note a set that was used but looks wrong."""
        self._problem, self._last_problem_s = problem, time.monotonic()

    def status(self) -> tuple[bytes, str]:
        """Level and the one sentence that helps most: the first broken link of the chain."""
        now = time.monotonic()
        missing = [self._why_silent(watch) for watch in self.watches if not watch.is_alive()]
        if missing:
            return ERROR, "; ".join(missing)
        has_problem, is_apart = now - self._last_problem_s < SILENT_S, now - self._last_set_s > SILENT_S
        if has_problem:
            return ERROR if is_apart else WARN, self._problem
        if is_apart:
            stamps = [watch.last_stamp_s for watch in self.watches]
            return ERROR, (
                f"not synchronised: newest stamps differ by {max(stamps) - min(stamps):.3f} s, allowed are "
                f"{self.slop_s:g} s: let the drivers share one clock, or raise slop_s and queue_size"
            )
        return OK, "colour, depth and camera info arrive and fit together"

    def _why_silent(self, watch: InputWatch) -> str:
        """Why no message of a topic arrives, from the ROS graph."""
        publishers = self._node.get_publishers_info_by_topic(watch.topic)
        if not publishers:
            same_type = [
                name
                for name, types in self._node.get_topic_names_and_types()
                if watch.type_name in types and name != watch.topic and self._node.count_publishers(name)
            ]
            hint = (
                f"published with this type: {', '.join(sorted(same_type)[:6])}"
                if same_type
                else (
                    f"nobody publishes {watch.type_name} at all: does the driver run, in this ROS_DOMAIN_ID?"
                )
            )
            return f"{watch.topic}: no publisher; remap it ({hint})"
        types = {info.topic_type for info in publishers}
        if watch.type_name not in types:
            return f"{watch.topic}: has type {', '.join(sorted(types))}, needed is {watch.type_name}"
        for info in publishers:
            compatibility, reason = qos_check_compatible(info.qos_profile, watch.qos)
            if compatibility == QoSCompatibility.ERROR:
                return (
                    f"{watch.topic}: QoS mismatch with {info.node_name} ({reason.strip().rstrip(';')}): set "
                    "input_reliability, or qos_overrides.<topic>.subscription.*, to what it offers"
                )
        been = "went silent" if watch.count else "has not sent anything yet"
        return f"{watch.topic}: {publishers[0].node_name} is connected but {been}"


class Rates:
    """Per-second rates of counters that only grow."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, int]] = {}

    def rate_hz(self, name: str, count: int) -> float:
        """Rate since the last call with this name."""
        now = time.monotonic()
        before_s, before = self._last.get(name, (now, count))
        self._last[name] = now, count
        return (count - before) / (now - before_s) if now > before_s else 0.0


def diagnostic_array(
    node: Node, state: str, problem: str, monitor: InputMonitor | None, stats: WorkerStats, rates: Rates
) -> DiagnosticArray:
    """Everything a person or an aggregator wants to know.

    Args:
        node: gives name and clock.
        state: lifecycle state.
        problem: why the node is not active, if it should be.
        monitor: of the inputs, while there are subscriptions.
        stats: of the worker.
        rates: kept by the caller between two calls.
    """
    name = node.get_name()
    statuses = [_tracker_status(name, state, problem, stats, rates)]
    if monitor is not None:
        statuses.insert(0, _input_status(name, monitor, rates))
    silent_s = time.monotonic() - stats.tracks_s
    for track in [track for track in stats.tracks if track.object_id in stats.object_ids]:
        level = OK if track.state == TrackState.TRACKING and silent_s < SILENT_S else WARN
        facts = {
            "confidence": f"{track.estimate.confidence:.2f}",
            "inlier_ratio": f"{track.estimate.inlier_ratio:.2f}",
            "residual_mm": f"{1000 * track.estimate.residual_m:.1f}",
            "keyframes": track.num_keyframes,
            "round_about": "none" if track.axis_user is None else " ".join(f"{x:.2f}" for x in track.axis_user),
        }
        text = track.state.name + (f": {track.estimate.reason}" if track.estimate.reason else "")
        text = text if silent_s < SILENT_S else f"no frame for {silent_s:.0f} s; before that {text}"
        statuses.append(_status(f"{name}: object {track.object_id}", level, text, facts))
    array = DiagnosticArray(status=statuses)
    array.header.stamp = node.get_clock().now().to_msg()
    return array


def _input_status(name: str, monitor: InputMonitor, rates: Rates) -> DiagnosticStatus:
    level, message = monitor.status()
    hz = {watch.topic: rates.rate_hz(watch.topic, watch.count) for watch in monitor.watches}
    slowest, fastest = min(hz, key=hz.__getitem__), max(hz, key=hz.__getitem__)
    if level == OK and hz[fastest] > 2.0 and hz[slowest] < _LOST_SHARE * hz[fastest]:
        level, message = (
            WARN,
            (
                f"{slowest} comes at {hz[slowest]:.1f} Hz, {fastest} at {hz[fastest]:.1f} Hz: messages get "
                "lost; set input_reliability: reliable if the publisher offers it"
            ),
        )
    facts: dict[str, object] = {f"{topic} rate_hz": f"{rate:.1f}" for topic, rate in hz.items()}
    facts |= {"synchronised": monitor.num_sets, "rejected": monitor.num_rejected}
    return _status(f"{name}: inputs", level, message, facts)


def device_facts() -> dict[str, object]:
    """Device and memory in use; without importing torch, which may not be loaded yet, or waking a GPU."""
    facts: dict[str, object] = {}
    with suppress(OSError):  # Linux alone tells the memory of now
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        facts["memory_mb"] = pages * resource.getpagesize() // 2**20
    torch = sys.modules.get("torch")
    if torch is None:
        return facts
    if not torch.cuda.is_initialized():
        return facts | {"device": "cpu"}
    allocated_mb = torch.cuda.memory_allocated() // 2**20
    return facts | {"device": torch.cuda.get_device_name(), "device_memory_mb": allocated_mb}


def _tracker_status(
    name: str, state: str, problem: str, stats: WorkerStats, rates: Rates
) -> DiagnosticStatus:
    failed_hz = rates.rate_hz("failed", stats.failed)
    level, message = OK, state
    if problem:
        level, message = ERROR, problem
    elif failed_hz > 0:
        level, message = ERROR, f"frames fail: {stats.last_failure}"
    elif stats.paused:
        level, message = WARN, "paused: call ~/enable with data: true to go on"
    elif state == "active" and stats.processed and not stats.object_ids:
        level, message = WARN, "no reference yet: call ~/set_reference"
    facts: dict[str, object] = {
        "state": state,
        "rate_hz": f"{rates.rate_hz('processed', stats.processed):.1f}",
        "received": stats.received,
        "processed": stats.processed,
        "dropped": stats.dropped,
        "failed": stats.failed,
        "latency_ms": f"{1000 * stats.latency_s:.1f}",
    }
    facts |= device_facts()
    facts |= {f"stage {stage} ms": f"{spent:.1f}" for stage, spent in stats.stage_ms.items()}
    return _status(f"{name}: tracker", level, message, facts)


def _status(name: str, level: bytes, message: str, facts: dict[str, Any]) -> DiagnosticStatus:
    values = [KeyValue(key=key, value=str(value)) for key, value in facts.items()]
    return DiagnosticStatus(name=name, level=level, message=message, hardware_id="", values=values)
