"""Standard input whose end is its end: a terminal would go on after a Ctrl-D."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator

import pytest

from cexec.cmap.inputs.standard_input import OnceEnded
from cexec.cmap.inputs.store import spool_stream


@pytest.fixture
def terminal() -> Iterator[int]:
    """A terminal at which two ends of the input are typed; behind the first one there is more."""
    ours, theirs = os.openpty()
    os.write(ours, b"one\n\x04two\n\x04")
    yield theirs
    os.close(ours)
    os.close(theirs)


def test_one_end_of_the_input_is_enough(terminal: int) -> None:
    """Regression: at a terminal `cmap --tee` wanted a second Ctrl-D."""
    spool, _ = spool_stream(io.BufferedReader(OnceEnded(terminal, closefd=False)))
    assert spool.read(0, spool.size) == b"one\n"
    spool.close()


def test_a_stream_without_a_buffer_remembers_its_end(terminal: int) -> None:
    stream = OnceEnded(terminal, closefd=False)
    assert [stream.read(100) for _ in range(3)] == [b"one\n", b"", b""]
    assert stream.readall() == b"" and stream.readinto(bytearray(9)) == 0


def test_all_that_there_is(terminal: int) -> None:
    stream = OnceEnded(terminal, closefd=False)
    assert stream.read(0) == b"" and stream.readinto(bytearray()) == 0  # no end
    assert stream.readall() == b"one\n"
    assert stream.read() == b"" and stream.readall() == b""


def test_nothing_now_is_no_end() -> None:
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    stream = OnceEnded(ours)
    buffer = bytearray(9)
    assert (stream.read(9), stream.readinto(buffer), stream.readall()) == (None, None, None)
    os.write(theirs, b"later")
    os.close(theirs)
    assert (stream.read(9), stream.read(9)) == (b"later", b"")
    stream.close()
