"""The lines of a log, as people read them and as programs do."""

from __future__ import annotations

import io
import json
import time
from datetime import datetime
from typing import Any

import pytest

from cexec.system.storage.eventlog import EventLog, escape


def written(*, as_json: bool = False, **fields: Any) -> str:
    """Returns the line of an event without its end."""
    stream = io.StringIO()
    EventLog(stream, as_json=as_json).event("what", **fields)
    return stream.getvalue().removesuffix("\n")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("word", "word"),
        ("größe", "größe"),
        ("two words", '"two words"'),
        (" ", '" "'),
        ("a=b", '"a=b"'),
        ('"', r'"\""'),
        ("back\\slash", r"back\\slash"),
        ("line\nline", r"line\nline"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\udc9b", r"\udc9b"),
        (0.00123456, "0.00123"),
        (17, "17"),
        (True, "True"),
        ([], "[]"),
    ],
)
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_each_field_is_shown_as_one_word(value: object, shown: str, place: str) -> None:
    fields: dict[str, Any] = {"first": "1", "middle": "2", "last": "3"}
    fields[place] = value
    expected = {"first": "1", "middle": "2", "last": "3", place: shown}
    rest = "".join(f" {name}={text}" for name, text in expected.items())
    assert written(**fields).partition(" what")[2] == rest


def test_a_word_is_escaped_in_the_same_way_beside_others_that_need_it() -> None:
    assert written(one="a b", two="c", three="d=").partition(" what")[2] == ' one="a b" two=c three="d="'
    assert [escape(text) for text in ("a b", "c", "")] == ['"a b"', "c", '""']


class Nothing:
    """Has no text."""

    def __str__(self) -> str:
        return ""


def test_a_value_without_a_text_is_shown_as_such() -> None:
    assert written(one=Nothing(), two=2).endswith(' what one="" two=2')
    assert written(one=1, two=Nothing()).endswith(' what one=1 two=""')


@pytest.mark.parametrize("as_json", [False, True])
def test_fields_that_say_nothing_are_left_out(as_json: bool) -> None:
    line = written(as_json=as_json, one=None, two="", three=0)
    assert ({"event", "three", "time"} == set(json.loads(line))) if as_json else line.endswith(" what three=0")


def test_a_line_begins_with_the_local_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = [1796040184.2, 1796040184.9, 1796040185.0]
    monkeypatch.setattr("cexec.system.storage.eventlog.time.time", iter(seconds).__next__)
    for now in seconds:
        expected = datetime.fromtimestamp(int(now)).astimezone().isoformat(timespec="seconds")
        assert written() == f"{expected} what"


@pytest.mark.parametrize(("zone", "now"), [("UTC+99", 1_000_000_000), ("XXX-25:61", 1_000_000_001)])
def test_a_zone_that_is_a_day_away_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch, zone: str, now: int) -> None:
    """Regression: the first event ended cservice and cproxy with a traceback."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        monkeypatch.setattr("cexec.system.storage.eventlog.time.time", lambda: now)
        assert written() == f"2001-09-09T01:46:4{now % 10}+00:00 what"
    finally:
        monkeypatch.undo()
        time.tzset()
