"""Texts of a hostile worker that are as long as a frame can be: the job fails with a short reason, and nothing waits.

What a client writes for a person is bounded, whatever a worker says: a text has 1 KiB, of which each byte may be
escaped, and a frame that has more is no frame of this protocol.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cexec.protocol.base.limits import MAXIMUM_DATA, MAXIMUM_TEXT
from cexec.protocol.connection import frames
from cexec.protocol.connection.frames import EXITED, HERE, LIMITED, PERMANENT, Exit, Refusal
from tests.fake_worker import LOOPBACK, Connection, FakeWorker
from tests.service import Application

Play = Callable[[Connection], None]
HUGE = b"\x1b" * MAXIMUM_DATA  # the largest body of a frame
LONGEST = "\x1b" * MAXIMUM_TEXT
MOST_WRITTEN = 8 * 1024  # bytes, for one attempt: four for each byte of a text, and the words around it
HEAD = 26  # bytes of an exit frame before its endings: kind, status, three numbers


def started_and(kind: int, body: bytes, stream: int = 0) -> Play:
    def play(connection: Connection) -> None:
        connection.take().start().frame(kind, body, stream)
        connection.wait_for_end()

    return play


def taken_and(kind: int, body: bytes) -> Play:
    def play(connection: Connection) -> None:
        connection.take().frame(kind, body)
        connection.wait_for_end()

    return play


def confirmed_and(kind: int, body: bytes) -> Play:
    def play(connection: Connection) -> None:
        connection.shake().confirm().frame(kind, body)
        connection.wait_for_end()

    return play


def exit_with(endings: int, message: int) -> bytes:
    """An exit frame that says that it has so many endings, and a message of so many bytes."""
    whole = Exit(kind=EXITED, status=0, endings=[]).encode()
    body = whole[:HEAD] + endings.to_bytes(2, "big") + bytes(12 * endings) + message.to_bytes(4, "big") + HUGE
    return body[:MAXIMUM_DATA]


def limited(connection: Connection) -> None:
    connection.take().start()
    connection.read()
    connection.end(1, 2).ends(Exit(kind=LIMITED, status=1, message=LONGEST, endings=[]))
    connection.wait_for_end()


PLAYS: dict[str, Play] = {
    "STARTED": taken_and(frames.STARTED, HUGE),
    "REFUSED": taken_and(frames.REFUSED, bytes([HERE]) + HUGE[1:]),
    "REFUSED for all": taken_and(frames.REFUSED, bytes([PERMANENT]) + HUGE[1:]),
    "REFUSED of the longest text": taken_and(frames.REFUSED, Refusal(PERMANENT, LONGEST).encode()),
    "PROGRAM": taken_and(frames.PROGRAM, HUGE),
    "WITHDRAW": confirmed_and(frames.WITHDRAW, HUGE),
    "WITHDRAW of the longest text": confirmed_and(frames.WITHDRAW, LONGEST.encode()),
    "BROKEN": started_and(frames.BROKEN, HUGE, 1),
    "BROKEN of the longest text": started_and(frames.BROKEN, LONGEST.encode(), 1),
    "EXIT with a long message": started_and(frames.EXIT, exit_with(0, MAXIMUM_DATA)),
    "EXIT with many endings": started_and(frames.EXIT, exit_with(0xFFFF, 0)),
    "EXIT with the longest message": limited,
}


@pytest.mark.parametrize("name", PLAYS)
def test_a_huge_text_of_a_worker_fails_the_job_with_a_short_reason(name: str, application: Application) -> None:
    settings = {**LOOPBACK, "CEXEC_TIMEOUT_ACCEPT": "2"}
    with FakeWorker(application, PLAYS[name]):
        ended = application.run("--retries", "0", environment=settings, timeout=60)
    assert ended.returncode != 0 and ended.stdout == b""
    assert 0 < len(ended.stderr) <= MOST_WRITTEN
    assert all(line.isprintable() for line in ended.stderr.decode().splitlines())
