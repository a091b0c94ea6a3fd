"""The ends of streams at a person's terminal, and what a job asks for."""

from __future__ import annotations

import os
from collections.abc import Mapping

import pytest

from cexec.client.attempt.escape_keys import LEAVE
from cexec.client.attempt.inputs import Budget, SpoolSource
from cexec.client.attempt.local_terminal import KeyboardSource, LocalTerminal, ScreenSink
from cexec.protocol.connection.frames import FIRST_FILE, Go, Stream
from cexec.protocol.connection.options import FILE, READS, SOCKET, TERMINAL, WRITES
from cexec.protocol.connection.terminal_request import TerminalRequest, fits
from cexec.system.io.fds import Sink, Source


class Keys(Source):
    """What a person types, in pieces."""

    def __init__(self, *pieces: bytes | None) -> None:
        super().__init__(-1, shared=True)
        self.pieces = list(pieces)

    def read_into(self, view: memoryview) -> int | None:
        piece = self.pieces.pop(0) if self.pieces else b""
        if piece is None:
            return None
        view[: len(piece)] = piece
        return len(piece)


def read(source: Source, size: int = 1024) -> bytes | None:
    view = memoryview(bytearray(size))
    count = source.read_into(view)
    return None if count is None else bytes(view[:count])


def test_keys_pass_and_commands_do_not() -> None:
    source = KeyboardSource(Keys(b"ls\r", None, b"~", b".", b"more"))
    assert (read(source), source.typed, source.commands) == (b"ls\r", True, [])
    assert read(source) is None
    assert read(source) is None  # `~` waits for the next key
    assert (read(source), source.commands) == (None, [LEAVE])


def test_the_end_is_the_end() -> None:
    source = KeyboardSource(Keys(b""))
    assert (read(source), source.typed) == (b"", False)


def test_a_key_that_was_held_back_has_room() -> None:
    source = KeyboardSource(Keys(b"~", b"x"))
    assert read(source, 2) is None
    assert read(source, 2) == b"~x"


def test_it_follows_the_source_that_keeps_keys_for_a_repetition() -> None:
    spool = SpoolSource(Keys(b"a", b""), Budget(100))
    source = KeyboardSource(spool)
    assert read(source) == b"a"
    spool.forget()
    assert spool.lost == 1
    assert read(source) == b"" and source.fd == spool.fd


def test_what_is_shown_is_noted_as_far_as_it_was_shown() -> None:
    class Narrow(Sink):
        def write(self, view: memoryview) -> int:
            return min(len(view), 8)

    terminal = LocalTerminal({})
    terminal.screen = True
    sink = ScreenSink(Narrow(-1, shared=True), terminal)
    assert sink.write(memoryview(b"\x1b[?1003h\x1b[?1004h")) == 8
    restoring = terminal.modes.restoring()
    assert b"?1003l" in restoring and b"?1004l" not in restoring
    assert sink.count == 8


def test_the_terminal_passes_keys_on_before_a_prompt_is_shown() -> None:
    """Else a key that answers the prompt would be echoed here, and a password shown."""
    order: list[str] = []

    class Entering(LocalTerminal):
        def enter(self) -> bool:
            order.append("enter")
            return True

    class Shown(Sink):
        def write(self, view: memoryview) -> int:
            order.append(bytes(view).decode())
            return len(view)

    sink = ScreenSink(Shown(-1, shared=True), Entering({}))
    for data in (b"password: ", b"thanks"):
        sink.write(memoryview(data))
    assert order == ["enter", "password: ", "thanks"]


def asked(streams: list[Stream], environ: Mapping[str, str]) -> tuple[Go, TerminalRequest]:
    options = {"nice": "1"}
    go = Go(job_id=bytes(16), attempt=1, streams=streams, options=options)
    LocalTerminal(environ).add_to(go)
    assert options == {"nice": "1"}  # those of the request, for the next attempt
    go = Go.decode(go.encode())
    return go, TerminalRequest.decode(go.options[TERMINAL])


@pytest.mark.parametrize(
    "streams",
    [
        [],
        [Stream(0, READS), Stream(1, WRITES), Stream(2, WRITES)],
        [Stream(0, READS), Stream(1, WRITES), Stream(2, WRITES, same_as=1), Stream(3, READS, same_as=0)],
        [Stream(2, WRITES), Stream(5, WRITES, same_as=2), Stream(6, READS | WRITES, SOCKET)],
        [Stream(1, WRITES), Stream(4, WRITES, same_as=1), Stream(FIRST_FILE, READS, FILE, name="f")],
    ],
)
def test_whatever_the_descriptors_are_here_a_terminal_has_its_streams(streams: list[Stream]) -> None:
    go, request = asked(streams, {"TERM": "vt100"})
    assert fits(go.streams) and request.term == "vt100"
    assert {stream.number for stream in go.streams} == {0, 1, 2} | {stream.number for stream in streams}


def test_without_a_terminal_here_little_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda fd: False)
    _, request = asked([], {})
    assert (request.term, request.settings) == ("dumb", {})
    terminal = LocalTerminal({})
    assert not terminal.keyboard and not terminal.screen and terminal.enter()
    terminal.show(b"nobody sees this")
    terminal.leave()
    assert not terminal.entered
