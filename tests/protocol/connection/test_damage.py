"""A small session with one bit flipped, or with its end, at any byte of both directions: never a success.

docs/protocol.md sections 4.1 and 4.4: a connection that ends without an authenticated exit frame is a failure.
"""

from __future__ import annotations

from typing import Any

import pytest

from cexec.errors import CexecError, DisconnectedError, ProtocolError
from cexec.protocol.base.limits import FIRST_REVISION, SECOND_REVISION
from cexec.protocol.connection import frames
from cexec.protocol.connection.session import OFFERING, Event
from cexec.protocol.datagrams.announcement import SealedAnnouncement
from tests.protocol.wires import (
    APPLICATION,
    ClientRobot,
    Damage,
    Wire,
    WorkerRobot,
    client_handshake,
    job,
    join,
    worker_handshake,
)

DIRECTIONS = ("to_client", "to_worker")
each_direction = pytest.mark.parametrize("direction", DIRECTIONS)
# Every third byte in the usual run.  The campaign has them all.
each_offset = pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.campaign)])


class Setting:
    """An announcement, and the revision of the connections that answer it."""

    def __init__(self, revision: int) -> None:
        self.sealed = APPLICATION.announce()
        self.revision = revision


def played(setting: Setting, direction: str = "to_client", **damage: int) -> Wire:
    """The session, with damage to one direction."""
    damaged: dict[str, Any] = {direction: Damage(**damage)}
    return join(sealed=setting.sealed, revision=setting.revision, robots=True, **damaged).flow()


@pytest.fixture(scope="module", params=[FIRST_REVISION, SECOND_REVISION])
def setting(request: pytest.FixtureRequest) -> Setting:
    return Setting(request.param)


@pytest.fixture(scope="module")
def whole(setting: Setting) -> Wire:
    """The session without damage: it succeeds, so that the failures below have a cause."""
    wire = played(setting).raise_errors()
    assert [result.exit_status for result in wire.client.exits] == [3]
    return wire


def carried(wire: Wire, direction: str) -> int:
    damage: Damage = getattr(wire, direction)
    return len(damage.carried)


@each_offset
@each_direction
def test_a_flipped_bit_anywhere_is_never_an_exit(setting: Setting, whole: Wire, direction: str, step: int) -> None:
    assert carried(whole, direction) > 150
    for offset in range(0, carried(whole, direction), step):
        wire = played(setting, direction, flip=offset)
        assert wire.client.exits == [], offset
        errors: list[CexecError | None] = [wire.client.error, wire.worker.error]
        # A length that has become larger makes its reader wait; everything else is noticed at once.
        assert errors == [None, None] or any(isinstance(error, ProtocolError) for error in errors), offset


@each_offset
@each_direction
def test_an_end_anywhere_is_never_an_exit(setting: Setting, whole: Wire, direction: str, step: int) -> None:
    for size in range(0, carried(whole, direction), step):
        wire = played(setting, direction, cut=size)
        assert wire.client.exits == [], size
        assert isinstance(wire.client.error, DisconnectedError) or isinstance(wire.worker.error, DisconnectedError)


def test_an_end_after_the_exit_frame_is_too_late_to_hurt(setting: Setting, whole: Wire) -> None:
    wire = played(setting, "to_client", cut=carried(whole, "to_client"))
    assert [result.exit_status for result in wire.client.exits] == [3]


# Two jobs, the second of which is given in advance


class TwoJobsClient(ClientRobot):
    """Gives the second job while the first one begins."""

    def react(self, event: Event, now: float) -> None:
        super().react(event, now)
        if event.kind == frames.CONFIRM and not self.exits:
            self.session.go_ahead(job(job_id=b"the second job  "), {0: b"more input"})


class TwoJobsWorker(WorkerRobot):
    """Begins the job that it has in advance when the first one is over."""

    def receive(self, data: bytes, now: float) -> None:
        super().receive(data, now)
        if self.error is None and self.session.state == OFFERING and self.session.ahead is not None:
            try:
                self._begin(now)
            except CexecError as error:
                self.error = error

    def _begin(self, now: float) -> None:
        self.output.clear()
        self.session.begin_ahead()
        self.session.started()
        while (following := self.session.next_event()) is not None:
            self.output[0] = self.output.get(0, b"") + bytes(following.data)
            self.react(following, now)


def two_jobs(sealed: SealedAnnouncement, direction: str = "to_client", **damage: int) -> Wire:
    worker = worker_handshake(APPLICATION.hear(sealed).handshake(), APPLICATION.worker, revision=SECOND_REVISION)
    client = client_handshake(sealed.handshake(), APPLICATION.client)
    damaged: dict[str, Any] = {direction: Damage(**damage)}
    return Wire(TwoJobsWorker(worker), TwoJobsClient(client), **damaged).flow()


@each_offset
@each_direction
@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_damage_to_two_jobs_makes_no_exit_of_what_was_damaged(direction: str, damage: str, step: int) -> None:
    sealed = APPLICATION.announce()
    sound = two_jobs(sealed).raise_errors()
    assert [result.exit_status for result in sound.client.exits] == [3, 3]
    assert sound.client.output[1] == ClientRobot.INPUT[::-1] + b"more input"[::-1]
    counts: set[int] = set()
    for offset in range(0, carried(sound, direction), step):
        wire = two_jobs(sealed, direction, **{damage: offset})
        counts.add(len(wire.client.exits))
        assert [result.exit_status for result in wire.client.exits] in ([], [3]), offset
        assert sound.client.output[1].startswith(wire.client.output.get(1, b"")), offset
    assert 0 in counts
