"""What a client at a terminal says to its worker, which the test plays: docs/protocol.md section 4.5."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from cexec.protocol.connection import frames
from cexec.protocol.connection.frames import Exit
from cexec.protocol.connection.terminal_request import TerminalRequest, fits
from tests.fake_worker import LOOPBACK, Connection, FakeWorker
from tests.screen import Screen
from tests.service import Application

Play = Callable[[Connection], None]
CONFUSED = b"\x1b[?1049h\x1b[?25l\x1b[?1003hin an editor"


def begin(connection: Connection) -> Connection:
    """As a worker that gives terminals, up to STARTED."""
    connection.shake(gives_terminal=True).confirm()
    connection.go = connection.hear(frames.GO).go
    return connection.start()


def at_terminal(application: Application, play: Play, act: Callable[[Screen, int], None], *options: str) -> Screen:
    """Lets a person `act` at a terminal of 90 columns and 30 rows; returns the screen, which is as before."""
    argv, environment = application.client("-t", *options, environment=LOOPBACK)
    with FakeWorker(application, play), Screen(90, 30) as screen:
        before = screen.modes()
        process = screen.run(argv, {**environment, "TERM": "vt220"})
        act(screen, process.pid)
        screen.wait_for(lambda lines: process.poll() is not None)
        assert screen.modes() == before
        screen.lines()
        screen.status = process.returncode
    return screen


def test_a_job_from_go_to_exit(application: Application) -> None:
    heard: list[object] = []

    def play(connection: Connection) -> None:
        go = begin(connection).go
        assert go is not None and fits(go.streams) and [stream.number for stream in go.streams] == [0, 1, 2]
        request = TerminalRequest.decode(go.options["terminal"])
        heard.append((request.rows, request.columns, request.term, request.settings["erase"]))
        connection.write(1, b"ready\r\n")
        heard.append(frames.parse_window(connection.hear(frames.WINDOW).number))
        heard.append(connection.read(size=5))
        heard.append(connection.hear(frames.SIGNAL).number)
        connection.write(1, b"bye\n").end(1).exit(7)
        connection.wait_for_end()

    def act(screen: Screen, pid: int) -> None:
        screen.wait_for("ready")
        screen.resize(100, 40)
        screen.wait_for(lambda lines: len(heard) == 2)
        screen.type(b"\x03\x04~\r\x1a")
        screen.wait_for(lambda lines: len(heard) == 3)
        os.kill(pid, 10)

    screen = at_terminal(application, play, act)
    assert heard == [(30, 90, "vt220", 127), (40, 100), b"\x03\x04~\r\x1a", 10]
    assert (screen.status, screen.raw) == (7, b"ready\r\nbye\n")  # as it came: the worker's terminal has output modes


def waits(screen: Screen, pid: int) -> None:
    screen.wait_for(lambda lines: b"editor" in screen.raw)


def leaves(screen: Screen, pid: int) -> None:
    waits(screen, pid)
    screen.type(b"\r~.")


def vanishes(connection: Connection) -> None:
    begin(connection).write(1, CONFUSED).close()


def breaks_off(connection: Connection) -> None:
    begin(connection).write(1, CONFUSED + b"\x1b[3").breaks(1, "the terminal is on fire")
    connection.wait_for_end()


def lies(connection: Connection) -> None:
    begin(connection).write(1, CONFUSED).frame(frames.PROGRAM, b"linux-x86_64").wait_for_end()


def is_killed(connection: Connection) -> None:
    begin(connection).write(1, CONFUSED).end(1)
    connection.ends(Exit(kind=frames.SIGNALLED, status=9, endings=[]))
    connection.wait_for_end()


def stays(connection: Connection) -> None:
    begin(connection).write(1, CONFUSED).wait_for_end()


@pytest.mark.parametrize(
    ("play", "act", "status"),
    [
        (vanishes, waits, 111),
        (breaks_off, waits, 111),
        (lies, waits, 111),
        (is_killed, waits, 137),
        (stays, leaves, 111),
    ],
)
def test_what_a_worker_leaves_on_the_screen_is_undone(
    application: Application, play: Play, act: Callable[[Screen, int], None], status: int
) -> None:
    screen = at_terminal(application, play, act)
    assert screen.status == status
    for undone in (b"\x1b[?1049l", b"\x1b[?25h", b"\x1b[?1003l"):
        assert undone in screen.raw.partition(b"an editor")[2]


def test_a_program_that_ends_by_itself_leaves_what_it_wants(application: Application) -> None:
    def play(connection: Connection) -> None:
        begin(connection).write(1, CONFUSED).end(1).exit(0)
        connection.wait_for_end()

    assert at_terminal(application, play, waits).raw == CONFUSED


def test_a_repetition_that_nobody_notices(application: Application) -> None:
    """Nothing was typed and nothing was shown when the first worker was lost."""
    attempts: list[int] = []

    def play(connection: Connection) -> None:
        attempts.append(connection.attempt)
        begin(connection)
        if len(attempts) == 1:
            connection.close()
            return
        connection.write(1, b"an editor").end(1).exit(0)
        connection.wait_for_end()

    argv, environment = application.client("-t", environment=LOOPBACK)
    with FakeWorker(application, play, attempts=2), Screen() as screen:
        assert screen.end(screen.run(argv, environment)) == 0
        assert screen.lines()[-1] == "an editor" and "running the job again" in "".join(screen.lines())
    assert attempts == [1, 2]
