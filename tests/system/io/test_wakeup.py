"""Signals that wake a poll loop, and the time that it waits."""

from __future__ import annotations

import math
import os
import select
import signal
from collections.abc import Iterator
from time import monotonic

import pytest

from cexec.system.io.wakeup import LONGEST_POLL, PollSet, Wakeup, detach, poll_timeout, wait_readable

SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)


@pytest.fixture
def wakeup() -> Iterator[Wakeup]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    made = Wakeup()
    yield made
    made.close()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def pipes() -> Iterator[list[tuple[int, int]]]:
    made = [os.pipe(), os.pipe()]
    yield made
    for fd in {fd for pipe in made for fd in pipe}:
        os.close(fd)


def is_readable(wakeup: Wakeup) -> bool:
    return bool(select.select([wakeup], [], [], 0)[0])


def test_signals_make_it_readable_and_are_told_in_their_order(wakeup: Wakeup) -> None:
    wakeup.start(SIGNALS)
    assert not is_readable(wakeup) and wakeup.take() == b""
    for number in (signal.SIGUSR2, signal.SIGUSR1, signal.SIGUSR2):
        os.kill(os.getpid(), number)
    assert is_readable(wakeup)
    assert list(wakeup.take()) == [signal.SIGUSR2, signal.SIGUSR1, signal.SIGUSR2]
    assert not is_readable(wakeup)


def test_a_handler_of_the_callers_stays_in_place(wakeup: Wakeup) -> None:
    came: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, stack: came.append(number))
    wakeup.start()
    os.kill(os.getpid(), signal.SIGUSR1)
    assert came == list(wakeup.take()) == [signal.SIGUSR1]


@pytest.mark.parametrize("end", [Wakeup.stop, lambda wakeup: detach()])
def test_after_the_end_signals_are_not_noted(wakeup: Wakeup, end: object) -> None:
    wakeup.start(SIGNALS)
    assert callable(end)
    end(wakeup)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert wakeup.take() == b""


def test_a_full_pipe_blocks_no_handler(wakeup: Wakeup) -> None:
    wakeup.start(SIGNALS)
    for _ in range(70_000):  # more than a pipe of 64 KiB holds
        signal.raise_signal(signal.SIGUSR1)
    taken = 0
    while some := wakeup.take():
        taken += len(some)
    assert 4096 <= taken <= 70_000


def test_it_closes_its_descriptors_once() -> None:
    before = os.listdir("/proc/self/fd")
    one = Wakeup()
    one.start()
    one.close()
    one.close()
    assert os.listdir("/proc/self/fd") == before
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.parametrize(
    ("seconds", "milliseconds"),
    [(None, None), (0, 0), (-3.5, 0), (-math.inf, 0), (1e-9, 1), (0.001, 1), (0.0011, 2), (1, 1000), (2.5, 2500),
     (1e9, LONGEST_POLL), (math.inf, LONGEST_POLL)],
)  # fmt: skip
def test_poll_gets_whole_milliseconds_rounded_up(seconds: float | None, milliseconds: int | None) -> None:
    assert poll_timeout(seconds) == milliseconds


def test_no_poll_ends_before_its_time() -> None:
    for seconds in (0.0004, 0.0011, 0.0101):
        start = monotonic()
        select.poll().poll(poll_timeout(seconds))
        assert monotonic() - start >= seconds


def test_a_plain_wait_tells_what_can_be_read_and_ends_when_the_time_is_over() -> None:
    (one, other), (third, fourth) = os.pipe(), os.pipe()
    try:
        assert wait_readable([one, third], 0.0) == set()
        os.write(other, b"x")
        assert wait_readable([one, third], None) == {one}
        os.close(fourth)
        assert wait_readable([one, third], 5.0) == {one, third}  # an end counts
        assert wait_readable([third], -1.0) == {third}
    finally:
        for fd in (one, other, third):
            os.close(fd)


def test_a_poll_set_follows_the_descriptors_of_its_loop(pipes: list[tuple[int, int]]) -> None:
    (one, write_one), (other, _) = pipes
    poll = PollSet()
    assert poll.wait({one: select.POLLIN, other: select.POLLIN, write_one: select.POLLOUT}, 0.0) == {
        write_one: select.POLLOUT
    }
    os.write(write_one, b"x")
    assert poll.wait({one: select.POLLIN, other: select.POLLIN}, None) == {one: select.POLLIN}
    assert poll.wait({other: select.POLLIN}, 0.0) == {}
    assert poll.wait({one: select.POLLOUT, other: select.POLLIN}, 0.0) == {}  # another mask for the same descriptor
    assert poll.wait({one: select.POLLIN}, None) == {one: select.POLLIN}


def test_a_poll_set_follows_a_number_that_has_another_owner(pipes: list[tuple[int, int]]) -> None:
    (one, write_one), (other, write_other) = pipes
    poll = PollSet()
    os.write(write_one, b"x")
    assert poll.wait({one: select.POLLIN}, None) == {one: select.POLLIN}
    os.dup2(other, one)
    assert poll.wait({one: select.POLLIN}, 0.0) == {}
    os.write(write_other, b"x")
    assert poll.wait({one: select.POLLIN}, None) == {one: select.POLLIN}
