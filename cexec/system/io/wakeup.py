"""Helps a poll loop to wait: a descriptor that signals make readable, descriptors, and time in poll's milliseconds.

`wait_readable` is one plain wait; a `PollSet` is for a loop whose descriptors change seldom.

Contract: between `start` and `stop` every signal that has a Python handler makes `Wakeup.fileno()` readable, and `take`
returns the numbers of the signals that came, oldest first; it never blocks.  Only the main thread may use a `Wakeup`,
and a process has one at a time, because Python keeps one such descriptor.  A forked process calls `detach`.
"""

from __future__ import annotations

import _signal  # `signal` costs 4 ms at start, most of them for enum
import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

LONGEST_POLL = (1 << 31) - 1  # milliseconds: poll(2) takes an int
_READ = 256  # signals (ours) taken at once; what is left keeps the descriptor readable


class Wakeup:
    """The self-pipe: Python writes to one end the number of each signal that comes, and the loop polls the other."""

    __slots__ = ("_reading", "_writing")

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._reading, False)
        os.set_blocking(self._writing, False)  # when the pipe is full, signals are lost, but no handler blocks

    def fileno(self) -> int:
        return self._reading

    def start(self, numbers: Iterable[int] = ()) -> None:
        """Begins to note signals; those of `numbers` do nothing else from now on.

        They stay ignored if they are, but for SIGTERM: whoever asks a service to stop must not be left with SIGKILL.
        """
        _signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        for number in numbers:
            ignored = _signal.getsignal(number) == _signal.SIG_IGN  # nohup, or a script's job in the background
            if not ignored or number == _signal.SIGTERM:
                _signal.signal(number, do_nothing)

    def stop(self) -> None:
        """Notes no more signals.  Their handlers stay."""
        detach()

    def take(self) -> bytes:
        """Returns the numbers of the signals that came, each as a byte; empty if none came."""
        try:
            return os.read(self._reading, _READ)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        """Stops, and closes both ends; may be called again."""
        if self._reading >= 0:
            self.stop()
            os.close(self._reading)
            os.close(self._writing)
            self._reading = self._writing = -1


def do_nothing(number: int, stack: object) -> None:
    """The handler of a signal that only has to wake the loop: the descriptor has its number already."""


def detach() -> None:
    """Makes signals write to no descriptor: in a forked process it is its parent's."""
    _signal.set_wakeup_fd(-1)


def wait_readable(fds: Iterable[int], seconds: float | None) -> set[int]:
    """Waits until one of them is readable, or has failed, or the time is over; returns those that are."""
    return wait_ready(dict.fromkeys(fds, select.POLLIN), seconds)


def wait_ready(masks: Mapping[int, int], seconds: float | None) -> set[int]:
    """Waits until a descriptor is ready for what its mask asks, or has failed, or the time is over; returns those."""
    poll = select.poll()
    for fd, mask in masks.items():
        poll.register(fd, mask)
    return {fd for fd, _ in poll.poll(poll_timeout(seconds))}


class PollSet:
    """The descriptors of a loop: poll(2) is told only of those that have changed since the last wait."""

    __slots__ = ("_masks", "_poll")

    def __init__(self) -> None:
        self._poll = select.poll()
        self._masks: dict[int, int] = {}

    def wait(self, masks: dict[int, int], seconds: float | None) -> dict[int, int]:
        """Waits for what the masks ask, None for any time; returns what has happened.  `masks` is kept."""
        return dict(self.prepared(masks)(poll_timeout(seconds)))

    def prepared(self, masks: dict[int, int]) -> Callable[[int | None], list[tuple[int, int]]]:
        """Returns what waits for the masks."""
        if masks != self._masks:
            for fd in self._masks.keys() - masks.keys():
                self._poll.unregister(fd)
            for fd, mask in masks.items():
                self._poll.register(fd, mask)
            self._masks = masks
        return self._poll.poll


def poll_timeout(seconds: float | None) -> int | None:
    """Returns poll's milliseconds.

    None waits for ever.  A time that has passed is 0.  The rest is rounded up, because a loop that wakes before its
    timer is due finds nothing to do and polls again at once.
    """
    if seconds is None:
        return None
    if seconds <= 0:
        return 0
    return int(-(-min(seconds * 1000, LONGEST_POLL) // 1))
