"""The order in which calls wait, and that many of them cost no more each than few."""

from __future__ import annotations

import time
from typing import Any

from cexec.python.calls.call_queue import CallQueue

MANY = 100_000
MOST_SECONDS = 5.0  # of this process; a queue that looks for each call takes minutes


def test_calls_come_out_in_their_order_and_those_that_come_again_first() -> None:
    queue: Any = CallQueue()
    for call in "abc":
        queue.append(call)
    queue.appendleft("again")
    queue.discard("b")
    queue.discard("not here")
    assert (len(queue), queue.first, list(queue)) == (3, "again", ["again", "a", "c"])
    assert [queue.popleft() for _ in range(3)] == ["again", "a", "c"]
    queue.append("d")
    queue.clear()
    assert not queue


def test_each_of_many_calls_is_dropped_at_once() -> None:
    queue: Any = CallQueue()
    for call in range(MANY):
        queue.append(call)
    began = time.process_time()
    for call in reversed(range(MANY)):
        queue.discard(call)
    assert not queue and time.process_time() - began < MOST_SECONDS
