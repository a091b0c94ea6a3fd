"""Descriptors that a test leaves open: the numbers of one process are few, and later tests count on small ones.

Contract: `left_open` names those that were not there before; what a thread of the test still closes is waited for.
`end_of_process` closes them, as the end of a process would: for objects that a process has for its whole life, and for
tests that play a process that is killed.
"""

from __future__ import annotations

import gc
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from tests import forked
from tests.waiting import comes_true

PATIENCE = 10.0  # seconds, which only a test that leaves something takes


def descriptors() -> dict[int, str]:
    """What this process has open, by number."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            pass  # the one by which this list was read
    return found


def new_since(before: dict[int, str]) -> dict[int, str]:
    kept = {server.fileno() for server in forked.servers}  # started by the first test that wants one, for all others
    return {n: name for n, name in descriptors().items() if before.get(n) != name and n not in kept}


def left_open(before: dict[int, str], patience: float = PATIENCE) -> dict[int, str]:
    """What is open now and was not `before`, after the garbage collector has closed what nobody holds any more."""
    if new_since(before):
        gc.collect()
        comes_true(lambda: not new_since(before), patience)
    return new_since(before)


@contextmanager
def end_of_process() -> Iterator[None]:
    """Closes what is left open at the end; not sockets, which Python's objects close by themselves."""
    before = descriptors()
    yield
    for number in left_open(before, patience=0.0):
        try:
            if not stat.S_ISSOCK(os.fstat(number).st_mode):
                os.close(number)
        except OSError:
            pass  # a thread of the test was faster
