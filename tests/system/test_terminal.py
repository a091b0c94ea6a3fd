"""The picture at the bottom of a terminal, as its screen shows it, and who gets colours."""

from __future__ import annotations

import os
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from cexec.system import terminal
from cexec.system.terminal import GREEN, RED, Painter, Terminal, clip, fitting, painted, width
from tests.screen import Screen

CAPABLE = {"TERM": "xterm"}


@pytest.fixture
def screen() -> Iterator[Screen]:
    with Screen(80, 10) as screen:
        yield screen


def painter_of(screen: Screen) -> Painter:
    return Painter(Terminal(screen.theirs, CAPABLE))


def output(screen: Screen, text: str) -> None:
    """What somebody else writes to the same terminal, as the contract asks."""
    data = text.encode()
    terminal.give_way(screen.theirs)
    os.write(screen.theirs, data)
    terminal.wrote(screen.theirs, data)


def test_output_passes_above_the_picture_and_no_line_is_lost(screen: Screen) -> None:
    painter = painter_of(screen)
    for number in range(40):
        painter.draw([f"bar {number}", f"eta {number}"])
        output(screen, f"line {number}\n")
    painter.draw(["bar end"])
    assert screen.story() == [*(f"line {number}" for number in range(40)), "bar end"]
    painter.close()
    assert screen.story() == [f"line {number}" for number in range(40)]


def test_the_last_picture_stays_if_it_shall(screen: Screen) -> None:
    painter = painter_of(screen)
    painter.draw(["one", "two"])
    painter.close(keep=True)
    output(screen, "$ ")
    assert screen.lines() == ["one", "two", "$"]


def test_a_line_that_has_no_end_yet_is_not_glued_to_the_picture(screen: Screen) -> None:
    painter = painter_of(screen)
    painter.draw(["bar"])
    output(screen, "begun")
    painter.draw(["bar 2"])
    assert screen.lines() == ["begun"]
    output(screen, ", ended\n")
    assert screen.lines() == ["begun, ended", "bar 2"]
    painter.close()


def test_a_line_of_ours_begins_anew(screen: Screen) -> None:
    painter = painter_of(screen)
    painter.draw(["bar"])
    output(screen, "begun")
    terminal.begin_line(screen.theirs)
    output(screen, "cmap: a message\n")
    assert screen.lines() == ["begun", "cmap: a message", "bar"]
    output(screen, "begun again")
    painter.close(keep=True)
    assert screen.lines() == ["begun", "cmap: a message", "begun again", "bar"]


def test_a_smaller_picture_leaves_nothing_of_a_larger_one(screen: Screen) -> None:
    painter = painter_of(screen)
    painter.draw(["a long first line", "second", "third"])
    painter.draw(["short"])
    assert screen.lines() == ["short"]
    painter.close()


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (20, 10), (5, 2), (2, 5), (1, 1)])
def test_every_window_keeps_its_picture_within(columns: int, rows: int) -> None:
    with Screen(columns, rows) as screen:
        painter = painter_of(screen)
        lines = [f"{number}" * 200 for number in range(9)]
        painter.draw(lines)
        painter.draw(lines)
        shown = [line[: columns - 1] for line in lines[: max(1, rows - 1)]]
        assert screen.story() == [line for line in shown if line]
        painter.close()
        assert screen.story() == []


def test_a_window_that_is_resized_in_the_middle(screen: Screen) -> None:
    painter = painter_of(screen)
    output(screen, "kept\n")
    painter.draw(["x" * 200, "y" * 200])
    for columns, rows in ((20, 10), (2, 5), (80, 10)):
        screen.resize(columns, rows)
        painter.draw(["x" * 200, "y" * 200])
        assert screen.lines()[-2:] == ["x" * (columns - 1), "y" * (columns - 1)]
    painter.close()
    assert not [line for line in screen.story() if "x" in line or "y" in line]


def test_a_window_that_is_wrapped_anew_is_erased_whole() -> None:
    """Some terminals wrap long lines anew: what was one row are four then.  The cursor stays at the first letter."""
    with Screen(80, 10) as screen:
        painter = painter_of(screen)
        painter.draw(["x" * 79])
        assert screen.lines() == ["x" * 79] and screen.raw.endswith(b"\x1b[J\r")
        painter.close()
        assert screen.lines() == [] and screen.raw.endswith(b"\r\x1b[J")


@pytest.mark.parametrize("term", ["dumb", ""])
def test_a_dumb_terminal_gets_no_escape_sequence(screen: Screen, term: str) -> None:
    dumb = Terminal(screen.theirs, {"TERM": term, "FORCE_COLOR": "1"})
    painter = Painter(dumb)
    painter.draw(["bar"])
    output(screen, dumb.paint("text\n", RED))
    painter.close(keep=True)
    screen.read()
    assert screen.raw == b"text\r\n"


@pytest.mark.parametrize(
    ("environ", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "0"}, False)],
)
def test_no_color(screen: Screen, environ: dict[str, str], coloured: bool) -> None:
    found = Terminal(screen.theirs, {**CAPABLE, **environ})
    assert found.drawable and found.paint("x", RED) == ("\x1b[31mx\x1b[0m" if coloured else "x")


def test_a_file_and_a_pipe_get_nothing_whatever_the_environment_says(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with open(tmp_path / "log", "wb") as file:
        for fd in (file.fileno(), writing, 9999):
            found = Terminal(fd, {**CAPABLE, "FORCE_COLOR": "3", "CLICOLOR_FORCE": "1"})
            painter = Painter(found)
            painter.draw(["bar"])
            terminal.give_way(fd)
            terminal.wrote(fd, b"x\n")
            painter.close(keep=True)
            assert not found.drawable and found.paint("x", RED) == "x"
    assert not (tmp_path / "log").read_bytes()
    os.close(writing)
    assert os.read(reading, 10) == b""
    os.close(reading)


def test_what_goes_elsewhere_leaves_the_picture_alone(screen: Screen, tmp_path: Path) -> None:
    painter = painter_of(screen)
    painter.draw(["bar"])
    screen.read()
    before = screen.raw
    with open(tmp_path / "out", "wb") as file:
        terminal.give_way(file.fileno())
        terminal.wrote(file.fileno(), b"no end")
    screen.read()
    assert screen.raw == before
    painter.close()


def test_ctrl_s_stops_the_picture_and_not_the_process(screen: Screen) -> None:
    painter = painter_of(screen)
    painter.draw(["before"])
    assert screen.lines() == ["before"]
    termios.tcflow(screen.theirs, termios.TCOOFF)
    painter.draw(["meanwhile"])
    assert screen.lines() == ["before"]
    termios.tcflow(screen.theirs, termios.TCOON)
    painter.draw(["after"])
    assert screen.lines() == ["after"]
    painter.close()


def test_a_terminal_that_has_gone_is_no_failure() -> None:
    screen = Screen()
    own = os.dup(screen.theirs)
    painter = Painter(Terminal(own, CAPABLE))
    painter.draw(["bar"])
    screen.__exit__()
    painter.draw(["bar"])
    painter.close(keep=True)
    os.close(own)


@pytest.mark.parametrize(
    ("line", "columns", "shown"),
    [
        ("abcdef", 3, "abc"),
        ("abc", 3, "abc"),
        ("\u6f22\u5b57x", 3, "\u6f22"),  # two columns each
        ("e\u0301e\u0301", 1, "e\u0301"),
        (painted("abcdef", GREEN), 2, "\x1b[32mab\x1b[0m"),
        (painted("ab", GREEN), 2, painted("ab", GREEN)),
    ],
)
def test_lines_are_clipped_by_what_they_show(line: str, columns: int, shown: str) -> None:
    assert clip(line, columns) == shown and width(shown) <= columns


def test_a_number_is_shown_whole_or_not_at_all() -> None:
    assert [fitting(["done 100 of 200", "100/200", "50%"], columns) for columns in (15, 8, 4, 2)] == [
        "done 100 of 200", "100/200", "50%", "",
    ]  # fmt: skip
