"""PING, PONG, silence, and having been stopped, docs/protocol.md section 4.4."""

from __future__ import annotations

import pytest

from cexec.errors import DisconnectedError, SilentPeerError
from cexec.protocol.base.limits import DEFAULT_IDLE_TIMEOUT, PING_INTERVAL, RECORD_HEADER
from cexec.protocol.connection import frames
from cexec.protocol.connection.session import RUNNING, Session
from tests.protocol.connection.sessions import client_in, told, worker_in
from tests.protocol.wires import running


class Watch:
    """A driver that calls `handle_timeout` when it is asked to, and notes what the session then does."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.now = 0.0
        self.pings: list[float] = []
        self.dead: float | None = None

    def run(self, until: float) -> None:
        while self.dead is None and self.session.next_timeout() <= until:
            assert self.session.next_timeout() > self.now or self.now == 0.0
            self.now = max(self.now, self.session.next_timeout())
            self.wake()
        self.now = max(self.now, until)

    def wake(self) -> None:
        try:
            self.session.handle_timeout(self.now)
        except DisconnectedError:
            self.dead = self.now
        self.pings += [self.now] * self.session.data_to_send().count(frames.frame(frames.PING))

    def hear(self) -> None:
        told(self.session, frames.PONG, now=self.now)


@pytest.mark.parametrize("idle_timeout", [DEFAULT_IDLE_TIMEOUT, 120.0, 10.0])
def test_a_silent_peer_is_asked_once_and_then_dead(idle_timeout: float) -> None:
    """A driver that woke only when it was asked to took the wait for the peer as its own sleep, and waited for ever."""
    watch = Watch(Session(worker=True, now=0.0, idle_timeout=idle_timeout))
    watch.run(3 * idle_timeout)
    assert watch.pings == [min(PING_INTERVAL, idle_timeout / 2)]
    assert watch.dead == idle_timeout


def test_the_reason_is_told() -> None:
    session = Session(worker=True, now=0.0)
    with pytest.raises(DisconnectedError, match="peer has been silent for 600 seconds"):
        for now in range(0, 700, 10):
            session.handle_timeout(float(now))


def test_a_peer_that_answers_lives() -> None:
    watch = Watch(Session(worker=False, now=0.0))
    for minute in range(1, 60):
        watch.run(minute * 60.0)
        watch.hear()
    assert watch.dead is None and len(watch.pings) >= 29


def test_any_frame_is_a_sign_of_life() -> None:
    watch = Watch(client_in(RUNNING, started=True))
    for second in range(1, 2000):
        watch.run(float(second))
        told(watch.session, frames.DATA, b"x", 1, now=watch.now)
    assert watch.dead is None and watch.pings == []


@pytest.mark.parametrize("asleep_at", [0.0, 30.0, 61.0, 500.0])
def test_after_having_been_stopped_ourselves_the_peer_gets_its_time_again(asleep_at: float) -> None:
    watch = Watch(Session(worker=False, now=0.0))
    watch.run(asleep_at)
    watch.now += 3600.0
    watch.wake()
    assert watch.dead is None
    woken = watch.now
    watch.run(woken + 1000.0)
    assert watch.dead == woken + DEFAULT_IDLE_TIMEOUT


def test_a_ping_is_answered_by_one_pong_however_many_wait() -> None:
    """Answers to a peer that asks and takes nothing piled up."""
    session = worker_in(RUNNING)
    for _ in range(1000):
        told(session, frames.PING)
    assert session.data_to_send() == [frames.frame(frames.PONG)]
    assert session.data_to_send() == []


def test_ping_and_pong_over_the_wire() -> None:
    wire = running()
    for side in (wire.client, wire.worker):
        side.session.handle_timeout(PING_INTERVAL)
    wire.now = PING_INTERVAL
    wire.flow().raise_errors()
    assert wire.client.session.next_timeout() == wire.worker.session.next_timeout() == 2 * PING_INTERVAL


@pytest.mark.parametrize("direction", ["to_client", "to_worker"])
def test_a_record_whose_length_was_made_longer_on_the_way_is_silence(direction: str) -> None:
    """Who waits for the rest of it does not wait for ever."""
    wire = running()
    hearer, speaker = (wire.client, wire.worker) if direction == "to_client" else (wire.worker, wire.client)
    damage = getattr(wire, direction)
    damage.flip = len(damage.carried) + RECORD_HEADER - 2  # 256 times some power of two: more than will ever come
    speaker.send_data(0 if hearer is wire.worker else 1, b"data")
    for second in range(1, int(2 * DEFAULT_IDLE_TIMEOUT)):
        wire.now = float(second)
        for side in (hearer, speaker):
            if side.error is None:
                try:
                    side.session.handle_timeout(wire.now)
                except DisconnectedError as error:
                    side.error = error
        wire.flow()
        if hearer.error is not None:
            break
    assert isinstance(hearer.error, DisconnectedError) and "silent" in str(hearer.error)
    assert wire.now == DEFAULT_IDLE_TIMEOUT
    assert frames.DATA not in [kind for kind, _ in hearer.events]


def test_after_this_process_was_stopped_its_peer_is_asked_before_it_is_called_dead() -> None:
    session = Session(worker=True, now=0.0)
    session.handle_timeout(1000.0)  # much later than it was due
    assert session.data_to_send() == []
    session.handle_timeout(1000.0 + PING_INTERVAL)
    assert session.data_to_send() == [frames.frame(frames.PING)]
    for now in (1000.0 + 2 * PING_INTERVAL, 1000.0 + DEFAULT_IDLE_TIMEOUT - 1.0):
        while session.next_timeout() <= now:
            session.handle_timeout(session.next_timeout())
    with pytest.raises(SilentPeerError):
        session.handle_timeout(1000.0 + DEFAULT_IDLE_TIMEOUT)
