"""The rule of silence on a clock of the test, and the kernel's knowledge of a connection over loopback."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from cexec.errors import DisconnectedError
from cexec.net import liveness
from cexec.net.liveness import Liveness, unacknowledged
from cexec.protocol.connection.silence import LONGEST_SILENCE, LOOK_INTERVAL
from tests.waiting import PATIENCE, wait_until


class Kernel:
    """Plays the kernel: `waiting`, and the time of the last acknowledgement."""

    def __init__(self) -> None:
        self.waiting = False
        self.acknowledged = 0.0
        self.now = 0.0

    def unacknowledged(self, connection: socket.socket) -> tuple[bool, float]:
        return self.waiting, self.now - self.acknowledged


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    playing = Kernel()
    monkeypatch.setattr(liveness, "unacknowledged", playing.unacknowledged)
    return playing


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    with one, other:
        one.setblocking(False)
        yield one, other


def advance(kernel: Kernel, watch: Liveness, until: float) -> list[float]:
    """Looks whenever that is due; returns the times."""
    looks = []
    while (due := watch.next_timeout()) is not None and due <= until:
        kernel.now = due
        looks.append(due)
        watch.handle_timeout(due)
    kernel.now = until
    return looks


def test_an_idle_connection_costs_one_look(kernel: Kernel) -> None:
    with socket.socket() as connection:
        watch = Liveness(connection)
        assert watch.next_timeout() is None
        watch.stepped(100.0)
        assert advance(kernel, watch, 1000.0) == [100.0 + LOOK_INTERVAL]
        assert watch.next_timeout() is None


def test_a_peer_that_acknowledges_nothing_is_dead_after_15_seconds(kernel: Kernel) -> None:
    with socket.socket() as connection:
        watch = Liveness(connection)
        kernel.waiting, kernel.acknowledged = True, 100.0
        watch.stepped(100.0)
        with pytest.raises(DisconnectedError, match="has not answered for 15 seconds"):
            advance(kernel, watch, 1000.0)
        assert LONGEST_SILENCE <= kernel.now - 100.0 <= LONGEST_SILENCE + LOOK_INTERVAL


def test_an_old_acknowledgement_is_no_silence_before_something_was_sent(kernel: Kernel) -> None:
    """After ten minutes without a byte the last acknowledgement is ten minutes old."""
    with socket.socket() as connection:
        watch = Liveness(connection)
        kernel.waiting = True
        watch.stepped(600.0)
        advance(kernel, watch, 600.0 + LONGEST_SILENCE - 0.1)
        kernel.acknowledged = kernel.now
        advance(kernel, watch, 620.0)
        kernel.waiting = False
        advance(kernel, watch, 1000.0)
        assert watch.next_timeout() is None


def test_a_peer_that_acknowledges_now_and_then_is_alive(kernel: Kernel) -> None:
    with socket.socket() as connection:
        watch = Liveness(connection)
        kernel.waiting = True
        watch.stepped(0.0)
        for minute in range(100):
            kernel.acknowledged = minute * 14.0
            assert len(advance(kernel, watch, (minute + 1) * 14.0)) <= 5


def test_a_probe_after_a_long_pause_has_15_seconds_to_be_answered(kernel: Kernel) -> None:
    """The kernel asks a closed window less and less often."""
    with socket.socket() as connection:
        watch = Liveness(connection)
        for pause in (10.0, 100.0, 1000.0):
            kernel.waiting = True
            watch.stepped(pause)
            advance(kernel, watch, pause + 10.0)
            kernel.waiting, kernel.acknowledged = False, pause + 10.0
            advance(kernel, watch, pause + 20.0)
            assert watch.next_timeout() is None


def test_what_the_kernel_says(pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = pair
    one.sendall(b"x")
    other.recv(1)
    wait_until(lambda: not unacknowledged(one)[0])  # the acknowledgement may be delayed
    assert unacknowledged(one)[1] < PATIENCE


def test_a_socket_that_is_no_connection_owes_nothing() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert unacknowledged(one) == (False, 0.0)
        Liveness(one)
    assert unacknowledged(one) == (False, 0.0)
