"""The value of GO's option `terminal`, docs/protocol.md section 4.5."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.errors import ProtocolError
from cexec.protocol.connection.frames import LARGEST_WINDOW, Stream
from cexec.protocol.connection.options import PIPE, READS, SOCKET, WRITES
from cexec.protocol.connection.terminal_request import CHARACTERS, DUMB, MODES, TerminalRequest, fits

TEXT = "24 80 xterm-256color eof=4 erase=127 intr=3 utf8=1"
STANDARD = [Stream(0, READS), Stream(1, WRITES), Stream(2, WRITES, same_as=1)]


def test_the_example_of_the_document_reads_back() -> None:
    found = TerminalRequest.decode(TEXT)
    assert (found.rows, found.columns, found.term) == (24, 80, "xterm-256color")
    assert found.settings == {"eof": 4, "erase": 127, "intr": 3, "utf8": 1}
    assert found.encode() == TEXT


@pytest.mark.parametrize("size", range(len(TEXT)))
def test_a_text_that_is_cut_means_something_else_or_nothing(size: int) -> None:
    """Byte by byte."""
    try:
        found = TerminalRequest.decode(TEXT[:size])
    except ProtocolError:
        return
    assert found.encode() == TEXT[:size]


@pytest.mark.parametrize("trailer", [" ", " x", "\n", "\0", "=1", " intr=3", " utf8=1", "  z=1", "é"])
def test_a_trailer_is_refused(trailer: str) -> None:
    with pytest.raises(ProtocolError):
        TerminalRequest.decode(TEXT + trailer)


@pytest.mark.parametrize(
    "text",
    [
        "", "24", "24 80", "24 80 ", "24  xterm", "-1 80 xterm", "024 80 xterm", "24 4097 xterm", "24 99999 xterm",
        "24 80 ../../evil", "24 80 a/b", "24 80 .x", f"24 80 {'x' * 65}", "24 80 xterm a", "24 80 xterm a=",
        "24 80 xterm a=256", "24 80 xterm a=-1", "24 80 xterm b=1 a=1", "24 80 xterm a=1 a=1", "24 80 xterm A=1",
        f"24 80 xterm {'a' * 17}=1", "24 80 xterm 1a=1", "24 80 xterm a=01", "٤ 80 xterm", "24 80 xterm\n",
    ],
)  # fmt: skip
def test_what_is_not_of_this_form_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError, match="terminal has"):
        TerminalRequest.decode(text)


def test_a_client_makes_its_numbers_and_its_type_fit() -> None:
    found = TerminalRequest(100_000, -3, "no such/type\x1b")
    assert (found.rows, found.columns, found.term) == (LARGEST_WINDOW, 0, DUMB)
    assert TerminalRequest.decode(found.encode()).encode() == f"{LARGEST_WINDOW} 0 dumb"


def test_a_setting_that_is_not_known_is_kept() -> None:
    assert TerminalRequest.decode("1 1 x y9=7").settings == {"y9": 7}


def test_everything_at_its_longest_fits_into_a_value() -> None:
    settings = {**dict.fromkeys(CHARACTERS, 255), **dict.fromkeys(MODES, 255)}
    assert len(TerminalRequest(LARGEST_WINDOW, LARGEST_WINDOW, "x" * 64, settings).encode()) <= 255


@given(
    st.integers(0, LARGEST_WINDOW), st.integers(0, LARGEST_WINDOW),
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", fullmatch=True),
    st.dictionaries(st.from_regex(r"[a-z][a-z0-9]{0,15}", fullmatch=True), st.integers(0, 255), max_size=9),
)  # fmt: skip
def test_any_request_reads_back(rows: int, columns: int, term: str, settings: dict[str, int]) -> None:
    found = TerminalRequest.decode(TerminalRequest(rows, columns, term, settings).encode())
    assert (found.rows, found.columns, found.term, found.settings) == (rows, columns, term, settings)


@given(st.text())
def test_any_text_is_a_request_or_a_protocol_error(text: str) -> None:
    try:
        found = TerminalRequest.decode(text)
    except ProtocolError:
        return
    assert found.encode() == text


@pytest.mark.parametrize(
    ("streams", "wanted"),
    [
        (STANDARD, True),
        ([*STANDARD, Stream(3, READS), Stream(4, READS | WRITES, SOCKET)], True),
        (STANDARD[:2], False),
        (STANDARD[1:], False),
        ([Stream(0, READS), Stream(1, WRITES), Stream(2, WRITES)], False),
        ([Stream(0, READS | WRITES, SOCKET), *STANDARD[1:]], False),
        ([Stream(0, WRITES, PIPE), *STANDARD[1:]], False),
        ([], False),
    ],
)
def test_the_streams_of_a_terminal(streams: list[Stream], wanted: bool) -> None:
    assert fits(streams) is wanted
