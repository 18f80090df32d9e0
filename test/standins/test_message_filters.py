"""The synchronisers' answers, worked out by hand, and the same input through the real package where it exists."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2's rclpy")
sys.path.insert(0, str(Path(__file__).parent))
from rclpy.time import Time
from standin_loading import load_standin, real_or_none

STANDIN = load_standin("message_filters")
MS = 1_000_000


def synchronised(
    module: ModuleType, events: list[tuple[int, int]], inputs: int = 2, queue: int = 10, slop_s: float | None = 0.04
) -> list[tuple[int, ...]]:
    """Feed (input, stamp in ms) events; the answer is the event numbers of every callback."""
    filters = [module.SimpleFilter() for _ in range(inputs)]
    sync = (
        module.TimeSynchronizer(filters, queue) if slop_s is None
        else module.ApproximateTimeSynchronizer(filters, queue, slop_s)
    )
    called: list[tuple[int, ...]] = []
    sync.registerCallback(lambda *messages: called.append(tuple(m.number for m in messages)))
    for number, (index, stamp_ms) in enumerate(events):
        stamp = Time(nanoseconds=stamp_ms * MS).to_msg()
        filters[index].signalMessage(SimpleNamespace(header=SimpleNamespace(stamp=stamp), number=number))
    return called


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([(0, 0), (1, 0), (0, 66), (1, 66)], [(0, 1), (2, 3)]),
        ([(1, 66), (0, 0), (0, 66), (1, 0)], [(2, 0), (1, 3)]),  # late and out of order
        ([(0, 0), (1, 1)], []),
        ([(0, 0), (0, 0), (1, 0)], [(1, 2)]),  # a duplicate replaces the first
    ],
)
def test_exact_sync_of_stamps_gives_equal_ones_only(
    events: list[tuple[int, int]], expected: list[tuple[int, ...]]
) -> None:
    assert synchronised(STANDIN, events, slop_s=None) == expected


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([(0, 0), (1, 39)], [(0, 1)]),
        ([(0, 0), (1, 40)], []),  # slop itself is too far
        ([(0, 0), (0, 30), (1, 20)], [(1, 2)]),  # the nearest
        ([(0, 40), (0, 0), (1, 20)], [(0, 2)]),  # equally near: the one that arrived first
    ],
)
def test_approximate_sync_of_two_inputs_takes_nearest_within_slop(
    events: list[tuple[int, int]], expected: list[tuple[int, ...]]
) -> None:
    assert synchronised(STANDIN, events) == expected


def test_approximate_sync_of_three_inputs_needs_all_within_slop() -> None:
    assert synchronised(STANDIN, [(0, 0), (1, 50), (2, 25)], inputs=3) == []
    assert synchronised(STANDIN, [(0, 0), (1, 30), (2, 15)], inputs=3) == [(0, 1, 2)]


@pytest.mark.parametrize("slop_s", [None, 0.04])
def test_full_queue_forgets_oldest_stamp(slop_s: float | None) -> None:
    events = [(0, 0), (0, 100), (0, 200), (1, 0), (1, 100)]
    assert synchronised(STANDIN, events, queue=2, slop_s=slop_s) == [(1, 4)]
    assert synchronised(STANDIN, [(0, 100), (0, 200), (0, 0), (1, 0)], queue=2, slop_s=slop_s) == []


def test_callback_that_raises_leaves_synchroniser_usable() -> None:
    source = STANDIN.SimpleFilter()
    sync = STANDIN.TimeSynchronizer([source], 1)
    sync.registerCallback(lambda message: message.missing)
    message = SimpleNamespace(header=SimpleNamespace(stamp=Time().to_msg()))
    for _ in range(2):
        with pytest.raises(AttributeError, match="missing"):
            source.signalMessage(message)


def test_message_without_header_is_dropped_unless_allowed() -> None:
    for allowed, expected in ((False, 0), (True, 1)):
        source = STANDIN.SimpleFilter()
        sync = STANDIN.ApproximateTimeSynchronizer([source], 1, 0.04, allow_headerless=allowed)
        called: list[Any] = []
        sync.registerCallback(called.append)
        source.signalMessage(SimpleNamespace())
        assert len(called) == expected


def test_random_sequences_give_same_callbacks_as_real_package() -> None:
    real = real_or_none("message_filters")
    if real is None:
        pytest.skip("the real message_filters is not installed")
    rng = random.Random(0)
    for _ in range(300):
        inputs = rng.randint(1, 4)
        events = [(rng.randrange(inputs), rng.randrange(0, 300, 5)) for _ in range(40)]
        queue, slop_s = rng.choice([1, 3, 10]), rng.choice([None, 0.01, 0.04, 0.1])
        assert synchronised(STANDIN, events, inputs, queue, slop_s) == synchronised(real, events, inputs, queue, slop_s)
