"""The keys that a person at a terminal types for the client."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.client.attempt.escape_keys import COMMANDS, HELP, HELP_TEXT, LEAVE, SUSPEND, EscapeKeys

CASES = [
    (b"~.", b"", [LEAVE]),
    (b"~.more", b"", [LEAVE]),
    (b"ls\r~.", b"ls\r", [LEAVE]),
    (b"ls\n~.", b"ls\n", [LEAVE]),
    (b"ls ~.", b"ls ~.", []),
    (b"\r~~.", b"\r~.", []),
    (b"~~", b"~", []),
    (b"~x", b"~x", []),
    (b"~\r~.", b"~\r", [LEAVE]),
    (b"~?~?ls\r", b"ls\r", [HELP, HELP]),
    (b"~\x1a\x1a", b"\x1a", [SUSPEND]),
    (b"~", b"", []),
    (b"a~", b"a~", []),
    (b"\r~\x7f", b"\r~\x7f", []),
    (b"\xc3\xa9\r", b"\xc3\xa9\r", []),
    (b"", b"", []),
]


@pytest.mark.parametrize(("keys", "typed", "commands"), CASES)
def test_what_keys_mean_at_once_and_one_by_one(keys: bytes, typed: bytes, commands: list[str]) -> None:
    assert EscapeKeys().feed(keys) == (typed, commands)
    one_by_one = EscapeKeys()
    sent, found = b"", list[str]()
    for place in range(len(keys)):
        some, more = one_by_one.feed(keys[place : place + 1])
        sent, found = sent + some, found + more
        if LEAVE in more:
            break
    assert (sent, found) == (typed, commands)


@given(st.lists(st.binary(max_size=20)))
def test_other_keys_pass_unchanged(pieces: list[bytes]) -> None:
    machine = EscapeKeys()
    plain = [piece.replace(b"~", b"-") for piece in pieces]
    assert b"".join(machine.feed(piece)[0] for piece in plain) == b"".join(plain)


@given(st.lists(st.sampled_from([b"~", b"\r", b"x", b"~~", b"\n~"]), max_size=30), st.integers(1, 4))
def test_it_does_not_matter_how_keys_come(words: list[bytes], size: int) -> None:
    keys = b"".join(words)
    pieces = EscapeKeys()
    parts = [pieces.feed(keys[place : place + size]) for place in range(0, len(keys), size)]
    assert b"".join(part[0] for part in parts) == EscapeKeys().feed(keys)[0]


def test_never_more_than_one_key_is_held_back() -> None:
    """A reader's buffer has room for one key more than it reads."""
    for first in (b"~", b"x~", b"\r~"):
        machine = EscapeKeys()
        held = len(first) - len(machine.feed(first)[0])
        assert held in (0, 1) and len(machine.feed(b"y" * 10)[0]) == 10 + held


def test_the_help_names_every_command() -> None:
    for key in COMMANDS:
        assert f"~{key.decode().replace(chr(26), '^Z')} " in HELP_TEXT
