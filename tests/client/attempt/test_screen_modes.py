"""The modes of a screen that a killed program leaves behind."""

from __future__ import annotations

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.client.attempt.screen_modes import OFF_AT_FIRST, ScreenModes

VIM = b"\x1b[?1049h\x1b[>4;2m\x1b[?1h\x1b=\x1b[?2004h\x1b[?1004h\x1b[1;24r\x1b[?12h\x1b[?25l\x1b[31mtext\x1b[24;1H"
LEFT = b"\x1b[?2004l\x1b[>4;m\x1b[?1l\x1b>\x1b[?1049l\x1b[r\x1b[?1004l\x1b[?25h\x1b[?12l\r\n"


def restored(*shown: bytes) -> bytes:
    modes = ScreenModes()
    for data in shown:
        modes.feed(data)
    return modes.restoring()


def test_plain_output_needs_nothing_but_a_line_of_its_own() -> None:
    assert restored(b"one\r\ntwo\r\n") == b""
    assert restored(b"half a line") == b"\r\n"
    assert restored() == b""


def test_what_an_editor_has_set_is_undone() -> None:
    undone = restored(VIM)
    for sequence in (b"\x1b[?1049l", b"\x1b[>4m", b"\x1b[?1l", b"\x1b>", b"\x1b[?2004l", b"\x1b[?1004l", b"\x1b[?25h"):
        assert sequence in undone
    assert undone.startswith(b"\x18\x1b[m") and b"\x1b7\x1b[r\x1b8" in undone and undone.endswith(b"\r")
    assert undone.index(b"\x1b[?2004l") < undone.index(b"\x1b[?1049l")  # the screen comes last


def test_what_an_editor_has_undone_itself_is_left_alone() -> None:
    assert b"?" not in restored(VIM, LEFT) and b"\x1b7" not in restored(VIM, LEFT)


@pytest.mark.parametrize("mode", OFF_AT_FIRST)
def test_each_mode_is_undone(mode: int) -> None:
    assert b"\x1b[?%dl" % mode in restored(b"\x1b[?%dh" % mode)
    assert b"\x1b[?%dl" % mode not in restored(b"\x1b[?%dh\x1b[?%dl" % (mode, mode))


@pytest.mark.parametrize("mode", [7, 25])
def test_modes_that_are_on_at_first_are_switched_on(mode: int) -> None:
    assert b"\x1b[?%dh" % mode in restored(b"\x1b[?%dl" % mode)


@pytest.mark.parametrize("size", range(1, len(VIM)))
def test_it_does_not_matter_how_the_output_is_cut(size: int) -> None:
    assert restored(*(VIM[at : at + size] for at in range(0, len(VIM), size))) == restored(VIM)


def test_several_modes_in_one_sequence_and_a_reset() -> None:
    assert b"\x1b[?1000l" in restored(b"\x1b[?1000;1006h") and b"\x1b[?1006l" in restored(b"\x1b[?1000;1006h")
    assert b"?" not in restored(b"\x1b[?1000;1006h\x1bc")


def test_an_unfinished_sequence_keeps_little() -> None:
    assert restored(b"\x1b[?" + b"1" * 100_000, b"049h") == restored(b"\x1b[?", b"1" * 100_000)
    assert len(restored(*[b"\x1b[?" + b"1;" * 30] * 100)) < 100


@given(
    st.binary() | st.lists(st.sampled_from([b"\x1b", b"[?", b"1049", b";", b"h", b"l", b"r", b"\x1b[m"])).map(b"".join)
)
def test_anything_may_be_shown(data: bytes) -> None:
    assert len(restored(data)) < 1000


def test_the_screen_of_a_person_after_a_killed_editor() -> None:
    screen = pyte.Screen(40, 5)
    stream = pyte.ByteStream(screen)
    stream.feed(b"$ edit\r\n" + VIM + restored(b"$ edit\r\n", VIM) + b"cexec: lost\r\n$ ")
    assert not screen.cursor.hidden and screen.margins is None
    assert screen.cursor.attrs.fg == "default"
