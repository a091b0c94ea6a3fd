"""What a hostile worker makes its client write to the terminal: all of its texts appear, and none of them acts."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Callable

import pytest

from cexec.protocol.connection import frames
from cexec.protocol.connection.frames import Exit
from tests.environment import command, local_environment
from tests.fake_worker import LOOPBACK, Connection, FakeWorker
from tests.service import Application

EVIL = "a" + "".join(map(chr, [*range(1, 0x20), 0x7F, *range(0x80, 0xA0)])) + "\u202e\u2066\u2028\ufeff]0;evil\x07z"
ABOVE_MAXFD = 33  # the lowest descriptor that CEXEC_FD_FOR_ERRORS may be
Play = Callable[[Connection], None]


def refuses(connection: Connection) -> None:
    connection.take().refuse(frames.PERMANENT, EVIL)


def refuses_here(connection: Connection) -> None:
    connection.take().refuse(frames.HERE, EVIL)


def ends_with_words(connection: Connection) -> None:
    connection.take().start()
    connection.read()
    connection.end(1, 2).ends(Exit(kind=frames.LIMITED, status=1, message=EVIL, endings=[]))
    connection.wait_for_end()


def breaks_an_output(connection: Connection) -> None:
    connection.take().start()
    connection.breaks(1, EVIL)
    connection.wait_for_end()


PLAYS: list[Play] = [refuses, refuses_here, ends_with_words, breaks_an_output]


@pytest.mark.parametrize("options", [("--retries", "0"), ("--explain", "--retries", "0")], ids=" ".join)
@pytest.mark.parametrize("play", PLAYS)
def test_no_text_of_a_worker_acts_on_the_terminal(
    play: Play, options: tuple[str, ...], application: Application
) -> None:
    """0.1.0 wrote exit texts, refusals and complaints for programs as they came."""
    reading, writing = os.pipe()
    errors = fcntl.fcntl(writing, fcntl.F_DUPFD, ABOVE_MAXFD)
    os.close(writing)
    argv = command("cexec", application.public, *options)
    patience = "4" if play is refuses_here else "30"  # that client looks for another worker until its time is over
    settings = {**LOOPBACK, "CEXEC_TIMEOUT_ACCEPT": patience, "CEXEC_FD_FOR_ERRORS": str(errors)}
    with FakeWorker(application, play):
        result = subprocess.run(
            argv, env=local_environment(settings), capture_output=True, timeout=60, input=b"", pass_fds=[errors]
        )
    os.close(errors)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    assert result.returncode != 0
    for line in (result.stderr + told).decode().splitlines():
        assert line.isprintable(), line
    whole = (result.stderr + result.stdout + told).decode()
    assert "\x1b" not in whole and "\r" not in whole
    assert "a\\x01" in whole
