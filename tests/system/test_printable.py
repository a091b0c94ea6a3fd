"""Text that a peer has chosen, before it reaches a terminal or a log."""

from __future__ import annotations

import io
import json
import os
import sys

import pytest

from cexec.errors import DisconnectedError
from cexec.logger.log_output import LogOutput
from cexec.logger.reporter import Line
from cexec.system.printable import printable, write_line
from cexec.system.storage.eventlog import EventLog, escape

C0, C1 = [*range(0x20), 0x7F], [*range(0x80, 0xA0)]
DIRECTIONS = [0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]  # marks, embeddings, overrides, isolates
SEPARATORS, OTHERS = [0x2028, 0x2029], [0xAD, 0x200B, 0xFEFF, 0xD800, 0xDC9B, 0xE0001]
ACTING = [chr(number) for number in (*C0, *C1, *DIRECTIONS, *SEPARATORS, *OTHERS)]


@pytest.mark.parametrize("letter", ACTING, ids=ascii)
def test_no_character_acts_on_a_terminal(letter: str, capfd: pytest.CaptureFixture[str]) -> None:
    text = f"a{letter}[2Jb"
    shown = printable(text)
    assert shown.isprintable() and shown == f"a{ascii(letter)[1:-1]}[2Jb"
    assert escape(text).isprintable()
    write_line(1, text)
    EventLog(sys.stdout).event("what", field=text)
    EventLog(sys.stdout, as_json=True).event("what", field=text)
    for as_json in (False, True):
        output = LogOutput(None, as_json=as_json)
        output.write(Line(text, worker=text))
        output.write_table([["worker"], [text]])
        output.close()
    lines = capfd.readouterr().out.removesuffix("\n").split("\n")
    assert len(lines) == 8
    assert all(line.isprintable() for line in lines)
    assert json.loads(lines[2])["field"] == text


def test_other_text_stays_as_it_is() -> None:
    for text in ("", "plain", "naïve 日本語 🙂", "a b\\c"):
        assert printable(text) == text


def test_a_reader_that_has_gone_is_no_failure() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    write_line(writing, "text")
    os.close(writing)
    write_line(writing, "text")
    EventLog(io.StringIO()).event("what")


def test_the_message_of_an_error_is_printable_whatever_peer_it_quotes() -> None:
    """Python shows it on a terminal when a program does not catch it."""
    told = str(DisconnectedError("".join(ACTING)))
    assert told.isprintable()
    assert told == printable("".join(ACTING))
    assert str(DisconnectedError("no memory")) == "no memory"
