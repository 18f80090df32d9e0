"""Stand-in for the part of message_filters that nocsfm_ros calls: subscribers and two synchronisers.

Messages wait in one dictionary per input, keyed by stamp in nanoseconds and in order of arrival.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from threading import Lock
from typing import Any

from rclpy.clock import ROSClock
from rclpy.duration import Duration
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.time import Time

__all__ = ["ApproximateTimeSynchronizer", "SimpleFilter", "Subscriber", "TimeSynchronizer"]


class SimpleFilter:
    """Something that hands messages on to the callbacks registered with it, in that order."""

    def __init__(self) -> None:
        self.callbacks: dict[int, tuple[Callable[..., None], tuple[Any, ...]]] = {}

    def registerCallback(self, cb: Callable[..., None], *args: Any) -> int:
        """Have `cb(*messages, *args)` called for every output; the answer is the connection's number."""
        connection = len(self.callbacks)
        self.callbacks[connection] = (cb, args)
        return connection

    def signalMessage(self, *msg: Any) -> None:
        """Hand the messages to every callback."""
        for cb, args in self.callbacks.values():
            cb(*msg, *args)


class Subscriber(SimpleFilter):
    """A subscription as the source of a chain of filters; `sub` is rclpy's own subscription."""

    def __init__(
        self, node: Node, msg_type: type, topic: str, *, qos_profile: QoSProfile | int = 10, **kwargs: Any
    ) -> None:
        super().__init__()
        self.node = node
        self.topic = topic
        self.sub = node.create_subscription(msg_type, topic, self.signalMessage, qos_profile=qos_profile, **kwargs)

    def getTopic(self) -> str:
        """The topic as it was asked for, before remapping."""
        return self.topic


class TimeSynchronizer(SimpleFilter):
    """Calls back with one message of every input once all have the same stamp.

    Callbacks run under the lock, so they must not feed an input of the same synchroniser.
    """

    def __init__(self, fs: Sequence[SimpleFilter], queue_size: int) -> None:
        super().__init__()
        self.queue_size = queue_size
        self.queues: list[dict[int, Any]] = [{} for _ in fs]
        self.lock = Lock()
        self.input_connections = [f.registerCallback(self._add, index) for index, f in enumerate(fs)]

    def _add(self, msg: Any, index: int) -> None:
        stamp_ns = Time.from_msg(msg.header.stamp).nanoseconds
        with self.lock:
            self._store(msg, index, stamp_ns)
            for common_ns in sorted(set.intersection(*map(set, self.queues))):
                self._emit([common_ns] * len(self.queues))

    def _store(self, msg: Any, index: int, stamp_ns: int) -> None:
        """Keep a message; the oldest stamps (the new one too, when it is late) give way."""
        queue = self.queues[index]
        queue[stamp_ns] = msg
        while len(queue) > self.queue_size:
            del queue[min(queue)]

    def _emit(self, stamps_ns: Sequence[int]) -> None:
        """Hand on, then forget, the message with the given stamp of every input."""
        pairs = list(zip(self.queues, stamps_ns, strict=True))
        self.signalMessage(*(queue[stamp_ns] for queue, stamp_ns in pairs))
        for queue, stamp_ns in pairs:
            del queue[stamp_ns]


class ApproximateTimeSynchronizer(TimeSynchronizer):
    """Calls back with one message of every input once their stamps lie less than `slop` seconds apart.

    A new message looks for partners at once, those nearest to its own stamp first, and takes at most one set.
    """

    def __init__(
        self, fs: Sequence[SimpleFilter], queue_size: int, slop: float, allow_headerless: bool = False
    ) -> None:
        super().__init__(fs, queue_size)
        self.slop = Duration(seconds=slop)
        self.allow_headerless = allow_headerless

    def _add(self, msg: Any, index: int) -> None:
        stamp_ns = self._stamp_ns(msg)
        if stamp_ns is None:
            get_logger("message_filters_approx").warning(
                f"{type(msg).__name__} has no header.stamp and is dropped; pass allow_headerless=True to use"
                " the time of its arrival instead"
            )
            return
        with self.lock:
            self._store(msg, index, stamp_ns)
            chosen = self._partners(index, stamp_ns)
            if chosen is not None:
                self._emit(chosen)

    def _stamp_ns(self, msg: Any) -> int | None:
        stamp = getattr(getattr(msg, "header", None), "stamp", None)
        if stamp is None:
            return ROSClock().now().nanoseconds if self.allow_headerless else None
        return stamp.nanoseconds if hasattr(stamp, "nanoseconds") else Time.from_msg(stamp).nanoseconds

    def _partners(self, index: int, stamp_ns: int) -> tuple[int, ...] | None:
        """The stamp to take from every input, or None.

        Among partners equally near to the new message the one that arrived first wins (`sorted` is stable).
        """
        if stamp_ns not in self.queues[index]:  # came too late for a full queue
            return None
        slop_ns = self.slop.nanoseconds

        def distance_ns(other_ns: int) -> int:
            return abs(other_ns - stamp_ns)

        near = [
            [stamp_ns] if i == index
            else sorted((other_ns for other_ns in queue if distance_ns(other_ns) <= slop_ns), key=distance_ns)
            for i, queue in enumerate(self.queues)
        ]
        return next((stamps for stamps in product(*near) if max(stamps) - min(stamps) < slop_ns), None)
