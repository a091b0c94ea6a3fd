"""A terminal that belongs to another process group is left alone, and read when it is ours."""

from __future__ import annotations

import errno
import os
import time
import tty
from collections.abc import Iterator

import pytest

from cexec.system.io import fds, foreground, opened_fds
from cexec.system.io.opened_fds import open_source
from cexec.system.io.special_fds import TerminalSource


@pytest.fixture
def ends() -> Iterator[tuple[int, int]]:
    """The far side and the terminal, which is nobody's controlling one."""
    main, theirs = os.openpty()
    tty.setraw(theirs)
    yield main, theirs
    os.close(main)
    os.close(theirs)


def read(source: fds.Source) -> bytes | None:
    view = memoryview(bytearray(100))
    size = source.read_into(view)
    return None if size is None else bytes(view[:size])


@pytest.mark.parametrize("again", [True, False])
def test_one_that_is_not_our_controlling_terminal_is_read(
    ends: tuple[int, int], monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """Also where it cannot be opened again, because it is another user's."""
    if not again:
        monkeypatch.setattr(opened_fds, "open_again", lambda *_: None)
    source = open_source(ends[1])
    assert isinstance(source, TerminalSource) and read(source) is None and not source.rests_until()
    os.write(ends[0], b"typed")
    assert read(source) == b"typed" and not source.rests_until()
    source.close()


def test_one_that_is_not_ours_to_read_is_looked_at_each_second(
    ends: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    front = [False]
    monkeypatch.setattr(foreground, "in_foreground", lambda fd: front[0])
    source = open_source(ends[1])
    os.write(ends[0], b"typed")
    before = time.monotonic()
    assert read(source) is None
    assert before + 1 <= source.rests_until() <= time.monotonic() + 1
    front[0] = True
    assert read(source) == b"typed" and not source.rests_until()
    source.close()


def test_eio_means_later_unless_the_terminal_is_ours_and_fails_again(
    ends: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int, buffers: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    source = open_source(ends[1])
    os.write(ends[0], b"typed")
    with monkeypatch.context() as patch:
        patch.setattr(os, "readv", fail)
        assert read(source) is None and source.rests_until()
        with pytest.raises(OSError, match="Input/output error"):
            read(source)
    source.close()
